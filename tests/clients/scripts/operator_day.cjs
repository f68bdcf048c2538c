// The operator's day in Chromium. See tests/clients/operator_day.rs.

const assert = require("node:assert/strict");
const { readFileSync } = require("node:fs");
const { clean, everyLook, open, runScene } = require("./browser.cjs");
const { HOSTILE } = require("./hostile.cjs");
const { looks } = require("./operator_looks.cjs");
const { BASE, TOKEN, call, chat, signedIn, until } = require("./operator.cjs");

// Creates thirty keys, and returns them as the page shows them.
async function createWorkshop(view) {
  const { page, id, context } = view;
  await page.goto(`${BASE}/admin#/create`);
  await id("create-many").check();
  await id("label-input").fill("workshop-{n}");
  await id("limit-input").fill("5");
  await id("create-submit").click();
  await id("copy-all").waitFor();
  const keys = await id("created-key").allInnerTexts();
  assert.equal(new Set(keys).size, 30);

  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await id("copy-all").click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.deepEqual(copied.split("\n").map((line) => line.split("\t")[1]), keys);
  const download = page.waitForEvent("download");
  await id("save-csv").click();
  const rows = readFileSync(await (await download).path(), "utf8").trim().split("\r\n");
  assert.equal(rows.length, 31);
  assert.match(rows[7], /"workshop-07","trial-[^"]+","http:\/\/[^"]+\/v1"$/);

  // Opening another view does not lose them.
  await page.getByRole("link", { name: "Audit" }).click();
  await id("audit-entries").waitFor();
  await page.getByRole("link", { name: "Create" }).click();
  await until(view, () => id("created-key").count(), /^30$/);
  await id("created-done").click();
  assert.equal((await page.content()).includes(keys[6]), false, "hidden keys are discarded");
  return keys;
}

// Opens a key's view by searching for its label.
async function find({ page, id }, label) {
  await page.getByRole("link", { name: "Keys", exact: true }).click();
  await id("search-input").fill(label);
  await page.locator("#rows a", { hasText: label }).first().click();
  await id("today").waitFor();
}

