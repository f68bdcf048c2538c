// What the holder of a key needs: the key, the base URL and client settings. Shown once.
const EXAMPLE_MODEL = "deepseek-chat";
const exampleContent = () => (language === "zh" ? "你好" : "Hello");

const curlCommand = (base, key) => [
  `curl ${base}/chat/completions \\`,
  `  -H "Authorization: Bearer ${key}" \\`,
  `  -H "Content-Type: application/json" \\`,
  `  -d '{"model": "${EXAMPLE_MODEL}", "messages": [{"role": "user", "content": "${exampleContent()}"}]}'`,
].join("\n");

const environment = (base, key) => [`export OPENAI_BASE_URL="${base}"`, `export OPENAI_API_KEY="${key}"`].join("\n");

const pythonLines = (base, key) => [
  "from openai import OpenAI",
  "",
  `client = OpenAI(base_url="${base}", api_key="${key}")`,
  "response = client.chat.completions.create(",
  `    model="${EXAMPLE_MODEL}",`,
  `    messages=[{"role": "user", "content": "${exampleContent()}"}],`,
  ")",
  "print(response.choices[0].message.content)",
].join("\n");

// The key first, client settings behind a disclosure.
function handout(key, base) {
  const piece = (name, content) => make("div", { className: "piece" }, translated("p", name, { className: "name" }), content);
  const clients = make("details", { className: "clients" }, translated("summary", "clients"),
    piece("inEnvironment", copyableText("pre", "inEnvironment", "env", environment(base, key))),
    piece("inPython", copyableText("pre", "inPython", "python", pythonLines(base, key))));
  return make("div", { className: "handout" },
    piece("theKey", strong(copyableText("code", "theKey", "key", key))),
    piece("baseUrl", copyableText("code", "baseUrl", "base", base)),
    piece("toTry", copyableText("pre", "toTry", "curl", curlCommand(base, key))),
    clients);
}

function strong(part) {
  part.classList.add("strong");
  return part;
}

// The base URL for clients: as configured, or on the page's own server.
const baseUrl = () => document.body.dataset.baseUrl || `${location.origin}/v1`;
