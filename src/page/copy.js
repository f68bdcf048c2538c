// Copying to the clipboard.

// A text that is to be copied, with its button. `name` says what it is.
function copyable(tag, name, id, content) {
  const source = make(tag, { id: `created-${id}`, textContent: content, translate: false });
  source.dataset.testid = source.id;
  if (tag === "pre") {
    source.tabIndex = 0;
    source.ariaLabel = text(name);
    source.setAttribute("role", "group");
  }
  return make("div", { className: "copyable" }, source, copyButton(text(name), `copy-${id}`, () => source));
}

// A button that copies the text of an element: `words` say all, or `name` says what is copied.
function copyButton(name, testid, source, words = text("copy")) {
  const button = make("button", { type: "button", textContent: words, ariaLabel: name && text("copyOf")(name) });
  button.dataset.testid = testid;
  let waiting;
  button.addEventListener("click", async () => {
    const told = text((await copy(source())) ? "copied" : "selected");
    clearTimeout(waiting);
    Object.assign(button, { textContent: told, ariaLabel: told });
    waiting = setTimeout(() => Object.assign(button, { textContent: words, ariaLabel: name && text("copyOf")(name) }), 2000);
  });
  return button;
}

// Says whether the text is in the clipboard; else it is selected.
async function copy(source) {
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    // There is no clipboard on plain http; the older command works there.
    return document.execCommand("copy");
  }
}
