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
const secret = startSecretField($("key"), $("reveal"));
const month = new MonthChart($("month"), "h2");

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
    if (FINAL.has(error.name)) leave();
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
  const final = FINAL.has(problem?.name);
  // Quoted to the operator, when the key is not the cause.
  say($("problem"), usage || !problem ? null : problem.words() + (final ? "" : problem.reference()));
  $("key").ariaInvalid = !usage && final;
  say($("stale"), usage && problem ? text("stale")(problem.words(), clock(updatedAt)) : null);
  showBusy();
  if (!usage) return;
  showKey(usage, now());
  showToday(usage);
  showTime(usage, now());
  month.show(monthOf(usage));
  showLists(usage);
  $("updated").textContent = text("updated")(clock(updatedAt));
  $("zone").textContent = text("zone")(usage.timezone);
}

function showBusy() {
  for (const id of ["submit", "refresh"]) $(id).ariaDisabled = asking;
  $("submit").textContent = text(asking ? "loading" : "submit");
}

// The days that the gateway tells of, and today.
function monthOf({ day, history, requests, tokens }) {
  const known = new Map(history.map((past) => [past.day, past]));
  const { succeeded, failed, tokens_unknown } = requests;
  known.set(day, { requests: succeeded + failed, failed, tokens: tokens.total, tokens_unknown });
  return daysUpTo(day, known);
}

function translate() {
  speakAll();
  $("said").textContent = "";
  secret.show();
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
  secret.conceal();
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
  secret.conceal();
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
$("refresh").addEventListener("click", refresh);
$("forget").addEventListener("click", () => {
  forget();
  $("key").focus();
});
document.addEventListener("visibilitychange", tick);
// A page that is kept for the Back button must not keep the key.
addEventListener("pagehide", forget);
setInterval(tick, 1000);
startLanguage(translate);
startLists(show);
translate();
$("key").focus();
