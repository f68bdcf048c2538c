// The operator's page, clicked through in Chromium. See tests/clients/admin_page.rs.

const assert = require("node:assert/strict");
const { chromium } = require("playwright-core");

const BASE = process.env.BASE_URL;
const TOKEN = process.env.TOKEN;
const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;

async function main() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    const context = await browser.newContext({ locale: process.env.LOCALE ?? "zh-CN" });
    await operatorsDay(await context.newPage(), context);
  } finally {
    await browser.close();
  }
  console.log("done");
}

async function operatorsDay(page, context) {
  const outside = [];
  const problems = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(BASE) && !request.url().startsWith("data:")) outside.push(request.url());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    if (/content security policy/i.test(message.text())) problems.push(message.text());
  });
  const id = (name) => page.getByTestId(name);
  const rows = () => page.locator("[data-testid^=row-]");
  const create = async (label, limit) => {
    const before = (await id("created-key").textContent()) ?? "";
    await id("label-input").fill(label);
    if (/^preset-/.test(limit)) await id(limit).click();
    else await id("limit-input").fill(limit);
    await id("create-submit").click();
    await page.waitForFunction(
      (old) => {
        const shown = document.getElementById("created-key").textContent;
        return shown && shown !== old;
      }, before);
    return id("created-key").textContent();
  };
  const chat = (key) => fetch(`${BASE}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: "deepseek-chat", messages: [{ role: "user", content: "你好" }] }),
  });

  await page.goto(`${BASE}/admin`);
  await id("token-input").fill("a-wrong-token-of-some-length");
  await id("token-submit").click();
  await id("error-message").waitFor({ state: "visible" });
  await id("token-input").fill(TOKEN);
  await id("token-submit").click();
  await id("label-input").waitFor({ state: "visible" });

  const key = await create("用户A-2025-02-10", "preset-200");
  assert.match(key, /^trial-/);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await id("copy-key").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);

  await create("一千", "preset-1000");
  await create("无限制", "preset-unlimited");
  await create(HOSTILE, "3");
  await rows().nth(3).waitFor();
  assert.equal(await rows().count(), 4);
  const shown = await rows().allInnerTexts();
  assert.match(shown[0], /用户A-2025-02-10[\s\S]*0 \/ 200[\s\S]*200/);
  assert.match(shown[1], /0 \/ 1,000/);
  assert.match(shown[2], /∞/);
  assert.ok(shown[3].includes(HOSTILE), "a hostile label is shown as text");
  assert.equal(await page.evaluate(() => window.hacked), undefined);

  for (let request = 0; request < 2; request += 1) assert.equal((await chat(key)).status, 200);
  await id("refresh").click();
  await page.waitForFunction(() => document.querySelector("[data-testid^=row-]").innerText.includes("2 / 200"));
  assert.match(await rows().first().innerText(), /198/);

  const first = (await rows().first().getAttribute("data-testid")).slice("row-".length);
  await id(`reset-${first}`).click();
  await id("confirm-no").click();
  await id(`reset-${first}`).click();
  await id("confirm-yes").click();
  await page.waitForFunction(() => document.querySelector("[data-testid^=row-]").innerText.includes("0 / 200"));

  await id(`delete-${first}`).click();
  await id("confirm-no").click();
  assert.equal((await chat(key)).status, 200, "cancelled: the key still works");
  await id(`delete-${first}`).click();
  await id("confirm-yes").click();
  await id(`row-${first}`).waitFor({ state: "detached" });
  assert.equal((await chat(key)).status, 401);

  await id("limit-input").fill("many");
  await id("create-submit").click();
  await id("error-message").waitFor({ state: "visible" });

  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
  assert.deepEqual(kept, [0, 0, ""], "the token is kept nowhere");
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  assert.deepEqual(outside, [], "no request leaves the gateway");
  assert.deepEqual(problems, []);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
