// Requests to the gateway, and the problems that they can end with.
const TIMEOUT_MS = 15000;

class Problem extends Error {
  constructor(name, details = {}) {
    super(name);
    Object.assign(this, { name, status: 0, requestId: null, detail: "", wait: 0 }, details);
  }

  describe() {
    const message = text("problems")[this.name];
    return typeof message === "function" ? message(this) : message;
  }

  // The request id, to be quoted to the operator.
  reference() {
    return this.requestId ? ` ${text("requestId")(this.requestId)}` : "";
  }
}

// Sends a request and reads the response: its head, its body, and the body as JSON or null.
async function send(path, { method = "GET", headers = {}, body, timeout = TIMEOUT_MS } = {}) {
  let response;
  let responseBody;
  try {
    response = await fetch(path, {
      method, body,
      headers: { accept: "application/json", ...headers },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(timeout),
    });
    responseBody = await response.text();
  } catch {
    throw new Problem("unreachable");
  }
  return { response, body: responseBody, json: parseJson(responseBody) };
}

function parseJson(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

// The details of an error response, for a `Problem`.
function errorDetails({ response, json }) {
  return {
    status: response.status,
    requestId: response.headers.get("x-request-id"),
    code: json?.error?.code ?? json?.code ?? null,
    detail: json?.error?.message ?? json?.detail ?? "",
    wait: Number(response.headers.get("retry-after")) || 0,
  };
}

// The problem of an error response: by its code, else by its status, else `fallback`.
function problemOf(result, codes, statuses, fallback = "odd") {
  const details = errorDetails(result);
  return new Problem(codes[details.code] ?? statuses[details.status] ?? fallback, details);
}

// The credential in a text that was pasted, perhaps with the whole header, or a problem.
function pastedCredential(pasted, missing, invalid) {
  const credential = pasted.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  if (!credential) throw new Problem(missing);
  if (!/^[\x21-\x7e]+$/.test(credential)) throw new Problem(invalid);
  return credential;
}

// A random key that a repeated request has in common with the first. `randomUUID` needs https.
function newIdempotencyKey() {
  return hexadecimal(crypto.getRandomValues(new Uint8Array(16)));
}

const hexadecimal = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
