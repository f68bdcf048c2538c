// Pieces of the page. Whatever comes from the gateway is set as text, never as markup.
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
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
