// Asks the gateway for the holder's figures.
const PATIENCE = 15000;

class Problem extends Error {
  constructor(name, { status = 0, requestId = null } = {}) {
    super(name);
    Object.assign(this, { name, status, requestId });
  }

  // Whether asking again with this key is in vain.
  isFinal() {
    return ["noKey", "badKey", "wrong", "disabled", "expired"].includes(this.name);
  }

  words() {
    const known = text("problems")[this.name];
    return typeof known === "function" ? known(this.status) : known;
  }

  // What to quote to the operator, when the key is not the cause.
  reference() {
    return this.requestId && !this.isFinal() ? ` ${text("requestId")(this.requestId)}` : "";
  }
}

const CODES = { key_disabled: "disabled", key_expired: "expired", key_misconfigured: "misconfigured", store_unavailable: "unavailable" };
const STATUSES = { 400: "wrong", 401: "wrong", 403: "disabled", 429: "busy", 502: "unavailable", 503: "unavailable", 504: "unavailable" };

// What was typed as a key; people paste the whole header too.
function keyIn(typed) {
  const found = typed.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  if (!found) throw new Problem("noKey");
  if (!/^[\x21-\x7e]+$/.test(found)) throw new Problem("badKey");
  return found;
}

async function ask(key) {
  let response;
  let answer;
  try {
    response = await fetch(location.pathname, {
      headers: { authorization: `Bearer ${key}`, accept: "application/json" },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    answer = await response.text();
  } catch {
    throw new Problem("unreachable");
  }
  const about = { status: response.status, requestId: response.headers.get("x-request-id") };
  const told = parsed(answer);
  if (!response.ok) {
    const code = told?.error?.code ?? told?.code;
    throw new Problem(CODES[code] ?? STATUSES[response.status] ?? "odd", about);
  }
  if (told?.object !== "usage") throw new Problem("odd", about);
  // Countdowns follow the gateway's clock: the reader's may be wrong.
  const sent = Date.parse(response.headers.get("date"));
  return { usage: told, ahead: Number.isNaN(sent) ? 0 : sent - Date.now() };
}

function parsed(answer) {
  try {
    return JSON.parse(answer);
  } catch {
    return null;
  }
}
