// Looks the link up, and shows the key when its holder asks for it. Nothing is opened before.
const CODES = { claim_opened: "opened", claim_expired: "expired", claim_withdrawn: "withdrawn", claim_not_found: "notFound", store_unavailable: "unavailable", too_many_attempts: "busy", request_in_progress: "busy" };
const STATUSES = { 400: "notFound", 404: "notFound", 410: "expired", 429: "busy", 502: "unavailable", 503: "unavailable", 504: "unavailable" };
// Trying again may help.
const PASSING = new Set(["unreachable", "unsure", "unavailable", "busy", "odd"]);

let found = null;
let given = null;
let problem = null;
let isAsking = false;
// Names the opening: whoever lost the answer asks again under this name, and gets the same key.
let attempt = attemptName();

const tokenHere = () => location.hash.slice(1);

async function claim(open) {
  const token = tokenHere();
  if (!token) throw new Problem("noToken");
  const body = JSON.stringify({ token, open });
  const headers = { "content-type": "application/json", ...(open && { "idempotency-key": attempt }) };
  const answer = await send(location.pathname, { method: "POST", body, headers });
  const refused = about(answer);
  if (answer.response.ok && answer.told) return answer.told;
  throw new Problem(CODES[refused.code] ?? STATUSES[answer.response.status] ?? "odd", refused);
}

// One question at a time; what it answers is shown.
async function ask(open) {
  if (isAsking) return;
  isAsking = true;
  $("show-key").ariaDisabled = $("again").ariaDisabled = "true";
  try {
    const told = await claim(open);
    problem = null;
    if (open) given = told;
    else found = told;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem = open && error.name === "unreachable" ? new Problem("unsure") : error;
    if (!PASSING.has(problem.name)) found = null;
  } finally {
    isAsking = false;
    $("show-key").ariaDisabled = $("again").ariaDisabled = null;
  }
  show();
  if (open) $("claim-title").focus();
}

function show() {
  const state = given ? "given" : found ? "hello" : problem ? "refused" : "waiting";
  $("claim-title").textContent = text(state === "refused" ? "refusedTitle" : state);
  say($("intro"), state === "refused" ? null : text(`${state}Intro`));
  $("facts").hidden = !given && !found;
  $("facts").replaceChildren(...facts());
  say($("once"), given ? text("onceAfter") : found ? text("onceBefore") : null);
  $("show-key").hidden = !found || Boolean(given);
  say($("problem"), problem && !given ? problem.words() + (PASSING.has(problem.name) ? problem.reference() : "") : null);
  $("again").hidden = Boolean(found || given) || !problem || !PASSING.has(problem.name);
  $("given").hidden = !given;
  $("given").replaceChildren(...(given ? [handout(given.key, given.base_url ?? baseUrl())] : []));
  $("after").hidden = !given;
}

function facts() {
  const known = given ?? found;
  if (!known) return [];
  const { label, daily_limit: limit } = known;
  const keyUntil = given ? given.expires_at : found.key_expires_at;
  const rows = [
    ["label", label], ["limit", limit === 0 ? text("unlimited") : number(limit)],
    ["keyUntil", keyUntil && date(keyUntil)], ["linkUntil", !given && date(found.expires_at)],
  ];
  return rows.filter(([, value]) => value).map(([name, value]) =>
    make("div", {}, make("dt", { textContent: text(name) }), make("dd", { textContent: value, dir: "auto" })));
}

function translate() {
  speakAll();
  show();
}

// A page that is kept for the Back button must not keep the key.
addEventListener("pagehide", () => {
  given = found = null;
  attempt = attemptName();
  show();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) ask(false);
});
addEventListener("hashchange", () => {
  given = found = problem = null;
  attempt = attemptName();
  show();
  ask(false);
});
$("show-key").addEventListener("click", () => ask(true));
$("again").addEventListener("click", () => ask(false));
startLanguage(translate);
translate();
ask(false);
