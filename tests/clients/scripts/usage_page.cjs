// The holder's page in Chromium. See tests/clients/usage_page.rs.

const assert = require("node:assert/strict");
const { setTimeout: sleep } = require("node:timers/promises");
const browser = require("./browser.cjs");

const BASE = process.env.BASE_URL;
const KEYS = JSON.parse(process.env.KEYS);
const HOSTILE = process.env.HOSTILE;
const UNKNOWN = "trial-nobody-20260101-AAAAAAAAAAAAAAAAAAAAAA";

// A usage report of a key with a long history; `AT` is the gateway's time.
const AT = "2026-11-22T15:19:10Z";
const RICH = {
  object: "usage", id: "key_1", key: "trial-alice-…x7Qp", day: "2026-11-22", timezone: "UTC",
  label: "Alice’s evaluation of the new summariser, second round, with the long documents from the archive (2026-11-22) ".padEnd(199, "x"),
  daily_limit: 1000000000, used: 123456789, remaining: 876543211, unlimited: false, resets_at: "2026-11-23T00:00:00Z",
  requests: { succeeded: 123450000, failed: 6789, refunded: 1234, tokens_unknown: 23450000 },
  tokens: { prompt: 98765432100, completion: 12345678900, total: 111111111000, cached: 65432100000, reasoning: 2345678900 },
  expires_at: "2026-11-25T12:00:00Z",
  history: Array.from({ length: 30 }, (_, place) => place)
    .filter((place) => place % 7 !== 3)
    .map((place) => {
      const requests = Math.round(60000000 * (1.2 + Math.sin(place)));
      const failed = place % 5 ? 0 : Math.round(requests / 6);
      const day = new Date(Date.UTC(2026, 10, 21 - place)).toISOString().slice(0, 10);
      return { day, requests, succeeded: requests - failed, failed, tokens: requests * 911 };
    }),
  models: ["deepseek-chat", "deepseek-reasoner", null, `${"a-model-with-a-very-long-name/".repeat(4)}70b`, HOSTILE, "gpt-oss-120b", "qwen3", "llama"]
    .map((model, place) => ({ model, requests: Math.round(9e8 / (place + 1) ** 2), tokens: Math.round(1e12 / (place + 1)), tokens_unknown: place === 1 ? 98765432 : 0 })),
  errors: [
    { at: "2026-11-22T15:01:02Z", status: 502, code: "upstream_unreachable", model: "deepseek-chat", refunded: true },
    { at: "2026-11-22T14:58:41Z", status: 503, code: "upstream_rate_limited", model: "deepseek-reasoner" },
    { at: "2026-11-22T14:40:00Z", status: 200, code: "client_gone", model: "deepseek-chat" },
    { at: "2026-11-22T09:12:00Z", status: 418, code: HOSTILE, model: HOSTILE },
    { at: "2026-11-22T08:00:00Z", status: 429, code: "insufficient_quota", model: "deepseek-chat" },
    { at: "2026-11-21T23:59:59Z", status: 404, code: null, model: null },
    { at: null, status: null, code: "constructor", model: "a-model-with-a-very-long-name/".repeat(4) },
  ],
};
const PLAIN = {
  ...RICH, label: "Alice", daily_limit: 200, used: 170, remaining: 30, expires_at: null,
  requests: { succeeded: 168, failed: 2, refunded: 0, tokens_unknown: 0 }, tokens: { prompt: 61234, completion: 20876, total: 82110 },
  history: RICH.history.map((past) => ({ ...past, requests: Math.round(past.requests / 1e6), failed: Math.round(past.failed / 1e6), tokens: Math.round(past.tokens / 1e5) })),
  models: RICH.models.slice(0, 3).map((model) => ({ ...model, requests: Math.round(model.requests / 1e6), tokens: Math.round(model.tokens / 1e6) })),
  errors: [],
};

// Responds to the page's next requests in place of the gateway.
async function respondWith(page, status, body, headers = {}) {
  await page.unroute("**/usage");
  await page.route("**/usage", (route) => {
    if (route.request().isNavigationRequest()) return route.continue();
    return route.fulfill({
      status, body: typeof body === "string" ? body : JSON.stringify(body),
      headers: { "content-type": "application/json", date: new Date(AT).toUTCString(), ...headers },
    });
  });
}

