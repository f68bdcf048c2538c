// Creating keys, one or many, and showing them once.
let created = null;

function forgetCreated() {
  created = null;
}

class CreateView {
  #form = new CreateForm($("create-here"), { isShort: false, done: () => {} });

  async load() {}

  show() {
    this.#form.show();
  }
}

// The form stands short above the list of keys, and whole in its own view.
class CreateForm {
  #isShort;
  #done;
  #markPreset;
  // The attempt's name and body: an attempt that is sent again bears its name again.
  #attempt = { name: "", body: "" };

  constructor(place, { isShort, done }) {
    place.replaceWith($("create-form-part").content.cloneNode(true));
    speak($("create-card"));
    this.#isShort = isShort;
    this.#done = done;
    for (const id of ["how-many", "expiry-part"]) $(id).hidden = isShort;
    $("more-options").hidden = !isShort;
    this.#markPreset = startPresets($("limit"), $("create-form"));
    $("how-many").addEventListener("change", () => this.#showFields());
    $("created-done").addEventListener("click", () => this.#close());
    $("create-form").addEventListener("submit", (event) => {
      event.preventDefault();
      run(() => this.#create(), event.submitter);
    });
    this.show();
  }

  get #isMany() {
    return !this.#isShort && $("create-form").elements.many.value === "many";
  }

  show() {
    this.#showFields();
    $("created").hidden = !created;
    $("created-title").textContent = created?.claim ? text("claimedTitle") : text("createdTitle")(created?.keys.length, number(created?.keys.length ?? 0));
    $("created-hint").textContent = created?.claim ? text("claimHint")(date(created.claim.expires_at)) : text("createdHint");
    $("created-what").replaceChildren(...this.#result());
  }

  #showFields() {
    const isMany = this.#isMany;
    $("count-part").hidden = !isMany;
    $("label-name").textContent = text(isMany ? "patternField" : "labelField");
    $("label").placeholder = text(isMany ? "patternExample" : "labelExample");
    say($("label-hint"), isMany ? text("patternHint") : null);
    if (isMany) $("label").setAttribute("aria-describedby", "label-hint");
    else $("label").removeAttribute("aria-describedby");
  }

  #result() {
    // Until then an empty one stands there, hidden, for whoever drives the page by its parts.
    if (!created) return [handout("", baseUrl())];
    if (created.claim) return [strong(copyable("code", "claimLink", "claim", wholeUrl(created.claim.url)))];
    if (created.isMany) return [manyPart(created.keys)];
    const button = make("button", { type: "button", textContent: text("claimInstead") });
    button.dataset.testid = "claim-instead";
    button.addEventListener("click", () => run(() => this.#claim(), button));
    return [handout(created.keys[0].key, baseUrl()),
      make("div", { className: "choices start" }, button, make("p", { className: "hint", textContent: text("claimInsteadHint") }))];
  }

  async #create() {
    const body = JSON.stringify(this.#wanted());
    if (body !== this.#attempt.body) this.#attempt = { name: attemptName(), body };
    let made;
    try {
      made = await api("POST", "/keys", { body, headers: { "idempotency-key": this.#attempt.name } });
    } catch (error) {
      // A refused attempt is over; only one without an answer is to be repeated as the same.
      if (!["unreachable", "unavailable"].includes(error.name)) this.#attempt = { name: "", body: "" };
      throw error;
    }
    this.#attempt = { name: "", body: "" };
    created = { keys: made.keys ?? [made], isMany: Boolean(made.keys), claim: null };
    for (const id of ["label", "limit", "expires"]) $(id).value = "";
    this.#markPreset();
    this.show();
    $("created").focus();
    await this.#done();
  }

  #wanted() {
    const wanted = { label: $("label").value.trim() || undefined };
    if (this.#isMany) wanted.count = wholeNumber($("count"), COUNT);
    wanted.daily_limit = limitIn($("limit"));
    wanted.expires_at = (!this.#isShort && expiryIn($("expires"))) || undefined;
    return wanted;
  }

  async #claim() {
    created.claim = await api("POST", `${keyPath(created.keys[0].id)}/claim`, { body: {} });
    this.show();
    $("created").focus();
    await this.#done();
  }

  #close() {
    forgetCreated();
    this.show();
    $("label").focus();
  }
}

// Many keys: one line each, and all of them at once as text or as a file.
function manyPart(keys) {
  const all = make("pre", { id: "created-all", className: "unseen", ariaHidden: "true", textContent: keys.map(({ label, key }) => (label ? `${label}\t${key}` : key)).join("\n") });
  const copyAll = copyButton(null, "copy-all", () => all, text("copyAll"));
  const save = make("button", { type: "button", textContent: text("saveCsv") });
  save.dataset.testid = "save-csv";
  save.addEventListener("click", () => download("new-keys.csv", csvOf(keys)));
  const lines = keys.map(({ label, key }) => {
    const code = make("code", { textContent: key, translate: false });
    code.dataset.testid = "created-key";
    return make("li", {},
      make("span", { className: "free", dir: "auto", textContent: label || text("noLabel") }), code,
      copyButton(label || key, "copy-key", () => code));
  });
  return make("div", { className: "handout" },
    make("div", { className: "choices start" }, copyAll, save), all,
    make("ol", { className: "many" }, ...lines),
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("baseUrl") }), copyable("code", "baseUrl", "base", baseUrl())),
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("toTry") }), copyable("pre", "toTry", "curl", curlLine(baseUrl(), keys[0].key))));
}

// A cell that a spreadsheet would run gets a `'` before it.
const csvCell = (value) => `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;

function csvOf(keys) {
  const rows = keys.map(({ id, label, key }) => [id, label, key, baseUrl()].map(csvCell).join(","));
  return `${["id,label,key,base_url", ...rows].join("\r\n")}\r\n`;
}