// The holder's side: the link shows the key once, and only after the button is pressed.
async function claim(browser, url, old) {
  const view = await open(browser, url, `${BASE}/claim`);
  const { page, id } = view;
  await id("show-key").waitFor();
  assert.match(await id("facts").innerText(), /workshop-07[\s\S]*5/);
  await page.reload();
  await id("show-key").waitFor();
  assert.equal((await chat(old)).status, 200, "loading the page does not open the link");
  // The first response is lost.
  await page.route("**/claim", async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await id("show-key").click();
  await until(view, () => id("problem").innerText(), /not known whether/);
  await id("show-key").click();
  await id("created-key").waitFor();
  const key = await id("created-key").innerText();
  assert.notEqual(key, old);
  assert.match(await id("created-curl").innerText(), new RegExp(`^curl ${BASE}/v1/chat/completions[\\s\\S]*Bearer ${key}`));
  assert.equal(await id("usage-link").getAttribute("href"), "/usage");
  assert.equal((await chat(old)).status, 401);
  assert.equal((await chat(key)).status, 200);
  await page.reload();
  await id("problem").waitFor();
  assert.match(await id("problem").innerText(), /opened already/);
  assert.equal((await page.content()).includes(key), false);
  await clean(view, url);
  await view.context.close();
  return key;
}

async function day(browser) {
  const view = await signedIn(browser);
  const { page, id } = view;
  const done = (words) => until(view, () => id("status-message").innerText(), words);
  const keys = await createWorkshop(view);

  await find(view, "workshop-07");
  await id("claim").click();
  await id("confirm-yes").click();
  const link = await id("created-claim").innerText();
  await id("secret-done").click();
  let key = await claim(browser, link, keys[6]);
  await id("refresh").click();
  await until(view, () => id("claim-state").innerText(), /opened on/);

  // The key reaches its limit and is listed in the overview; the limit is raised, the count reset.
  for (let request = 2; request < 5; request += 1) assert.equal((await chat(key)).status, 200);
  assert.equal((await chat(key)).status, 429);
  await page.getByRole("link", { name: "Overview" }).click();
  await until(view, () => id("nearest").locator("li").first().innerText(), /workshop-07[\s\S]*5 \/ 5[\s\S]*Used up/);
  await id("nearest").getByRole("link", { name: "workshop-07" }).click();
  await until(view, () => id("requests").innerText(), /The requests were used up[\s\S]*429 insufficient_quota[\s\S]*Succeeded/);
  await id("failed-only").check();
  await until(view, () => id("requests").locator("li").count(), /^1$/);
  await id("preset-1000").click();
  await id("save").click();
  await done(/Saved/);
  assert.equal((await chat(key)).status, 200);
  await id("reset").click();
  await id("confirm-yes").click();
  await done(/reset/);
  assert.match(await id("today").innerText(), /1,000[\s\S]*of 1,000 requests left/);

  // The page warns before it overwrites a concurrent change.
  const ref = decodeURIComponent(new URL(page.url()).hash.slice("#/keys/".length));
  await call("PATCH", `/keys/${ref}`, { daily_limit: 70 });
  await id("label-input").fill("workshop-07 (Ada)");
  await id("save").click();
  await until(view, () => page.locator("#confirm-text").innerText(), /1,000 → 70/);
  await id("confirm-yes").click();
  await done(/Saved/);
  const saved = await call("GET", `/keys/${ref}`);
  assert.deepEqual([saved.label, saved.daily_limit], ["workshop-07 (Ada)", 70]);

  await id("rotate").click();
  await id("confirm-no").click();
  assert.equal((await chat(key)).status, 200, "cancelled: nothing was done");
  await id("rotate").click();
  await id("confirm-yes").click();
  const rotated = await id("created-key").innerText();
  await page.keyboard.press("Escape");
  assert.equal(await id("secret").isVisible(), true, "a secret is not lost by a key press");
  await id("secret-done").click();
  assert.equal((await chat(key)).status, 401);
  assert.equal((await chat(rotated)).status, 200);
  assert.equal((await page.content()).includes(rotated), false);
  key = rotated;

  await id("disabled-input").check();
  await id("save").click();
  await id("confirm-yes").click();
  await done(/Saved/);
  assert.equal((await chat(key)).status, 403);
  await page.getByRole("link", { name: "All keys" }).click();
  // With parentheses: a random id of another key may spell "Ada".
  await id("search-input").fill("(Ada)");
  // Loading the result clears the status message.
  await until(view, () => page.locator("#rows tr").count(), /^1$/);
  await id(`switch-${ref}`).and(page.getByText("Enable")).click();
  await done(/enabled/);
  assert.equal((await chat(key)).status, 200);
  await id(`delete-${ref}`).click();
  await id("confirm-yes").click();
  await id(`row-${ref}`).waitFor({ state: "detached" });
  assert.equal((await chat(key)).status, 401);

  // The audit trail has all changes and no secret.
  await page.goto(`${BASE}/admin#/keys/${ref}`);
  await id("key-audit").waitFor();
  await until(view, () => id("key-audit").locator(".what").count(), /^11$/);
  const trail = await id("key-audit").locator(".entries > li").allInnerTexts();
  const expected = [
    ["Key deleted", /requests a day: 70/], ["Key changed", /disabled: yes → no/], ["Key changed", /disabled: no → yes/],
    ["Key rotated", /key: “trial-.*” → “trial-.*”/], ["Key changed", /label: “workshop-07” → “workshop-07 \(Ada\)”/],
    ["Key changed", /requests a day: 1,000 → 70/], ["Count reset", /used today: 6 → 0/], ["Key changed", /requests a day: 5 → 1,000/],
    ["Claim link opened", /from 127.0.0.1/], ["Claim link made", /link works until/], ["Key created", /requests a day: 5/],
  ];
  expected.forEach(([action, words], index) => {
    assert.ok(trail[index].startsWith(action) && words.test(trail[index]), `${action}, ${words} is not\n${trail[index]}`);
  });
  for (const secret of [...keys, rotated, TOKEN, new URL(link).hash.slice(1)]) assert.equal(trail.join("").includes(secret), false);

  await page.getByRole("link", { name: "Audit" }).click();
  await id("audit-action").selectOption("key.delete");
  await until(view, () => id("audit-entries").locator(":scope > li").count(), /^1$/);
  await id("audit-action").selectOption("admin.refused");
  await id("empty").waitFor();
  await page.getByRole("link", { name: "Settings" }).click();
  await until(view, () => id("health").innerText(), /The store is available/);
  const settings = await id("settings").innerText();
  assert.match(settings, /USAGE_RETENTION_DAYS\s+7/);
  assert.equal(settings.includes(TOKEN), false, "secrets are masked");
  await clean(view, page.url());
}

// After a session has ended, signing in returns to the same view. Leaving the page discards the token.
async function session(browser) {
  const view = await signedIn(browser);
  const { page, id } = view;
  await page.getByRole("link", { name: "Create" }).click();
  await until(view, () => page.locator("#title").innerText(), /Create/);
  await id("label-input").fill("half typed");
  await page.route("**/admin/keys", (route) => route.fulfill({ status: 401, body: "{}" }));
  await id("create-submit").click();
  await id("token-form").waitFor();
  assert.match(await id("error-message").innerText(), /Sign in again/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  await page.unroute("**/admin/keys");
  await id("token-input").fill(TOKEN);
  await id("token-submit").click();
  await id("label-input").waitFor();
  assert.equal(await id("label-input").inputValue(), "half typed");
  assert.equal(new URL(page.url()).hash, "#/create");

  // The response is lost: sending the form again creates no second key.
  await page.route("**/admin/keys", async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await id("create-submit").click();
  await until(view, () => id("error-message").innerText(), /cannot be reached/);
  assert.equal((await call("GET", "/keys")).count, 1);
  await id("create-submit").click();
  await id("created").waitFor();
  assert.equal((await call("GET", "/keys")).count, 1);
  assert.equal((await chat(await id("created-key").innerText())).status, 200);

  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
  await id("token-form").waitFor();
  assert.equal(await page.locator("#view").evaluate((node) => node.childElementCount), 0);

  for (const [status, code, headers, words] of [
    [429, "too_many_attempts", { "retry-after": "42" }, /wait 42 seconds/],
    [503, "store_unavailable", { "x-request-id": "r-1" }, /not available.+r-1/],
    [403, "address_not_allowed", {}, /not open to your address/],
  ]) {
    await page.route("**/admin/keys*", (route) => route.fulfill({ status, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ error: { code } }) }));
    await id("token-input").fill(TOKEN);
    await id("token-submit").click();
    await until(view, () => id("error-message").innerText(), words);
    await page.unroute("**/admin/keys*");
  }
  await page.route("**/admin/keys*", (route) => route.abort());
  await id("token-submit").click();
  await until(view, () => id("error-message").innerText(), /cannot be reached/);
  await clean(view, page.url());
}

// Labels with markup, control characters and the like are shown as text.
async function hostile(browser) {
  for (const label of HOSTILE) await call("POST", "/keys", { label });
  const view = await signedIn(browser);
  const { page, id } = view;
  const keys = (await call("GET", "/keys?limit=100")).keys;
  assert.equal(keys.length, HOSTILE.length);
  const shown = async (where) => {
    const texts = await page.locator(where).evaluateAll((nodes) => nodes.map((node) => node.textContent));
    for (const { label } of keys) assert.ok(texts.includes(label), `${JSON.stringify(label)} in ${where}`);
  };
  await until(view, () => page.locator("#rows tr").count(), new RegExp(`^${keys.length}$`));
  await shown("#rows .whose a");
  for (const { id: ref, label } of keys) {
    await page.goto(`${BASE}/admin#/keys/${encodeURIComponent(ref)}`);
    await until(view, () => page.locator("#title").textContent(), (title) => title === label);
    assert.equal(await id("label-input").inputValue(), label.replaceAll(/[\r\n]/g, ""));
    await id("reset").click();
    assert.ok((await page.locator("#confirm-subject").textContent()).includes(label));
    await id("confirm-no").click();
  }
  await page.goto(`${BASE}/admin#/audit`);
  await until(view, () => id("audit-entries").locator(":scope > li").count(), new RegExp(`^${keys.length}$`));
  await page.goto(`${BASE}/admin#/overview`);
  await id("tiles").locator("dd").first().waitFor();
  assert.equal(await page.locator("main script, main img, main iframe, main [onclick], main style, main form[action]").count(), 0);
  await clean(view, page.url());
}

// Late, conflicting and invalid responses: the page reports nothing as done that was not.
async function order(browser) {
  const other = await call("POST", "/keys", { label: "other" });
  const view = await signedIn(browser);
  const { page, id } = view;
  const problem = (words) => until(view, () => id("error-message").innerText(), words);

  // A slow list shows that it is loading.
  let list;
  const late = new Promise((resolve) => { list = resolve; });
  await page.route("**/admin/keys?*", async (route) => {
    await late;
    await route.continue();
  }, { times: 1 });
  await id("refresh").click();
  const busy = () => page.locator("#view").evaluate((node) => [node.ariaBusy, getComputedStyle(node, "::before").content].join());
  await until(view, busy, /^true,""$/);
  list();
  await until(view, busy, /^,none$/);

  // An invalid field is marked until its next input.
  const limit = id("limit-input");
  const states = () => limit.evaluate((node) => [node.ariaInvalid, node.getAttribute("aria-errormessage"), document.activeElement === node].join());
  await limit.fill("many");
  await id("create-submit").click();
  await problem(/whole number/);
  assert.equal(await states(), "true,error,true");
  await limit.fill("");
  assert.equal(await states(), ",,true");

  // The view is left before the response arrives.
  let respond;
  const held = new Promise((resolve) => { respond = resolve; });
  await page.route("**/admin/keys", async (route) => {
    await held;
    await route.continue();
  }, { times: 1 });
  await id("label-input").fill("new");
  await id("create-submit").click();
  await page.goto(`${BASE}/admin#/keys/${other.id}`);
  await until(view, () => id("label-input").inputValue(), /^other$/);
  respond();
  await until(view, () => id("status-message").innerText(), /Created/);
  assert.equal(await id("label-input").inputValue(), "other");
  await page.goto(`${BASE}/admin#/create`);
  await id("created-key").waitFor();
  // Creating another key keeps one that was not hidden yet.
  const first = await id("created-key").innerText();
  await id("create-submit").click();
  await id("earlier-secret").waitFor();
  assert.equal(await id("earlier-secret").innerText(), first);
  assert.notEqual(await id("created-key").innerText(), first);
  await id("created-done").click();

  // The key was changed concurrently.
  await page.goto(`${BASE}/admin#/keys/${other.id}`);
  await id("today").waitFor();
  await call("PATCH", `/keys/${other.id}`, { daily_limit: 7 });
  await id("rotate").click();
  await id("confirm-yes").click();
  await problem(/changed in the meantime: .*200 → 7.*Nothing was done/);
  assert.equal(await id("limit-input").inputValue(), "7");
  assert.equal((await chat(other.key)).status, 200);
  await call("PATCH", `/keys/${other.id}`, { daily_limit: 8 });
  await id("label-input").fill("mine");
  await id("save").click();
  await id("confirm-no").click();
  await until(view, () => id("status-message").isVisible(), /false/);
  assert.equal(await id("label-input").inputValue(), "mine", "unsaved changes stay");
  assert.equal((await call("GET", `/keys/${other.id}`)).label, "other");

  // The response to a rotation is lost: the view is reloaded.
  await page.route("**/rotate", async (route) => {
    await route.fetch();
    await route.abort();
  }, { times: 1 });
  await id("rotate").click();
  await id("confirm-yes").click();
  await problem(/not known whether this was done/);
  assert.equal((await chat(other.key)).status, 401);
  await id("rotate").click();
  await id("confirm-yes").click();
  await id("created-key").waitFor();
  for (let press = 0; press < 6; press += 1) await page.keyboard.press("Escape");
  assert.equal(await id("secret").isVisible(), true);
  await id("secret-done").click();

  // A confirmation closes with its view, and a page from a proxy is not a response of the API.
  await id("delete").click();
  await page.goBack();
  await until(view, () => page.locator("#confirm").isVisible(), /false/);
  await page.route("**/admin/usage*", (route) => route.fulfill({ status: 200, contentType: "text/html", body: "<p>Sign in</p>" }));
  await page.goto(`${BASE}/admin#/overview`);
  await problem(/unexpected response/);
  await clean(view, page.url());
}

// Claim links for all keys of a workshop.
async function workshop(browser) {
  const view = await signedIn(browser);
  const { page, id } = view;
  await page.goto(`${BASE}/admin#/create`);
  await id("create-many").check();
  await id("label-input").fill("workshop-{n}");
  await id("count-input").fill("12");
  await id("limit-input").fill("5");
  await id("create-submit").click();
  await id("claim-instead").waitFor();
  const old = await id("created-key").allInnerTexts();

  // The response to one of them is lost: existing links stay, the others follow.
  let calls = 0;
  await page.route("**/claim", (route) => (++calls === 5 ? route.abort() : route.continue()));
  await id("claim-instead").click();
  await until(view, () => id("error-message").innerText(), /cannot be reached/);
  assert.match(await page.locator("#claim-progress").innerText(), /4 of 12/);
  await id("claim-instead").click();
  await until(view, () => id("created-link").count(), /^12$/);
  assert.equal(calls, 13);
  assert.match(await page.locator("#created-title").innerText(), /12 claim links/);
  const links = await id("created-link").allInnerTexts();
  assert.equal(new Set(links).size, 12);
  assert.equal(await id("created-key").count(), 0);
  const download = page.waitForEvent("download");
  await id("save-csv").click();
  const rows = readFileSync(await (await download).path(), "utf8").trim().split("\r\n");
  assert.equal(rows[0], "id,label,claim_link,expires_at");
  assert.ok(rows[7].includes(`"workshop-07","${links[6]}","20`), rows[7]);
  await claim(browser, links[6], old[6]);
  assert.equal((await chat(old[7])).status, 200, "an unopened link leaves the old secret valid");
  await clean(view, page.url());
}

// Export and import: a dry run is shown before the import.
async function transfer(browser) {
  await call("POST", "/keys", { label: "=1+1", count: 3 });
  const view = await signedIn(browser);
  const { page, id } = view;
  const download = page.waitForEvent("download");
  await id("export").click();
  const csv = readFileSync(await (await download).path(), "utf8");
  assert.match(csv, /^\ufeffid,key,key_sha256,label,daily_limit,created_at,expires_at,disabled,monthly_limit,minute_limit,max_in_flight\r?\n/);
  assert.equal(csv.trim().split("\n").length, 4);
  assert.match(csv, /'=1\+1/, "no spreadsheet runs a label");

  const file = { name: "keys.csv", mimeType: "text/csv", buffer: Buffer.from("key,label,daily_limit\ntrial-imported-0123456789abcdef,from a file,7\n") };
  const gbk = { ...file, buffer: Buffer.from("key,label\ntrial-imported-gbk-000001,\xd3\xc3\xbb\xa7\n", "latin1") };
  await id("import").click();
  await id("import-file").setInputFiles(gbk);
  await until(view, () => page.locator("#import-rows").innerText(), /GBK/);
  await id("import-file").setInputFiles(file);
  await until(view, () => id("import-sum").innerText(), /New: 1/);
  assert.equal((await call("GET", "/keys")).count, 3, "nothing has changed yet");
  await id("import-yes").click();
  await until(view, () => id("status-message").innerText(), /New: 1/);
  assert.equal((await chat("trial-imported-0123456789abcdef")).status, 200);
  await id("import").click();
  await id("import-file").setInputFiles(file);
  await until(view, () => id("import-sum").innerText(), /New: 0\. Known already: 1/);
  assert.equal(await id("import-yes").isVisible(), false, "there is nothing to confirm");
  await clean(view, page.url());
}

// The nodes of a database that several processes may share: node 2 is silent.
async function nodes(browser) {
  const view = await signedIn(browser);
  const { page, id } = view;
  await page.getByRole("link", { name: "Settings" }).click();
  await until(view, () => id("nodes").innerText(), /Node 1 \(this process\)[\s\S]*In use[\s\S]*Node 2[\s\S]*Silent[\s\S]*Requests not ended: 2/);
  assert.equal(await id("release-node").count(), 1, "only a silent node can be released");
  await id("release-node").click();
  assert.match(await page.locator("#confirm-text").innerText(), /journal is lost for good[\s\S]*\(2\) as failed/);
  await id("confirm-no").click();
  assert.equal((await call("GET", "/nodes")).nodes[1].state, "silent", "cancelled: nothing was done");
  await everyLook(async (options, look) => {
    const other = await signedIn(browser, options);
    await other.page.goto(`${BASE}/admin#/settings`);
    await other.id("release-node").waitFor();
    await look(other.page, "nodes");
    await other.id("release-node").click();
    await look(other.page, "nodes-release");
    await other.context.close();
  });
  await id("release-node").click();
  await id("confirm-yes").click();
  await until(view, () => id("status-message").innerText(), /released/);
  assert.match(await id("nodes").innerText(), /Node 2[\s\S]*Released[\s\S]*not accepted any more/);
  assert.equal(await id("release-node").count(), 0);
  await page.getByRole("link", { name: "Audit" }).click();
  await until(view, () => id("audit-entries").innerText(), /Node released[\s\S]*node: 2[\s\S]*counted as failed: 2/);
  await clean(view, page.url());
}

runScene({ day, session, order, hostile, workshop, transfer, looks, nodes });
