// Looks up the link, and opens it when its holder presses the button.
const STATUSES = {
  400: "claim_not_found", 404: "claim_not_found", 409: "too_many_attempts", 410: "claim_expired",
  429: "too_many_attempts", 502: "store_unavailable", 503: "store_unavailable", 504: "store_unavailable",
};
// Problems that may pass.
const TRANSIENT = new Set(["unreachable", "unsure", "store_unavailable", "too_many_attempts", "odd"]);

// The open claim, and the key once it is claimed.
let claim = null;
let claimedKey = null;
let problem = null;
let isLoading = false;
// If the response is lost, a retry with the same idempotency key gets the same key.
let idempotencyKey = newIdempotencyKey();

const tokenInUrl = () => location.hash.slice(1);

async function postClaim(open) {
  const token = tokenInUrl();
  if (!token) throw new Problem("noToken");
  const body = JSON.stringify({ token, open });
  const headers = { "content-type": "application/json", ...(open && { "idempotency-key": idempotencyKey }) };
  const result = await send(location.pathname, { method: "POST", body, headers });
  if (result.response.ok && result.json) return result.json;
  throw problemOf(result, STATUSES);
}

// Looks up or opens the link, one request at a time, and shows the result.
async function load(open) {
  if (isLoading) return;
  isLoading = true;
  $("show-key").ariaDisabled = $("again").ariaDisabled = "true";
  try {
    const response = await postClaim(open);
    problem = null;
    if (open) claimedKey = response;
    else claim = response;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem = open && error.name === "unreachable" ? new Problem("unsure") : error;
    if (!TRANSIENT.has(problem.name)) claim = null;
  } finally {
    isLoading = false;
    $("show-key").ariaDisabled = $("again").ariaDisabled = null;
  }
  show();
  if (open) $("claim-title").focus();
}

function show() {
  const state = claimedKey ? "claimed" : claim ? "hello" : problem ? "failed" : "waiting";
  $("claim-title").textContent = text(state === "failed" ? "failedTitle" : state);
  setText($("intro"), state === "failed" ? null : text(`${state}Intro`));
  $("facts").hidden = !claimedKey && !claim;
  $("facts").replaceChildren(...facts());
  setText($("once"), claimedKey ? text("onceAfter") : claim ? text("onceBefore") : null);
  $("show-key").hidden = !claim || Boolean(claimedKey);
  setText($("problem"), problem && !claimedKey ? problem.describe() + (TRANSIENT.has(problem.name) ? problem.reference() : "") : null);
  $("again").hidden = Boolean(claim || claimedKey) || !problem || !TRANSIENT.has(problem.name);
  $("given").hidden = !claimedKey;
  $("given").replaceChildren(...(claimedKey ? [handout(claimedKey.key, claimedKey.base_url ?? baseUrl())] : []));
  $("after").hidden = !claimedKey;
}

function facts() {
  const known = claimedKey ?? claim;
  if (!known) return [];
  const { label, daily_limit: limit } = known;
  const keyUntil = claimedKey ? claimedKey.expires_at : claim.key_expires_at;
  const rows = [
    ["label", label], ["limit", limit === 0 ? text("unlimited") : number(limit)],
    ["keyUntil", keyUntil && date(keyUntil)], ["linkUntil", !claimedKey && date(claim.expires_at)],
  ];
  return rows.filter(([, value]) => value).map(([name, value]) =>
    make("div", {}, make("dt", { textContent: text(name) }), make("dd", { textContent: value, dir: "auto" })));
}

function translate() {
  translatePage();
  show();
}

// The browser may keep the page for the Back button, but not the key.
addEventListener("pagehide", () => {
  claimedKey = claim = null;
  idempotencyKey = newIdempotencyKey();
  show();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) load(false);
});
addEventListener("hashchange", () => {
  claimedKey = claim = problem = null;
  idempotencyKey = newIdempotencyKey();
  show();
  load(false);
});
$("show-key").addEventListener("click", () => load(true));
$("again").addEventListener("click", () => load(false));
startLanguage(translate);
translate();
load(false);
