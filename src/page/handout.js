// What the holder of a key needs: the key, the base URL, and how clients are set up. Shown once.
const EXAMPLE_MODEL = "deepseek-chat";
const exampleContent = () => (language === "zh" ? "你好" : "Hello");

const curlLine = (base, key) => [
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
  "answer = client.chat.completions.create(",
  `    model="${EXAMPLE_MODEL}",`,
  `    messages=[{"role": "user", "content": "${exampleContent()}"}],`,
  ")",
  "print(answer.choices[0].message.content)",
].join("\n");

// The key first; the lines for clients are opened by whoever wants them.
function handout(key, base) {
  const piece = (name, content) => make("div", { className: "piece" }, worded("p", name, { className: "name" }), content);
  const clients = make("details", { className: "clients" }, worded("summary", "clients"),
    piece("inEnvironment", copyable("pre", "inEnvironment", "env", environment(base, key))),
    piece("inPython", copyable("pre", "inPython", "python", pythonLines(base, key))));
  return make("div", { className: "handout" },
    piece("theKey", strong(copyable("code", "theKey", "key", key))),
    piece("baseUrl", copyable("code", "baseUrl", "base", base)),
    piece("toTry", copyable("pre", "toTry", "curl", curlLine(base, key))),
    clients);
}

function strong(part) {
  part.classList.add("strong");
  return part;
}

// What clients are to ask, if the page's server is not reached by the address of the page.
const baseUrl = () => document.body.dataset.baseUrl || `${location.origin}/v1`;
