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
