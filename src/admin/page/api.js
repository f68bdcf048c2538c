// Calls of the admin API. The token lives in `token` and nowhere else.
const PREFIX = document.body.dataset.prefix;

let token = "";
// Answers to what an earlier session asked are not shown.
let session = 0;

const CODES = {
  version_changed: "changed", key_not_found: "gone", store_unavailable: "unavailable",
  too_many_attempts: "tooMany", address_not_allowed: "notAllowed", cross_site_request: "crossSite",
  request_too_large: "tooLarge", already_issued: "alreadyIssued", request_in_progress: "inProgress",
  key_not_active: "notActive",
};
const STATUSES = { 404: "unknownCall", 412: "changed", 413: "tooLarge", 429: "tooMany", 502: "between", 503: "unavailable", 504: "between" };

// `version` is the state of a key that the change is meant for.
async function api(method, path, { body, version, headers = {}, patience } = {}) {
  const mine = session;
  const asked = token;
  const all = { authorization: `Bearer ${asked}`, ...headers };
  if (body !== undefined && !all["content-type"]) all["content-type"] = "application/json";
  if (version) all["if-match"] = `"${version}"`;
  const sent = typeof body === "string" || body === undefined || body instanceof ArrayBuffer ? body : JSON.stringify(body);
  const answer = await send(PREFIX + path, { method, headers: all, body: sent, patience }).catch((error) => {
    // It may have been done, and its answer lost.
    throw method !== "GET" && error.name === "unreachable" ? new Problem("unsure") : error;
  });
  if (mine !== session) throw new Problem("signedOut");
  const refused = about(answer);
  if (answer.response.ok) {
    // A page of somebody else's, such as a proxy's, is no answer.
    if (answer.told === null && headers.accept !== "text/csv") throw new Problem("odd", refused);
    return answer.told ?? answer.answer;
  }
  if (answer.response.status === 401) {
    endSession();
    throw new Problem("wrongToken", refused);
  }
  const name = CODES[refused.code] ?? STATUSES[answer.response.status] ?? "refused";
  throw new Problem(name === "between" && method === "GET" ? "betweenRead" : name, refused);
}

// What a part of a view shows when it alone cannot be read: the problem.
async function orProblem(asked) {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof Problem) || ["signedOut", "wrongToken"].includes(error.name)) throw error;
    return error;
  }
}

// A change of which it is not known whether it was made: what is shown is read anew.
async function orLook(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Problem && error.name === "unsure") await lookAgain(view).catch(() => {});
    throw error;
  }
}

async function lookAgain(mine) {
  await mine.load();
  if (mine === view) mine.show();
}

const keyPath = (id) => `/keys/${encodeURIComponent(id)}`;

const query = (parameters) => {
  const known = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(known).toString();
};
