// The operator's page. The token lives in `token` and nowhere else; whatever comes from the API is
// written as text.

import { TEXTS } from "./texts.js";

const PREFIX = document.body.dataset.prefix;
const $ = (id) => document.getElementById(id);

let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let token = "";
let keys = [];
let next = null;
let listing = 0;

const text = (name) => TEXTS[language][name];
const number = (value) => new Intl.NumberFormat(language).format(value);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function say(id, message) {
  for (const notice of [$("error"), $("status")]) {
    notice.hidden = notice.id !== id;
    notice.textContent = notice.id === id ? message : "";
  }
  if (id) $(id).scrollIntoView({ block: "nearest" });
}

async function api(method, path, body) {
  let response;
  try {
    response = await fetch(PREFIX + path, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: body && JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw new Error(text("unreachable"));
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) {
    signOut();
    throw new Error(text("wrongToken"));
  }
  if (response.status === 404) throw new Error(text("gone"));
  if (response.status === 503) throw new Error(text("unavailable"));
  throw new Error(text("failed")(response.status, answer.error?.message ?? answer.detail ?? ""));
}

// Runs a handler with its button disabled, and shows what went wrong.
async function run(button, work) {
  if (button) button.disabled = true;
  say(null);
  try {
    await work();
  } catch (error) {
    say("error", error.message);
  } finally {
    if (button) button.disabled = false;
  }
}

async function load(more = false) {
  const turn = ++listing;
  const query = new URLSearchParams({ limit: "100" });
  if (more) query.set("after", next);
  if ($("search").value.trim()) query.set("search", $("search").value.trim());
  const page = await api("GET", `/keys?${query}`);
  if (turn !== listing || !token) return;
  keys = more ? [...keys, ...page.keys] : page.keys;
  next = page.next;
  showKeys();
}

function showKeys() {
  $("rows").replaceChildren(...keys.map(row));
  $("more").hidden = next === null;
  $("empty").hidden = keys.length > 0;
  $("empty").textContent = text($("search").value.trim() ? "noMatch" : "noKeys");
}

function row(key) {
  const limited = key.daily_limit > 0;
  const full = limited && key.remaining === 0;
  const share = limited ? Math.min(key.used_today / key.daily_limit, 1) : 0;
  const fill = element("span", { className: "fill" });
  fill.style.width = `${share * 100}%`;
  const track = element("span", { className: "track", ariaHidden: "true", hidden: !limited }, fill);
  const used = `${number(key.used_today)} / ${limited ? number(key.daily_limit) : "∞"}`;
  const cell = (name, className, ...children) => {
    const made = element("td", { className }, ...children);
    if (name) made.dataset.name = text(name);
    return made;
  };
  const made = element("tr", {},
    cell(null, "",
      element("span", { className: "label", textContent: key.label || text("noLabel") }),
      element("span", { className: "key", textContent: key.key })),
    cell("columnUsed", `used${full ? " full" : share >= 0.8 ? " near" : ""}`, used, track),
    cell("columnLeft", "number", limited ? number(key.remaining) : text("unlimited")),
    cell("columnCreated", "", date(key.created_at)),
    cell("columnState", "", state(key, full)),
    cell(null, "actions", action(key, "reset"), action(key, "remove")));
  made.dataset.testid = `row-${key.id}`;
  return made;
}

function date(at) {
  if (!at) return "";
  const shown = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  return element("time", { dateTime: at, textContent: shown.format(new Date(at)) });
}

function state(key, full) {
  const expired = key.expires_at && new Date(key.expires_at) <= new Date();
  const name = key.disabled ? "disabled" : expired ? "expired" : full ? "full" : "active";
  const className = { active: "state", full: "state full" }[name] ?? "state off";
  return element("span", { className, textContent: text(name) });
}

function action(key, what) {
  const button = element("button", { type: "button", textContent: text(what) });
  button.className = what === "remove" ? "delete" : "";
  button.ariaLabel = text("of")(text(what), key.label || key.key);
  button.dataset.testid = `${what === "remove" ? "delete" : "reset"}-${key.id}`;
  button.addEventListener("click", () => confirm(key, what));
  return button;
}

function confirm(key, what) {
  $("confirm-title").textContent = text(`${what}Title`);
  $("confirm-subject").textContent = [key.label, key.key].filter(Boolean).join(" · ");
  $("confirm-text").textContent = text(`${what}Text`)(key);
  $("confirm-yes").textContent = text(`${what}Yes`);
  $("confirm-yes").className = what === "remove" ? "danger" : "primary";
  $("confirm-yes").onclick = () => {
    $("confirm").close();
    run(null, () => (what === "remove" ? remove(key) : reset(key)));
  };
  $("confirm").showModal();
}

async function reset(key) {
  await api("POST", "/reset-usage", { key: key.id });
  const changed = await api("GET", `/keys/${encodeURIComponent(key.id)}`);
  keys = keys.map((other) => (other.id === key.id ? changed : other));
  showKeys();
  say("status", text("resetDone"));
}

async function remove(key) {
  await api("DELETE", `/keys/${encodeURIComponent(key.id)}`);
  keys = keys.filter((other) => other.id !== key.id);
  showKeys();
  say("status", text("removeDone"));
}

async function create() {
  const wanted = {};
  if ($("label").value.trim()) wanted.label = $("label").value.trim();
  const limit = $("limit").value.trim();
  if (limit) {
    if (!/^[0-9]{1,10}$/.test(limit)) throw new Error(text("badLimit"));
    wanted.daily_limit = Number(limit);
    if (wanted.daily_limit > 1e9) throw new Error(text("badLimit"));
  }
  const made = await api("POST", "/keys", wanted);
  $("created-key").textContent = made.key;
  $("created-curl").textContent = [
    `curl ${location.origin}/v1/chat/completions \\`,
    `  -H "Authorization: Bearer ${made.key}" \\`,
    `  -H "Content-Type: application/json" \\`,
    `  -d '{"model": "deepseek-chat", "messages": [{"role": "user", "content": "你好"}]}'`,
  ].join("\n");
  $("created").hidden = false;
  $("created").focus();
  $("create-form").reset();
  markPreset();
  $("search").value = "";
  await load();
}

async function copy(button, source) {
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
  setTimeout(() => { button.textContent = text("copy"); }, 2000);
}

function markPreset() {
  for (const preset of document.querySelectorAll("[data-limit]")) {
    preset.ariaPressed = String(preset.dataset.limit === $("limit").value.trim());
  }
}

function signOut() {
  token = "";
  keys = [];
  next = null;
  listing += 1;
  $("rows").replaceChildren();
  $("created").hidden = true;
  $("created-key").textContent = $("created-curl").textContent = "";
  $("create-form").reset();
  $("search").value = "";
  $("confirm").close();
  showDesk(false);
}

function showDesk(open) {
  $("desk").hidden = $("logout").hidden = !open;
  $("sign-in").hidden = open;
  $(open ? "label" : "token").focus();
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-label]")) node.ariaLabel = text(node.dataset.label);
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  if (token) showKeys();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(event.submitter, async () => {
    token = $("token").value.trim();
    if (!token) throw new Error(text("needToken"));
    await load();
    $("token").value = "";
    showDesk(true);
  });
});
$("create-form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(event.submitter, create);
});
for (const preset of document.querySelectorAll("[data-limit]")) {
  preset.addEventListener("click", () => {
    $("limit").value = preset.dataset.limit;
    markPreset();
  });
}
$("limit").addEventListener("input", markPreset);
let typing;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => run(null, () => load()), 200);
});
$("refresh").addEventListener("click", (event) => run(event.currentTarget, () => load()));
$("more").addEventListener("click", (event) => run(event.currentTarget, () => load(true)));
$("copy-key").addEventListener("click", (event) => copy(event.currentTarget, $("created-key")));
$("copy-curl").addEventListener("click", (event) => copy(event.currentTarget, $("created-curl")));
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  say(null);
  translate();
});
$("logout").addEventListener("click", () => {
  say(null);
  signOut();
});
translate();
