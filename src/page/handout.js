// What the holder of a key needs: the key, the base URL and client settings. Shown once.
addTexts({
  theKey: ["Key", "密钥"],
  baseUrl: ["Base URL", "接口地址"],
  toTry: ["To try it", "试用命令"],
  clients: ["Settings for OpenAI clients", "OpenAI 客户端设置"],
  inEnvironment: ["Environment variables", "环境变量"],
  inPython: ["Python", "Python"],
  copy: ["Copy", "复制"],
  copyOf: [(what) => `Copy: ${what}`, (what) => `复制：${what}`],
  copied: ["Copied", "已复制"],
  selected: ["Selected: press Ctrl+C", "已选中，请按 Ctrl+C"],
});

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

// Copying to the clipboard.

// A text with a button that copies it. `name` is the name of the text.
function copyableText(tag, name, id, content) {
  const source = make(tag, { id: `created-${id}`, textContent: content, translate: false });
  source.dataset.testid = source.id;
  if (tag === "pre") {
    source.tabIndex = 0;
    source.ariaLabel = text(name);
    source.setAttribute("role", "group");
  }
  return make("div", { className: "copyable" }, source, copyButton(text(name), `copy-${id}`, () => source));
}

// A button that copies the text of an element. Its caption is `words`; `name` is what it copies.
function copyButton(name, testid, source, words = text("copy")) {
  const button = make("button", { type: "button", textContent: words, ariaLabel: name && text("copyOf")(name) });
  button.dataset.testid = testid;
  let waiting;
  button.addEventListener("click", async () => {
    const result = text((await copy(source())) ? "copied" : "selected");
    clearTimeout(waiting);
    Object.assign(button, { textContent: result, ariaLabel: result });
    waiting = setTimeout(() => Object.assign(button, { textContent: words, ariaLabel: name && text("copyOf")(name) }), 2000);
  });
  return button;
}

// Copies the element's text. Resolves to whether it is in the clipboard; if not, it is selected.
async function copy(source) {
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    // Browsers have no clipboard API on plain http, but the older command.
    return document.execCommand("copy");
  }
}
