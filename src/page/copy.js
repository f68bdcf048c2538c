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
  button.addEventListener("click", () => copy(button, source()));
  return button;
}

async function copy(button, source) {
  const words = button.textContent;
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  let copied = true;
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // There is no clipboard on plain http; the older command works there.
    copied = document.execCommand("copy");
  }
  button.textContent = text(copied ? "copied" : "selected");
  setTimeout(() => { button.textContent = words; }, 2000);
}
