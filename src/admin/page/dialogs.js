// Dialogs: one to confirm a change, and one that shows a secret once.
addTexts({
  cancel: ["Cancel", "取消"],
  close: ["Close", "关闭"],
  secretDone: ["I have copied it", "我已复制"],
});


// Resolves to whether the change was confirmed. `more` is shown above the buttons.
function confirmDialog({ title, subject = "", words, yes, danger = false, more = null }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  setText($("confirm-subject"), subject);
  $("confirm-text").textContent = words;
  $("confirm-more").replaceChildren(...(more ? [more] : []));
  $("confirm-yes").textContent = yes;
  $("confirm-yes").className = danger ? "danger" : "primary";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A group of radio buttons. `read` returns the chosen value.
function choice(name, legend, options, chosen) {
  const one = ([value, words]) => {
    const radio = make("input", { type: "radio", name, value, checked: value === chosen });
    radio.dataset.testid = `${name}-${value}`;
    return make("label", { className: "check" }, radio, make("span", { textContent: words }));
  };
  const part = make("fieldset", { className: "options" }, make("legend", { textContent: legend }), ...options.map(one));
  return { part, read: () => Number(part.querySelector(":checked").value) };
}

// Shows a secret once. It is discarded when the dialog closes.
function showSecret({ title, subject, hint, content }) {
  $("secret-title").textContent = title;
  setText($("secret-subject"), subject);
  $("secret-hint").textContent = hint;
  $("secret-what").replaceChildren(content);
  $("secret").showModal();
  $("secret-title").focus();
}

// Closes the dialogs of the view that is left.
function closeConfirmations() {
  for (const id of ["confirm", "import-dialog"]) if ($(id).open) $(id).close("no");
}

function startDialogs() {
  $("secret-done").addEventListener("click", () => $("secret").close());
  $("secret").addEventListener("close", () => $("secret-what").replaceChildren());
  // Escape would discard a secret that may not have been copied.
  $("secret").addEventListener("cancel", (event) => event.preventDefault());
  $("secret").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.preventDefault();
  });
}
