// Elements of a page. Data from the gateway is set as text, never as markup.
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// An element whose text follows the language.
function translated(tag, name, properties = {}) {
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

// Shows a text, or hides the element if there is none. An unchanged text is not set again, as screen
// readers would repeat it.
function setText(element, words) {
  element.hidden = !words;
  if (element.textContent !== (words ?? "")) element.textContent = words ?? "";
}

// Numbers from here on are abbreviated in tables, as they do not fit on a phone.
const ABBREVIATED_FROM = 1e7;
const numberCell = (value) =>
  make("td", { className: "number", textContent: value < ABBREVIATED_FROM ? number(value) : compactNumber(value, 4) });

// The number of requests whose responses reported no tokens, as text; null if all did.
const tokensUnknown = ({ tokens_unknown: unknown = 0, succeeded }) =>
  (unknown > 0 ? text("tokensUnknown")(number(unknown), number(succeeded)) : null);

// A bar that is filled up to `share`, hidden from screen readers.
function track(share) {
  const fill = make("span", { hidden: share === 0 });
  fill.style.width = `${Math.min(1, share) * 100}%`;
  return make("span", { className: "track", ariaHidden: "true" }, fill);
}

// Sets all texts below `root` in the current language.
function translateIn(root) {
  for (const node of root.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of root.querySelectorAll("[data-label]")) node.ariaLabel = text(node.dataset.label);
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
}

// Sets all texts of the page and the language button.
function translatePage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  translateIn(document);
  $("language").textContent = text("other");
  $("language").lang = text("otherLang");
}

function startLanguage(changed) {
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    changed();
  });
}
