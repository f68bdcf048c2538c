// Helpers of the tests of pages: Chromium, a record of what a page does, and rules that hold for every
// page.

const assert = require("node:assert/strict");
const { mkdirSync } = require("node:fs");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const SHOTS = process.env.SHOTS;
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

async function withBrowser(work) {
  if (SHOTS) mkdirSync(SHOTS, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    await work(browser);
  } finally {
    await browser.close();
  }
}

// Runs the scene that the command line names.
function runScene(scenes) {
  withBrowser(scenes[process.argv[2]]).catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

// Opens a page at `url`. `seen` records its requests and problems; requests to URLs that do not begin
// with `home` are outside.
async function open(browser, url, home, { language = "en-US", scheme = "light", size = { width: 1280, height: 900 }, zone = "Asia/Shanghai", ...more } = {}) {
  const context = await browser.newContext({ locale: language, colorScheme: scheme, viewport: size, timezoneId: zone, ...more });
  const page = await context.newPage();
  const seen = { outside: [], problems: [], requests: [] };
  page.on("request", (request) => {
    const requestUrl = request.url();
    if (requestUrl.startsWith("data:") || requestUrl.startsWith("blob:")) return;
    if (!requestUrl.startsWith(home)) seen.outside.push(requestUrl);
    else if (!request.isNavigationRequest()) seen.requests.push({ url: requestUrl, headers: request.headers() });
  });
  page.on("pageerror", (error) => seen.problems.push(String(error)));
  page.on("console", (message) => {
    if (/content security policy|trusted/i.test(message.text())) seen.problems.push(message.text());
  });
  await page.addInitScript({ content: axe.source });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  return { context, page, seen, id: (name) => page.getByTestId(name) };
}

// Rules for every page after any actions: nothing is stored, no injected script has run, and no other
// server was contacted.
async function clean({ page, context, seen }, url) {
  const kept = await page.evaluate(async () => ({
    storages: [localStorage.length, sessionStorage.length], cookie: document.cookie, url: location.href,
    state: history.state, databases: await indexedDB.databases(), hacked: window.hacked, violations: window.violations,
    name: window.name,
  }));
  assert.deepEqual(kept, {
    storages: [0, 0], cookie: "", url, state: null, databases: [], hacked: undefined, violations: [], name: "",
  });
  assert.deepEqual(await context.cookies(), []);
  assert.deepEqual(seen.outside, [], "no request but to the page's own addresses");
  assert.deepEqual(seen.problems, []);
}

// Rules for every state: no accessibility violation, no missing text, no overflow.
async function inspect(page, name) {
  const where = `${name} (${page.viewportSize().width}px)`;
  const { violations } = await page.evaluate((rules) => axe.run(document, { runOnly: { type: "tag", values: rules } }), RULES);
  const found = violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  assert.deepEqual(found, [], where);
  // Without keys, whole or masked, and claim links: a random one may spell "NaN".
  const text = (await page.locator("body").innerText()).replaceAll(/\S*…\S*|sk-\S+|[\w-]{20,}/g, "");
  assert.doesNotMatch(text, /undefined|NaN|\[object|Invalid Date/, where);
  const cut = await page.evaluate(() => {
    const wide = document.documentElement.scrollWidth - innerWidth;
    const bad = wide > 0 ? [`the page is ${wide}px too wide`] : [];
    for (const node of document.querySelectorAll("main *, header *, dialog[open] *")) {
      if (node.closest(".unseen, .keys thead, [hidden], svg, .track, #meter") || !node.offsetParent) continue;
      const style = getComputedStyle(node);
      const box = node.getBoundingClientRect();
      if (!box.width) continue;
      if (box.right > innerWidth + 1 || box.left < -1) bad.push(`out of sight: ${node.outerHTML.slice(0, 200)}`);
      if (!["INPUT", "SELECT"].includes(node.tagName) && style.display !== "inline" && node.scrollWidth > node.clientWidth + 1)
        bad.push(`overflows by ${node.scrollWidth - node.clientWidth}: ${node.outerHTML.slice(0, 200)}`);
    }
    const texts = [...document.querySelectorAll("#chart svg text")].map((node) => node.getBoundingClientRect());
    const touches = (a, b) => a.left < b.right + 2 && b.left < a.right + 2 && a.top < b.bottom && b.top < a.bottom;
    texts.forEach((a, place) => texts.slice(place + 1).forEach((b) => touches(a, b) && bad.push("labels of the chart touch")));
    return bad;
  });
  assert.deepEqual(cut, [], where);
}

// Calls `work` for both languages, light and dark, on a desktop and a phone. `look` inspects the page,
// and writes a screenshot into the directory `SHOTS`, if it is set.
async function everyLook(work) {
  for (const language of ["en-US", "zh-CN"]) {
    for (const scheme of ["light", "dark"]) {
      for (const [device, size] of [["desktop", { width: 1280, height: 900 }], ["phone", { width: 360, height: 740 }]]) {
        const look = async (page, state) => {
          await inspect(page, `${state} ${language} ${scheme}`);
          if (SHOTS) await page.screenshot({ path: `${SHOTS}/${device}-${scheme}-${language.slice(0, 2)}-${state}.png`, fullPage: true });
        };
        await work({ language, scheme, size, reducedMotion: "reduce" }, look);
      }
    }
  }
}

module.exports = { clean, everyLook, inspect, open, runScene };
