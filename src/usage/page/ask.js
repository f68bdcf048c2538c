// Asks the gateway for the holder's figures.
const CODES = { key_disabled: "disabled", key_expired: "expired", key_misconfigured: "misconfigured", store_unavailable: "unavailable" };
const STATUSES = { 400: "wrong", 401: "wrong", 403: "disabled", 429: "busy", 502: "unavailable", 503: "unavailable", 504: "unavailable" };
// Asking again with this key is in vain.
const FINAL = new Set(["noKey", "badKey", "wrong", "disabled", "expired"]);

// What was typed as a key; people paste the whole header too.
function keyIn(typed) {
  const found = typed.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  if (!found) throw new Problem("noKey");
  if (!/^[\x21-\x7e]+$/.test(found)) throw new Problem("badKey");
  return found;
}

async function ask(key) {
  const answer = await send(location.pathname, { headers: { authorization: `Bearer ${key}` } });
  const { response, told } = answer;
  const refused = about(answer);
  if (!response.ok) throw new Problem(CODES[refused.code] ?? STATUSES[response.status] ?? "odd", refused);
  if (told?.object !== "usage") throw new Problem("odd", refused);
  // Countdowns follow the gateway's clock: the reader's may be wrong.
  const sent = Date.parse(response.headers.get("date"));
  return { usage: told, ahead: Number.isNaN(sent) ? 0 : sent - Date.now() };
}
