// What the tests of the operator's page share: calls of the API, and a page that is signed in.

const assert = require("node:assert/strict");
const { setTimeout: sleep } = require("node:timers/promises");
const { open } = require("./browser.cjs");

const BASE = process.env.BASE_URL;
const TOKEN = process.env.TOKEN;

async function ask(method, path, body) {
  const answer = await fetch(`${BASE}/admin${path}`, {
    method, body: body && JSON.stringify(body),
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
  });
  const told = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${told}`);
  return told && JSON.parse(told);
}

const chat = (key) => fetch(`${BASE}/v1/chat/completions`, {
  method: "POST",
  headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  body: JSON.stringify({ model: "deepseek-chat", messages: [{ role: "user", content: "你好" }] }),
});

async function signedIn(browser, wishes) {
  const view = await open(browser, `${BASE}/admin`, `${BASE}/admin`, wishes);
  await view.id("token-input").fill(TOKEN);
  await view.id("token-submit").click();
  await view.id("shown").waitFor({ state: "attached" });
  return view;
}

// Waits until what is read is as wanted: a pattern of its text, or a test of it.
async function until({ page }, read, wanted) {
  const fits = typeof wanted === "function" ? wanted : (found) => wanted.test(String(found));
  let found;
  for (let tries = 0; tries < 200; tries += 1) {
    found = await read().catch(String);
    if (fits(found)) return found;
    await sleep(25);
  }
  throw new Error(`${wanted} never came: ${found}\n${await page.locator("main").innerText()}`);
}

module.exports = { BASE, TOKEN, ask, chat, signedIn, until };
