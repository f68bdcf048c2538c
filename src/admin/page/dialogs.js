// Dialogs: one that asks before a change, and one that shows a secret once.

// Asks, and resolves to whether the answer was yes. `more` stands between question and buttons.
function confirmed({ title, subject = "", words, yes, danger = false, more = null }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  say($("confirm-subject"), subject);
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

// One choice of several, as radio buttons; `read` tells the value.
function choice(name, legend, options, chosen) {
  const one = ([value, words]) => {
    const radio = make("input", { type: "radio", name, value, checked: value === chosen });
    radio.dataset.testid = `${name}-${value}`;
    return make("label", { className: "check" }, radio, make("span", { textContent: words }));
  };
  const part = make("fieldset", { className: "options" }, make("legend", { textContent: legend }), ...options.map(one));
  return { part, read: () => Number(part.querySelector(":checked").value) };
}

// Shows what is shown once. It is forgotten when the dialog closes.
function showSecret({ title, subject, hint, content }) {
  $("secret-title").textContent = title;
  say($("secret-subject"), subject);
  $("secret-hint").textContent = hint;
  $("secret-what").replaceChildren(content);
  $("secret").showModal();
  $("secret-title").focus();
}

// What was asked belongs to a view that was left.
function closeQuestions() {
  for (const id of ["confirm", "import-dialog"]) if ($(id).open) $(id).close("no");
}

function startDialogs() {
  $("secret-done").addEventListener("click", () => $("secret").close());
  $("secret").addEventListener("close", () => $("secret-what").replaceChildren());
  // Escape would lose a secret that nobody has copied yet.
  $("secret").addEventListener("cancel", (event) => event.preventDefault());
  $("secret").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.preventDefault();
  });
  startImport();
}
