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
    const [count, isClaimed] = [created?.keys.length ?? 0, hasClaims()];
    $("created").hidden = !created;
    $("created-title").textContent = text(isClaimed ? "claimedTitle" : "createdTitle")(count, number(count));
    $("created-hint").textContent = isClaimed ? text("claimHint")(date(claimRows(created)[0].more), count) : text("createdHint")(count);
    $("created-what").replaceChildren(...this.#result(), ...(created?.earlier.length ? [earlierPart(created.earlier)] : []));
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
    const { keys, isMany } = created;
    if (hasClaims()) {
      if (isMany) return [manyPart(claimRows(created), { testid: "created-link", file: "claim-links.csv", columns: "id,label,claim_link,expires_at" })];
      return [strong(copyable("code", "claimLink", "claim", claimRows(created)[0].secret))];
    }
    const button = make("button", { type: "button", textContent: text("claimInstead")(keys.length) });
    button.dataset.testid = "claim-instead";
    button.addEventListener("click", () => run(() => this.#claim(), button));
    const instead = make("div", { className: "choices start" }, button, make("p", { className: "hint", textContent: text("claimInsteadHint")(keys.length) }),
      make("p", { id: "claim-progress", className: "hint", role: "status" }));
    if (!isMany) return [handout(keys[0].key, baseUrl()), instead];
    const rows = keys.map(({ id, label, key }) => ({ id, label, secret: key, more: baseUrl() }));
    return [manyPart(rows, { testid: "created-key", file: "new-keys.csv", columns: "id,label,key,base_url" }), clientPart(keys[0].key), instead];
  }

  async #create() {
    const mine = view;
    const body = JSON.stringify(this.#wanted());
    if (body !== this.#attempt.body) this.#attempt = { name: attemptName(), body };
    let made;
    try {
      made = await api("POST", "/keys", { body, headers: { "idempotency-key": this.#attempt.name } });
    } catch (error) {
      // A refused attempt is over; only one without an answer is to be repeated as the same.
      if (!["unsure", "unavailable", "between", "odd"].includes(error.name)) this.#attempt = { name: "", body: "" };
      throw error;
    }
    this.#attempt = { name: "", body: "" };
    // What was shown before may not have been copied yet.
    const earlier = created ? [...secretsOf(created), ...created.earlier] : [];
    created = { keys: made.keys ?? [made], claims: new Map(), claiming: null, isMany: Boolean(made.keys), earlier };
    // The form has gone with its view; what it has made waits where keys are created.
    if (view !== mine) {
      notify("status", text("createdElsewhere"));
      return;
    }
    for (const id of ["label", "limit", "expires"]) $(id).value = "";
    this.#markPreset();
    await this.#told();
  }

  async #told() {
    this.show();
    $("created").focus();
    await this.#done();
  }

  #wanted() {
    const wanted = { label: $("label").value.trim() || undefined };
    if (this.#isMany) wanted.count = wholeNumber($("count"), COUNT);
    wanted.daily_limit = limitIn($("limit"));
    wanted.expires_at = (!this.#isShort && futureIn($("expires"))) || undefined;
    return wanted;
  }

  async #claim() {
    const mine = view;
    const wanted = created;
    wanted.claiming ??= claimAll(wanted).finally(() => { wanted.claiming = null; });
    await wanted.claiming;
    if (view === mine && created === wanted) await this.#told();
  }

  #close() {
    forgetCreated();
    this.show();
    $("label").focus();
  }
}

// Label and secret of each key, be it a link that gives one.
function secretsOf(batch) {
  return batch.keys.map(({ id, label, key }) => ({ label, secret: batch.claims.has(id) ? wholeUrl(batch.claims.get(id).url) : key }));
}

// What was created before it, until it is hidden.
function earlierPart(rows) {
  return make("div", { className: "piece" },
    make("p", { className: "name", textContent: text("createdEarlier") }),
    make("ol", { className: "many" }, ...rows.map((row) => secretLine(row, "earlier-secret", "copy-earlier"))));
}

function secretLine({ label, secret }, testid, copyId) {
  const code = make("code", { textContent: secret, translate: false });
  code.dataset.testid = testid;
  return make("li", {},
    make("span", { className: "free", dir: "auto", textContent: label || text("noLabel") }), code,
    copyButton(label || secret, copyId, () => code));
}

const hasClaims = () => Boolean(created) && created.claims.size === created.keys.length;

const claimRows = ({ keys, claims }) => keys.map(({ id, label }) => ({ id, label, secret: wholeUrl(claims.get(id).url), more: claims.get(id).expires_at }));

// One link after the other; when one fails, those that were made are kept for the next attempt.
async function claimAll(wanted) {
  for (const { id } of wanted.keys.filter((key) => !wanted.claims.has(key.id))) {
    if (created !== wanted) return;
    wanted.claims.set(id, await api("POST", `${keyPath(id)}/claim`, { body: {} }));
    if (wanted.isMany && $("claim-progress")) $("claim-progress").textContent = text("claimProgress")(number(wanted.claims.size), number(wanted.keys.length));
  }
}

// Many secrets: one line each, and all of them at once as text or as a file.
function manyPart(rows, { testid, file, columns }) {
  const all = make("pre", { id: "created-all", className: "unseen", ariaHidden: "true", textContent: rows.map(({ label, secret }) => (label ? `${label}\t${secret}` : secret)).join("\n") });
  const copyAll = copyButton(null, "copy-all", () => all, text("copyAll"));
  const save = make("button", { type: "button", textContent: text("saveCsv") });
  save.dataset.testid = "save-csv";
  save.addEventListener("click", () => download(file, csvOf(columns, rows)));
  const lines = rows.map((row) => secretLine(row, testid, "copy-key"));
  return make("div", { className: "handout" },
    make("div", { className: "choices start" }, copyAll, save), all,
    make("ol", { className: "many" }, ...lines));
}

// What holders of many keys need besides these.
function clientPart(key) {
  return make("div", { className: "handout" },
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("baseUrl") }), copyable("code", "baseUrl", "base", baseUrl())),
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("toTry") }), copyable("pre", "toTry", "curl", curlLine(baseUrl(), key))));
}

// A cell that a spreadsheet would run gets a `'` before it.
const csvCell = (value) => `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;

function csvOf(columns, rows) {
  const lines = rows.map(({ id, label, secret, more }) => [id, label, secret, more].map(csvCell).join(","));
  return `${[columns, ...lines].join("\r\n")}\r\n`;
}
