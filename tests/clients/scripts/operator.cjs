// Helpers of the tests of the operators' page: calls of the API, and a page that is signed in.

const assert = require("node:assert/strict");
const { setTimeout: sleep } = require("node:timers/promises");
const { open } = require("./browser.cjs");

const BASE = process.env.BASE_URL;
const TOKEN = process.env.TOKEN;

async function call(method, path, body) {
  const response = await fetch(`${BASE}/admin${path}`, {
    method, body: body && JSON.stringify(body),
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

const chat = (key) => fetch(`${BASE}/v1/chat/completions`, {
  method: "POST",
  headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  body: JSON.stringify({ model: "deepseek-chat", messages: [{ role: "user", content: "你好" }] }),
});

async function signedIn(browser, options) {
  const view = await open(browser, `${BASE}/admin`, `${BASE}/admin`, options);
  await view.id("token-input").fill(TOKEN);
  await view.id("token-submit").click();
  await view.id("shown").waitFor({ state: "attached" });
  return view;
}

// Reads a value until it is as expected: a pattern of its text, or a predicate.
async function until({ page }, read, expected) {
  const matches = typeof expected === "function" ? expected : (value) => expected.test(String(value));
  let value;
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    value = await read().catch(String);
    if (matches(value)) return value;
    await sleep(25);
  }
  throw new Error(`${expected} never came: ${value}\n${await page.locator("main").innerText()}`);
}

module.exports = { BASE, TOKEN, call, chat, signedIn, until };