const unavailable = { error: { message: "", type: "server_error", param: null, code: "store_unavailable" } };

async function open(chromium, options) {
  const view = await browser.open(chromium, `${BASE}/usage`, `${BASE}/usage`, options);
  const { id } = view;
  // Submits a key, and waits until the page shows the response: a route that the next step changes
  // never responds to this step's request.
  const enter = async (key) => {
    await id("key-input").fill(key);
    await id("key-submit").click();
    await view.page.locator("#submit[aria-disabled=false]").waitFor({ state: "attached" });
  };
  const shown = async (key) => {
    await enter(key);
    await id("usage").waitFor({ state: "visible" });
  };
  return { ...view, enter, shown };
}

const clean = (view) => browser.clean(view, `${BASE}/usage`);

const looks = (chromium) => browser.everyLook(async (options, look) => {
  const view = await open(chromium, options);
  await everyState(view, (state) => look(view.page, state));
  await clean(view);
  await view.context.close();
});

async function everyState(view, look) {
  const { page, id, enter, shown } = view;
  const problem = async (state) => {
    await id("problem").waitFor({ state: "visible" });
    await look(state);
  };
  const again = async () => {
    await id("forget").click();
    await id("key-form").waitFor({ state: "visible" });
  };

  await look("form");
  await id("key-input").fill(UNKNOWN);
  await id("reveal").click();
  await look("form-revealed");
  await id("reveal").click();
  for (const [state, key] of [["no-key", ""], ["not-a-key", "密钥 1"], ["wrong", UNKNOWN], ["off", KEYS.off], ["over", KEYS.over]]) {
    await enter(key);
    await problem(state);
  }

  for (const state of ["busy", "full", "free", "idle"]) {
    await shown(KEYS[state]);
    await look(state);
    await again();
  }

  await respondWith(page, 503, unavailable, { "x-request-id": "7f9c24e8-3b12-4fef-91f3-5b3d9b0c6a11" });
  await enter(KEYS.busy);
  await problem("unavailable");
  await page.unroute("**/usage");
  await page.route("**/usage", (route) => route.abort());
  await enter(KEYS.busy);
  await problem("unreachable");

  await respondWith(page, 200, PLAIN);
  await shown(KEYS.busy);
  await look("near");
  await respondWith(page, 503, unavailable);
  await id("refresh").click();
  await id("stale").waitFor({ state: "visible" });
  await look("stale");
  await again();

  await respondWith(page, 200, RICH);
  await shown(KEYS.busy);
  await look("rich");
  await id("all-models").click();
  await id("as-table").click();
  await id("measure-tokens").check();
  await id("measure-tokens").press("Tab");
  await page.keyboard.press("Home");
  await id("tip").waitFor({ state: "visible" });
  await look("rich-open");
}

