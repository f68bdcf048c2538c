// A page of another origin that uses the API with fetch, as OpenAI's client in a browser does.

const assert = require("node:assert/strict");
const { runScene } = require("./browser.cjs");

const { APP_URL, OPEN_URL, CLOSED_URL, KEY, ADMIN_TOKEN } = process.env;

// Runs in the page: sends a request, and returns what of the response may be read.
async function ask({ url, method = "GET", token, stream = false }) {
  const headers = {
    authorization: `Bearer ${token}`, "content-type": "application/json", "x-stainless-lang": "js",
    "x-stainless-runtime": "browser:chrome", "x-stainless-retry-count": "0",
  };
  try {
    const body = method === "POST" ? JSON.stringify({ model: "m", messages: [], stream }) : undefined;
    const response = await fetch(url, { method, headers, body });
    const readable = { status: response.status };
    for (const name of ["ratelimit", "x-ratelimit-remaining-requests", "x-request-id"]) readable[name] = response.headers.get(name);
    if (!stream) return { ...readable, json: await response.json() };
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    readable.first = (await reader.read()).value;
    await fetch("/next");
    readable.second = (await reader.read()).value;
    readable.done = (await reader.read()).done;
    return readable;
  } catch (error) {
    return { error: error.name };
  }
}

async function fetches(browser) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${APP_URL}/`);
  const chat = { url: `${OPEN_URL}/v1/chat/completions`, method: "POST", token: KEY };

  const streamed = await page.evaluate(ask, { ...chat, stream: true });
  assert.equal(streamed.status, 200);
  assert.equal(streamed.first, 'data: {"n":1}\n\n');
  assert.equal(streamed.second, "data: [DONE]\n\n");
  assert.equal(streamed.done, true);
  assert.equal(streamed["x-ratelimit-remaining-requests"], "0");
  assert.match(streamed.ratelimit, /r=0/);
  assert.ok(streamed["x-request-id"]);

  const exhausted = await page.evaluate(ask, chat);
  assert.equal(exhausted.status, 429);
  assert.equal(exhausted.json.error.code, "insufficient_quota");
  const unknown = await page.evaluate(ask, { ...chat, token: "trial-key-nobody" });
  assert.deepEqual([unknown.status, unknown.json.error.code], [401, "invalid_api_key"]);
  const usage = await page.evaluate(ask, { url: `${OPEN_URL}/usage`, token: KEY });
  assert.deepEqual([usage.status, usage.json.used], [200, 1]);

  for (const closed of [
    { url: `${OPEN_URL}/admin/keys`, token: ADMIN_TOKEN },
    { url: `${OPEN_URL}/admin/keys`, method: "POST", token: ADMIN_TOKEN },
    { url: `${CLOSED_URL}/v1/chat/completions`, method: "POST", token: KEY },
    { url: `${CLOSED_URL}/usage`, token: KEY },
  ]) {
    assert.deepEqual(await page.evaluate(ask, closed), { error: "TypeError" }, closed.url);
  }
}

runScene({ fetches });
