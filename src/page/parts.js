// Pieces of a page. Whatever comes from the gateway is set as text, never as markup.
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// An element whose words follow the language.
function worded(tag, name, properties = {}) {
  const made = make(tag, { textContent: text(name), ...properties });
  made.dataset.text = name;
  return made;
}

function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Shows a text, or hides the element when there is none. What is unchanged is left alone: it
// would be read out again.
function say(element, words) {
  element.hidden = !words;
  if (element.textContent !== (words ?? "")) element.textContent = words ?? "";
}

// A column on a phone has no room for more digits than these.
const WIDE = 1e7;
const numberCell = (value) =>
  make("td", { className: "number", textContent: value < WIDE ? number(value) : roughly(value, 4) });

// How many of these requests told no tokens; null if all have.
const tokensUnknown = ({ tokens_unknown: unknown = 0, succeeded }) =>
  (unknown > 0 ? text("tokensUnknown")(number(unknown), number(succeeded)) : null);

// A bar that is filled up to `share`, for the eye only.
function track(share) {
  const fill = make("span", { hidden: share === 0 });
  fill.style.width = `${Math.min(1, share) * 100}%`;
  return make("span", { className: "track", ariaHidden: "true" }, fill);
}

// Puts the words of the language into these pieces of the page.
function speak(root) {
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of root.querySelectorAll("[data-label]")) node.ariaLabel = text(node.dataset.label);
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
}

// The whole page in the language, and the button that changes it.
function speakAll() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  speak(document);
  $("language").textContent = text("other");
  $("language").lang = text("otherLang");
}

function startLanguage(changed) {
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    changed();
  });
}

// A field for a secret, which its button shows and hides.
function startSecretField(field, button) {
  const show = () => {
    const concealed = field.type === "password";
    button.textContent = text(concealed ? "reveal" : "conceal");
    button.ariaLabel = text(concealed ? "revealSecret" : "concealSecret");
  };
  button.addEventListener("click", () => {
    field.type = field.type === "password" ? "text" : "password";
    show();
  });
  const conceal = () => {
    field.type = "password";
    show();
  };
  return { show, conceal };
}