async function works(chromium) {
  const view = await open(chromium);
  const { page, context, id, enter, shown, seen } = view;

  const policy = (await page.request.get(`${BASE}/usage`, { headers: { accept: "text/html" } })).headers();
  assert.match(policy["content-security-policy"], /default-src 'none'.*connect-src 'self'.*base-uri 'none'.*form-action 'none'.*frame-ancestors 'none'/);
  assert.doesNotMatch(policy["content-security-policy"], /unsafe/);
  assert.equal(policy["referrer-policy"], "no-referrer");
  assert.equal(policy["x-content-type-options"], "nosniff");
  assert.equal(policy["cache-control"], "no-store");

  assert.equal(await id("key-input").getAttribute("type"), "password");
  assert.equal(await id("key-input").getAttribute("autocomplete"), "off");
  await enter("");
  assert.match(await id("problem").innerText(), /Enter your key/);
  await enter("two words");
  assert.match(await id("problem").innerText(), /not a key/);
  assert.deepEqual(seen.requests, [], "an invalid key is not sent");
  for (const [key, words] of [[UNKNOWN, /not known/], [KEYS.off, /is disabled/], [KEYS.over, /has expired/]]) {
    await enter(key);
    await page.waitForFunction((source) => new RegExp(source).test(document.getElementById("problem").textContent), words.source);
    assert.equal(await page.evaluate(() => document.activeElement.id), "key");
    assert.equal(await id("key-input").getAttribute("aria-invalid"), "true");
  }

  await id("reveal").press("Enter");
  assert.equal(await id("key-input").getAttribute("type"), "text");
  await shown(`  Bearer ${KEYS.busy}\n`);
  assert.equal(seen.requests.at(-1).headers.authorization, `Bearer ${KEYS.busy}`);
  assert.equal(await page.evaluate(() => document.activeElement.id), "name");
  assert.equal(await id("label").innerText(), HOSTILE, "a hostile label is text");
  assert.match(await id("masked").innerText(), /^trial-.*….{4}$/);
  assert.equal((await page.content()).includes(KEYS.busy), false, "the whole key is not in the document");
  assert.equal(await id("key-input").inputValue(), "");
  assert.equal(await id("key-input").getAttribute("type"), "password");

  // One of five was refunded, as the upstream failed.
  assert.equal(await id("figure").innerText(), "196");
  assert.equal(await id("figure-unit").innerText(), "of 200 requests left");
  assert.equal(await id("meter").getAttribute("aria-valuetext"), "4 of 200 requests used");
  assert.match(await id("requests").innerText(), /Succeeded\s+3\s+Failed\s+2\s+Refunded\s+1/);
  assert.equal(await id("tokens-unknown").isVisible(), false, "all figures are known");
  assert.match(await id("tokens").innerText(), /Prompt\s+6\s+Completion\s+9\s+Total\s+15/);
  const own = await page.evaluate(() => {
    const at = document.getElementById("resets").dateTime;
    return new Intl.DateTimeFormat("en-US", { hour: "numeric", minute: "2-digit", timeZone: "Asia/Shanghai" }).format(new Date(at));
  });
  assert.ok((await id("resets").innerText()).includes(own), "the reader's own time zone");
  assert.match(await id("resets").innerText(), /GMT\+8/);
  assert.match(await id("countdown").innerText(), /^\d+\s(h|min|s)/);

  // The chart: 30 days, today and the oldest included; the table has the same figures.
  const bars = page.locator("#chart [data-place]");
  assert.equal(await bars.count(), 30);
  const names = await bars.evaluateAll((all) => all.map((bar) => bar.getAttribute("aria-label")));
  assert.match(names[29], /\. Requests: 5, failed: 2, tokens: 15$/);
  assert.match(names[28], /\. Requests: 128, failed: 8, tokens: 1,500$/);
  assert.match(names[27], /\. Requests: 40, failed: 0, tokens: 1,500$/);
  assert.match(names[26], /\. Requests: 0, failed: 0, tokens: 0$/);
  assert.match(names[0], /\. Requests: 14, failed: 7, tokens: 1,500$/);
  assert.equal(await page.locator("#chart .good").count(), 4);
  assert.equal(await page.locator("#chart .failed").count(), 3);
  assert.equal(await page.locator("#chart .none").count(), 26);
  assert.match(await id("month-sum").innerText(), /^Requests: 187, tokens: 4,515$/);
  await id("as-table").click();
  const rows = await id("days").locator("tbody tr").allInnerTexts();
  assert.equal(rows.length, 30);
  assert.match(rows[1], /\s128\s+8\s+1,500$/);
  const models = await id("models").locator("tbody tr").allInnerTexts();
  assert.match(models[0], /^deepseek-chat\s+129\s+1,505$/);
  assert.match(models[1], /^deepseek-reasoner\s+40\s+1,500$/);
  assert.match(models[2], /^not known\s+16\s+1,500$/);
  assert.ok(models.some((row) => row.startsWith(HOSTILE)), "a hostile model is text");

  // Without a mouse.
  await id("measure-requests").focus();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.dataset.place), "29", "today first");
  assert.match(await id("tip").innerText(), /Today[\s\S]*Requests\s+5[\s\S]*Failed\s+2/);
  await page.keyboard.press("ArrowLeft");
  assert.match(await id("tip").innerText(), /Requests\s+128/);
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await page.evaluate(() => document.activeElement.dataset.place), "0");
  await page.keyboard.press("Escape");
  await id("tip").waitFor({ state: "hidden" });
  await page.keyboard.press("End");
  await id("tip").waitFor({ state: "visible" });
  await page.keyboard.press("Tab");
  await id("tip").waitFor({ state: "hidden" });
  await bars.nth(28).hover();
  assert.match(await id("tip").innerText(), /128/);
  await id("measure-tokens").check();
  assert.equal(await page.locator("#chart .failed").count(), 0);
  await id("measure-requests").check();

  // Switching the language sends no request.
  const before = seen.requests.length;
  await id("language").click();
  assert.equal(await page.evaluate(() => document.documentElement.lang), "zh-CN");
  assert.match(await page.locator("main").innerText(), /今日明细[\s\S]*最近 30 天[\s\S]*按模型统计/);
  assert.doesNotMatch((await page.locator("main").innerText()).replaceAll(HOSTILE, ""), /Today|Requests|Refresh|Failed/);
  await id("language").click();
  assert.equal(await page.evaluate(() => document.documentElement.lang), "en");
  assert.equal(seen.requests.length, before);

  // The page of an exhausted key says when it can be used again.
  await id("forget").click();
  assert.equal(await id("usage").isVisible(), false);
  await shown(KEYS.full);
  assert.equal(await id("figure").innerText(), "0");
  assert.match(await id("exhausted").innerText(), /used up\. You can use this key again in \d/);
  assert.match(await id("resets").innerText(), /GMT\+8/);
  assert.equal(await id("errors").isVisible(), false, "no list without data from the gateway");
  await id("forget").click();
  await shown(KEYS.free);
  assert.match(await id("today").innerText(), /1\s+used today, no daily limit/);
  assert.equal(await id("meter").isVisible(), false);

  // Without a store or a network, the last figures stay, with their time.
  await respondWith(page, 503, unavailable, { "x-request-id": "r-1" });
  await id("refresh").click();
  await id("stale").waitFor({ state: "visible" });
  assert.match(await id("stale").innerText(), /cannot be read.+from/);
  assert.equal(await id("figure").innerText(), "1");
  await id("forget").click();
  await enter(KEYS.free);
  await id("problem").waitFor({ state: "visible" });
  assert.match(await id("problem").innerText(), /Your key is not the cause.+r-1/);
  await page.unroute("**/usage");
  await context.setOffline(true);
  await enter(KEYS.free);
  await page.waitForFunction(() => document.getElementById("problem").textContent.includes("cannot be reached"));
  await context.setOffline(false);
  for (const body of ["<html>", "null", "{}"]) {
    await respondWith(page, 200, body);
    await enter(KEYS.free);
    await page.waitForFunction(() => document.getElementById("problem").textContent.includes("unexpected response"));
  }

  // The errors, if the gateway sends them.
  await respondWith(page, 200, RICH);
  await shown(KEYS.free);
  const errors = await id("errors").locator("li").allInnerTexts();
  assert.equal(errors.length, 7);
  assert.match(errors[0], /could not be reached[\s\S]*Refunded[\s\S]*502 upstream_unreachable/);
  assert.match(errors[2], /Cancelled before the end/);
  assert.ok(errors[3].includes(HOSTILE) && errors[3].startsWith("Response status 418"));
  assert.match(errors[4], /^The requests were used up/);
  assert.match(errors[6], /^Failed/);
  assert.match(await id("tokens").innerText(), /from cache\s+65,432,100,000[\s\S]*reasoning\s+2,345,678,900/);
  assert.equal(await id("tokens-unknown").innerText(), "23,450,000 of 123,450,000 without figures");
  assert.match(await id("models").locator("tbody tr").nth(1).innerText(), /98,765,432 without figures/);
  assert.match(await id("month-sum").innerText(), /· 23,450,000 of [\d,]+ without figures$/);
  assert.match(await page.locator("[data-place='29']").getAttribute("aria-label"), /· 23,450,000 of 123,450,000 without figures$/);
  assert.match(await id("expires").innerText(), /Valid until Nov 25, 2026.*2\sdays 20\sh left/);
  assert.equal(await id("models").locator("tbody tr").count(), 6);
  await id("all-models").click();
  assert.equal(await id("models").locator("tbody tr").count(), 8);

  // When the key is disabled, its figures disappear.
  await respondWith(page, 403, { error: { code: "key_disabled" } });
  await id("refresh").click();
  await id("problem").waitFor({ state: "visible" });
  assert.equal(await id("usage").isVisible(), false);
  await clean(view);

  // Leaving the page discards the key, even if the browser keeps the page.
  await page.unroute("**/usage");
  await id("key-input").fill(KEYS.busy);
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
  assert.equal(await id("key-input").inputValue(), "");
}

