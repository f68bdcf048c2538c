// Requests the holder's usage.
const CODES = { key_disabled: "disabled", key_expired: "expired", key_misconfigured: "misconfigured", store_unavailable: "unavailable" };
const STATUSES = { 400: "wrong", 401: "wrong", 403: "disabled", 429: "busy", 502: "unavailable", 503: "unavailable", 504: "unavailable" };
// Problems that remain until the key is another one.
const FINAL = new Set(["noKey", "badKey", "wrong", "disabled", "expired"]);

async function fetchUsage(key) {
  const result = await send(location.pathname, { headers: { authorization: `Bearer ${key}` } });
  const { response, json } = result;
  if (!response.ok) throw problemOf(result, CODES, STATUSES);
  if (json?.object !== "usage") throw new Problem("odd", errorDetails(result));
  // Countdowns follow the gateway's clock, as the browser's may be wrong.
  const sent = Date.parse(response.headers.get("date"));
  return { usage: json, ahead: Number.isNaN(sent) ? 0 : sent - Date.now() };
}
