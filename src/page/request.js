// Requests to the gateway, and the problems that they can end with.
addTexts({
  requestId: [(id) => `Request id: ${id}`, (id) => `请求编号：${id}`],
});

addProblems({
  unreachable: ["The gateway cannot be reached. Are you online?", "无法连接网关，请检查网络。"],
  odd: [({ status }) => `The gateway sent an unexpected response (status ${status}).`, ({ status }) => `网关返回了意外的结果（状态码 ${status}）。`],
});

const TIMEOUT_MS = 15000;

class Problem extends Error {
  constructor(name, details = {}) {
    super(name);
    Object.assign(this, { name, status: 0, requestId: null, detail: "", wait: 0 }, details);
  }

  describe() {
    const message = textIn("problems", this.name);
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

// The problem of an error response: its code if there are words for it, else the one of its status,
// else `fallback`.
function problemOf(result, statuses, fallback = "odd") {
  const details = errorDetails(result);
  const name = textIn("problems", details.code) ? details.code : statuses[details.status] ?? fallback;
  return new Problem(name, details);
}

// A random key that a repeated request has in common with the first. `randomUUID` needs https.
function newIdempotencyKey() {
  return hexadecimal(crypto.getRandomValues(new Uint8Array(16)));
}

const hexadecimal = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