async function time(chromium) {
  const view = await open(chromium, { zone: "UTC" });
  const { page, id, shown, seen } = view;
  await page.clock.install({ time: new Date("2031-01-01T00:00:00Z") });
  await page.reload();
  await page.clock.pauseAt(new Date("2031-01-01T01:00:00Z"));
  await respondWith(page, 200, PLAIN);
  await shown(KEYS.busy);
  assert.equal(seen.requests.length, 1);
  // The browser's clock is years off; the page uses the gateway's.
  assert.equal(await id("countdown").innerText(), "8\u00a0h 41\u00a0min");
  // Runs a step in which the page sends this number of requests, and waits for the responses.
  const requests = async (count, what, step) => {
    const before = seen.requests.length;
    await step();
    for (const end = Date.now() + 60_000; seen.requests.length - before < count && Date.now() < end;) await sleep(25);
    await sleep(100);
    await page.waitForFunction(() => document.getElementById("refresh").ariaDisabled === "false");
    assert.equal(seen.requests.length - before, count, what);
  };
  const past = (milliseconds, count, what) => requests(count, what, () => page.clock.runFor(milliseconds));
  await past(29000, 0, "not yet");
  await respondWith(page, 200, { ...PLAIN, used: 171, remaining: 29 });
  await past(2000, 1, "after 30 s");
  await page.waitForFunction(() => document.getElementById("figure").textContent === "29");
  const hide = (state) => page.evaluate((to) => {
    Object.defineProperty(document, "visibilityState", { value: to, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, state);
  await hide("hidden");
  await past(120000, 0, "the page is hidden");
  await requests(1, "at once when the page is visible again", () => hide("visible"));
  await id("auto").uncheck();
  await past(120000, 0, "switched off");
  await id("auto").check();
  await past(1000, 1, "switched on again, and due");

  // A bar keeps the focus while the figures change.
  await id("measure-requests").focus();
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowLeft");
  await respondWith(page, 200, { ...PLAIN, requests: { succeeded: 180, failed: 2, refunded: 0 } });
  await past(31000, 1, "again after 30 s");
  await page.waitForFunction(() => document.querySelector("[data-place='29']").getAttribute("aria-label").includes("Requests: 182"));
  assert.equal(await page.evaluate(() => document.activeElement.dataset.place), "28");

  // The last minutes are counted in seconds; when the day has ended, the new one is requested.
  await respondWith(page, 200, { ...PLAIN, remaining: 0, used: 200 }, { date: "Sun, 22 Nov 2026 23:59:50 GMT" });
  await id("refresh").click();
  await page.waitForFunction(() => document.getElementById("countdown").textContent === "10\u00a0s");
  assert.match(await id("exhausted").innerText(), /again in 10\ss/);
  const tomorrow = { ...PLAIN, day: "2026-11-23", resets_at: "2026-11-24T00:00:00Z", used: 0, remaining: 200 };
  await respondWith(page, 200, tomorrow, { date: "Mon, 23 Nov 2026 00:00:10 GMT" });
  await past(9000, 0, "before the day ends");
  assert.equal(await id("countdown").innerText(), "1\u00a0s");
  await past(3000, 1, "after it");
  await page.waitForFunction(() => document.getElementById("figure").textContent === "200");
  assert.equal(await id("exhausted").isVisible(), false);
  await clean(view);
}

browser.runScene({ looks, works, time });
