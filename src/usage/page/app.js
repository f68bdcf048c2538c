// The page's state. The key lives in `key` and nowhere else, and goes when the page does.
const PERIOD = 30000;
// How soon after the day has turned the new one is asked for.
const TURN = 5000;

let key = "";
let usage = null;
let updatedAt = 0;
let askedAt = 0;
// How far the gateway's clock is ahead of the reader's.
let ahead = 0;
let problem = null;
// Answers to an earlier key, or to an earlier question, are not shown.
let turn = 0;
let asking = false;

const now = () => Date.now() + ahead;

async function load(wanted) {
  const mine = ++turn;
  asking = true;
  askedAt = Date.now();
  showBusy();
  try {
    const answer = await ask(wanted);
    if (mine !== turn) return false;
    ({ usage, ahead } = answer);
    key = wanted;
    updatedAt = Date.now();
    problem = null;
  } catch (error) {
    if (mine !== turn) return false;
    problem = error;
    if (error.isFinal()) leave();
  } finally {
    if (mine === turn) asking = false;
  }
  show();
  return !problem;
}

// Forgets the key and all that it told.
function leave() {
  key = "";
  usage = null;
  turn += 1;
  asking = false;
}

function show() {
  $("key-form").hidden = Boolean(usage);
  $("usage").hidden = !usage;
  say($("problem"), usage || !problem ? null : problem.words() + problem.reference());
  $("key").ariaInvalid = !usage && Boolean(problem?.isFinal());
  say($("stale"), usage && problem ? text("stale")(problem.words(), clock(updatedAt)) : null);
  showBusy();
  if (!usage) return;
  showKey(usage, now());
  showToday(usage);
  showTime(usage, now());
  showMonth(usage);
  showLists(usage);
  $("updated").textContent = text("updated")(clock(updatedAt));
  $("zone").textContent = text("zone")(usage.timezone);
}

function showBusy() {
  for (const id of ["submit", "refresh"]) $(id).ariaDisabled = asking;
  $("submit").textContent = text(asking ? "loading" : "submit");
}

function showReveal() {
  const concealed = $("key").type === "password";
  $("reveal").textContent = text(concealed ? "reveal" : "conceal");
  $("reveal").ariaLabel = text(concealed ? "revealKey" : "concealKey");
}

function conceal() {
  $("key").type = "password";
  showReveal();
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  $("language").textContent = text("other");
  $("language").lang = text("otherLang");
  $("said").textContent = "";
  showReveal();
  show();
}

async function submit() {
  if (asking) return;
  let wanted;
  try {
    wanted = keyIn($("key").value);
  } catch (error) {
    problem = error;
    show();
    $("key").focus();
    return;
  }
  if (!(await load(wanted))) {
    if (!usage) $("key").focus();
    return;
  }
  $("key").value = "";
  conceal();
  $("name").focus();
}

async function refresh() {
  if (asking || !key) return;
  $("said").textContent = "";
  if (await load(key)) $("said").textContent = `${text("said")} ${usage.unlimited ? "" : text("leftNow")(number(usage.remaining))}`;
  else if (!usage) $("key").focus();
}

function forget() {
  leave();
  problem = null;
  $("key").value = "";
  conceal();
  show();
}

// Once a second: the time that is left, and new figures when they are due.
function tick() {
  if (!usage || document.visibilityState !== "visible") return;
  showTime(usage, now());
  if (asking || !$("auto").checked) return;
  const period = now() >= Date.parse(usage.resets_at) ? TURN : PERIOD;
  if (Date.now() - askedAt >= period) load(key);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("reveal").addEventListener("click", () => {
  $("key").type = $("key").type === "password" ? "text" : "password";
  showReveal();
});
$("refresh").addEventListener("click", refresh);
$("forget").addEventListener("click", () => {
  forget();
  $("key").focus();
});
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  translate();
});
document.addEventListener("visibilitychange", tick);
// A page that is kept for the Back button must not keep the key.
addEventListener("pagehide", forget);
setInterval(tick, 1000);
startChart();
startLists(show);
translate();
$("key").focus();
