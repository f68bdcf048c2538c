// State of the page. The key is kept in `key` only, and is gone when the page is left.
const REFRESH_INTERVAL_MS = 30000;
// Time between requests after the day has ended, until the response has the new day.
const DAY_END_INTERVAL_MS = 5000;

const STATUSES = {
  400: "invalid_api_key", 401: "invalid_api_key", 403: "key_disabled", 429: "rate_limit_exceeded",
  502: "store_unavailable", 503: "store_unavailable", 504: "store_unavailable",
};
// Problems that remain until the key is another one.
const FINAL = new Set(["noKey", "badKey", "invalid_api_key", "key_disabled", "key_expired"]);

let key = "";
let usage = null;
let updatedAt = 0;
let requestedAt = 0;
// How far the gateway's clock is ahead of the browser's, in milliseconds.
let ahead = 0;
let problem = null;
// Number of the latest request. Responses to earlier ones are not shown.
let latestRequest = 0;
let isLoading = false;

const now = () => Date.now() + ahead;
const secret = startSecretField($("key"), $("reveal"));
const month = new MonthChart($("month"), "h2");

async function fetchUsage(key) {
  const result = await send(location.pathname, { headers: { authorization: `Bearer ${key}` } });
  const { response, json } = result;
  if (!response.ok) throw problemOf(result, STATUSES);
  if (json?.object !== "usage") throw new Problem("odd", errorDetails(result));
  // Countdowns follow the gateway's clock, as the browser's may be wrong.
  const sent = Date.parse(response.headers.get("date"));
  return { usage: json, ahead: Number.isNaN(sent) ? 0 : sent - Date.now() };
}

async function load(newKey) {
  const mine = ++latestRequest;
  isLoading = true;
  requestedAt = Date.now();
  showBusy();
  try {
    const result = await fetchUsage(newKey);
    if (mine !== latestRequest) return false;
    ({ usage, ahead } = result);
    key = newKey;
    updatedAt = Date.now();
    problem = null;
  } catch (error) {
    if (mine !== latestRequest) return false;
    problem = error;
    if (FINAL.has(error.name)) leave();
  } finally {
    if (mine === latestRequest) isLoading = false;
  }
  show();
  return !problem;
}

// Discards the key and its usage.
function leave() {
  key = "";
  usage = null;
  latestRequest += 1;
  isLoading = false;
}

function show() {
  $("key-form").hidden = Boolean(usage);
  $("usage").hidden = !usage;
  const final = FINAL.has(problem?.name);
  // The request id helps the operator if the key is not the cause.
  setText($("problem"), usage || !problem ? null : problem.describe() + (final ? "" : problem.reference()));
  $("key").ariaInvalid = !usage && final;
  setText($("stale"), usage && problem ? text("stale")(problem.describe(), clock(updatedAt)) : null);
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
  for (const id of ["submit", "refresh"]) $(id).ariaDisabled = isLoading;
  $("submit").textContent = text(isLoading ? "loading" : "submit");
}

// The days of the history, and today.
function monthOf({ day, history, requests, tokens }) {
  const known = new Map(history.map((past) => [past.day, past]));
  const { succeeded, failed, tokens_unknown } = requests;
  known.set(day, { requests: succeeded + failed, failed, tokens: tokens.total, tokens_unknown });
  return daysUpTo(day, known);
}

function translate() {
  translatePage();
  $("said").textContent = "";
  secret.show();
  show();
}

async function submit() {
  if (isLoading) return;
  let typedKey;
  try {
    typedKey = pastedCredential($("key").value, "noKey", "badKey");
  } catch (error) {
    problem = error;
    show();
    $("key").focus();
    return;
  }
  if (!(await load(typedKey))) {
    if (!usage) $("key").focus();
    return;
  }
  $("key").value = "";
  secret.conceal();
  $("name").focus();
}

async function refresh() {
  if (isLoading || !key) return;
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

// Once a second: updates the countdown, and refreshes the usage when it is due.
function tick() {
  if (!usage || document.visibilityState !== "visible") return;
  showTime(usage, now());
  if (isLoading || !$("auto").checked) return;
  const interval = now() >= Date.parse(usage.resets_at) ? DAY_END_INTERVAL_MS : REFRESH_INTERVAL_MS;
  if (Date.now() - requestedAt >= interval) load(key);
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
// The browser may keep the page for the Back button, but not the key.
addEventListener("pagehide", forget);
setInterval(tick, 1000);
startLanguage(translate);
startLists(show);
translate();
$("key").focus();
