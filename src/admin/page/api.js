// Calls of the admin API. The token is kept in `token` only.
const PREFIX = document.body.dataset.prefix;

let token = "";
// Number of the current session. Responses to requests of earlier sessions are not shown.
let session = 0;

const CODES = {
  version_changed: "changed", key_not_found: "gone", store_unavailable: "unavailable",
  too_many_attempts: "tooMany", address_not_allowed: "notAllowed", cross_site_request: "crossSite",
  request_too_large: "tooLarge", already_issued: "alreadyIssued", request_in_progress: "inProgress",
  key_not_active: "notActive",
};
const STATUSES = { 404: "unknownCall", 412: "changed", 413: "tooLarge", 429: "tooMany", 502: "between", 503: "unavailable", 504: "between" };

// Calls the API. `version` is the version of the key that the change applies to.
async function api(method, path, { body, version, headers = {}, timeout } = {}) {
  const mine = session;
  const requestHeaders = { authorization: `Bearer ${token}`, ...headers };
  if (body !== undefined && !requestHeaders["content-type"]) requestHeaders["content-type"] = "application/json";
  if (version) requestHeaders["if-match"] = `"${version}"`;
  const requestBody = typeof body === "string" || body === undefined || body instanceof ArrayBuffer ? body : JSON.stringify(body);
  const result = await send(PREFIX + path, { method, headers: requestHeaders, body: requestBody, timeout }).catch((error) => {
    // The call may have succeeded although its response was lost.
    throw method !== "GET" && error.name === "unreachable" ? new Problem("unsure") : error;
  });
  if (mine !== session) throw new Problem("signedOut");
  if (result.response.ok) {
    // A page from a proxy in between is not a response of the API.
    if (result.json === null && headers.accept !== "text/csv") throw new Problem("odd", errorDetails(result));
    return result.json ?? result.body;
  }
  if (result.response.status === 401) {
    endSession();
    throw new Problem("wrongToken", errorDetails(result));
  }
  const problem = problemOf(result, CODES, STATUSES, "rejected");
  throw problem.name === "between" && method === "GET" ? new Problem("betweenRead", errorDetails(result)) : problem;
}

// Resolves to the problem if only one part of a view cannot be loaded.
async function catchProblem(pending) {
  try {
    return await pending;
  } catch (error) {
    if (!(error instanceof Problem) || ["signedOut", "wrongToken"].includes(error.name)) throw error;
    return error;
  }
}

// Makes a change, and reloads the view if it is not known whether the change was made.
async function reloadIfUnsure(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Problem && error.name === "unsure") await reload(view).catch(() => {});
    throw error;
  }
}

async function reload(mine) {
  await mine.load();
  if (mine === view) mine.show();
}

const keyPath = (id) => `/keys/${encodeURIComponent(id)}`;

const query = (parameters) => {
  const known = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(known).toString();
};
