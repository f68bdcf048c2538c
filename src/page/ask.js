// Questions to the gateway, and what can go wrong with them.
const PATIENCE = 15000;

class Problem extends Error {
  constructor(name, about = {}) {
    super(name);
    Object.assign(this, { name, status: 0, requestId: null, detail: "", wait: 0 }, about);
  }

  words() {
    const known = text("problems")[this.name];
    return typeof known === "function" ? known(this) : known;
  }

  // What to quote to whoever looks into it.
  reference() {
    return this.requestId ? ` ${text("requestId")(this.requestId)}` : "";
  }
}

// Sends a request and reads the answer as text; the answer says whether it is a yes.
async function send(path, { method = "GET", headers = {}, body, patience = PATIENCE } = {}) {
  let response;
  let answer;
  try {
    response = await fetch(path, {
      method, body,
      headers: { accept: "application/json", ...headers },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(patience),
    });
    answer = await response.text();
  } catch {
    throw new Problem("unreachable");
  }
  return { response, answer, told: parsed(answer) };
}

function parsed(answer) {
  try {
    return JSON.parse(answer);
  } catch {
    return null;
  }
}

// What a refusal tells of itself.
function about({ response, told }) {
  return {
    status: response.status,
    requestId: response.headers.get("x-request-id"),
    code: told?.error?.code ?? told?.code ?? null,
    detail: told?.error?.message ?? told?.detail ?? "",
    wait: Number(response.headers.get("retry-after")) || 0,
  };
}

// A name for one attempt, which a repeat bears, too. `randomUUID` needs https.
function attemptName() {
  return hexadecimal(crypto.getRandomValues(new Uint8Array(16)));
}

const hexadecimal = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
