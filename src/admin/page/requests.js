// The last requests of one key, if single requests are kept.
class RequestList {
  #id;
  #requests = [];
  #next = null;
  #retention = 0;
  #problem = null;
  #latestRequest = 0;

  constructor(id) {
    this.#id = id;
    const mine = $("requests");
    const readAndShow = async (before) => {
      await this.#read(before);
      if ($("requests") === mine) this.show();
    };
    $("failed-only").addEventListener("change", () => run(() => readAndShow()));
    $("requests-more").addEventListener("click", (event) => run(() => readAndShow(this.#next), event.currentTarget));
  }

  load() {
    return this.#read();
  }

  async #read(before) {
    const mine = ++this.#latestRequest;
    const parameters = { key: this.#id, limit: 20, before, failed: $("failed-only").checked || "" };
    const page = await catchProblem(api("GET", `/requests?${query(parameters)}`));
    if (mine !== this.#latestRequest) return;
    this.#problem = page instanceof Problem ? page : null;
    if (this.#problem) return;
    this.#requests = before ? [...this.#requests, ...page.requests] : page.requests;
    this.#next = page.next;
    this.#retention = page.retention_days;
  }

  show() {
    if (!$("requests")) return;
    const none = $("failed-only").checked ? "noFailed" : "noRequests";
    const kept = text("requestsKept")(this.#retention);
    setText($("requests-hint"), this.#problem ? this.#problem.describe() : this.#retention === 0 ? text("requestsNotKept") : this.#requests.length ? kept : text(none));
    $("failed-only").closest("label").hidden = this.#retention === 0;
    $("requests").replaceChildren(...this.#requests.map(requestEntry));
    $("requests-more").hidden = this.#next === null;
  }
}

function requestEntry(request) {
  const isGood = request.outcome === "succeeded";
  const model = request.model ?? request.model_asked;
  const about = [
    make("code", { textContent: `${request.method} ${request.path}` }),
    ...(model ? [modelName(model, "of")] : []),
    ...(request.tokens ? [make("span", { textContent: text("tokensSum")(number(request.tokens.total)) })] : []),
    ...(typeof request.duration_ms === "number" ? [make("span", { textContent: duration(request.duration_ms) })] : []),
    make("code", { textContent: [request.status, request.code].filter(Boolean).join(" ") }),
  ];
  return make("li", {},
    make("div", { className: "what" },
      make("span", {}, make("span", { className: `lamp ${isGood ? "good" : "bad"}`, textContent: isGood ? text("succeeded") : cause(request) }),
        ...(request.refunded ? [" ", make("span", { className: "tag", textContent: text("refunded") })] : [])),
      timeElement(request.at, shortMoment)),
    make("div", { className: "about" }, ...about));
}

const duration = (milliseconds) => (milliseconds < 1000
  ? text("milliseconds")(number(Math.round(milliseconds)))
  : text("secondsOf")(new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(milliseconds / 1000)));
