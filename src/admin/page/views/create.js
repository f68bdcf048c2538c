// Creates one key or several, and shows them once.
addTexts({
  create: ["Create", "创建"],
  createTitle: ["Create keys", "创建密钥"],
  createOne: ["Create a key", "创建新密钥"],
  moreOptions: ["Several keys or an expiry", "批量创建或设置有效期"],
  howMany: ["How many", "数量"],
  one: ["One key", "一个密钥"],
  many: ["Many keys", "多个密钥"],
  labelExample: ["Alice, 2026-11-22", "用户A-2026-11-22"],
  patternField: ["Label pattern (optional)", "标签模板（可选）"],
  patternExample: ["workshop-{n}", "workshop-{n}"],
  patternHint: ["{n} becomes 1, 2, 3 …, and 01, 02, 03 … from ten keys on", "{n} 会变成 1、2、3 …；十个及以上为 01、02、03 …"],
  count: ["Number of keys", "密钥数量"],
  limitDefault: ["default", "默认值"],
  generate: ["Generate key", "生成密钥"],
  createdTitle: [(count, said) => (count === 1 ? "The new key" : `${said} new keys`), (count, said) => (count === 1 ? "新密钥" : `${said} 个新密钥`)],
  createdDone: ["Done, hide", "完成并隐藏"],
  createdHint: [
    (count) => (count === 1 ? "Shown only this once. Copy it now and hand it over in a safe way." : "Shown only this once. Copy them now and hand them over in a safe way."),
    () => "密钥只显示这一次，请立即复制，并通过安全的渠道发送给用户。",
  ],
  createdEarlier: ["Created before", "之前创建的"],
  createdElsewhere: ["Created. Open “Create” to copy what is shown only once.", "已创建。请打开“创建”页面复制只显示一次的内容。"],
  claimProgress: [(done, all) => `${done} of ${all} links`, (done, all) => `已生成 ${done} / ${all} 个链接`],
  claimInstead: [(count) => (count === 1 ? "Make a claim link instead" : "Make claim links instead"), () => "改用领取链接"],
  claimInsteadHint: [
    (count) => (count === 1 ? "Send a link that shows the secret once. The secret above then stops working." : "Send links that each show a secret once. The secret above that it belongs to then stops working."),
    (count) => (count === 1 ? "发送一个只显示一次密钥的链接；上面的密钥届时失效。" : "为每个密钥发送一个只显示一次密钥的链接；链接打开后，上面对应的密钥失效。"),
  ],
  copyAll: ["Copy all", "全部复制"],
  saveCsv: ["Download CSV", "下载 CSV"],
});

let created = null;

function discardCreated() {
  created = null;
}

class CreateView {
  #form = new CreateForm($("create-here"), { isShort: false, done: () => {} });

  async load() {}

  show() {
    this.#form.show();
  }
}

// The form is short above the list of keys and complete in its own view.
class CreateForm {
  #isShort;
  #done;
  #markPreset;
  // Idempotency key and body of the last attempt. A retry with the same body has the same key.
  #attempt = { key: "", body: "" };

  constructor(place, { isShort, done }) {
    place.replaceWith($("create-form-part").content.cloneNode(true));
    translateIn($("create-card"));
    this.#isShort = isShort;
    this.#done = done;
    for (const id of ["how-many", "expiry-part"]) $(id).hidden = isShort;
    $("more-options").hidden = !isShort;
    this.#markPreset = addPresets($("limit"), $("create-form"));
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
    $("created-what").replaceChildren(...this.#result(), ...(created?.earlier.length ? [earlierSecrets(created.earlier)] : []));
  }

  #showFields() {
    const isMany = this.#isMany;
    $("count-part").hidden = !isMany;
    $("label-name").textContent = text(isMany ? "patternField" : "labelField");
    $("label").placeholder = text(isMany ? "patternExample" : "labelExample");
    setText($("label-hint"), isMany ? text("patternHint") : null);
    if (isMany) $("label").setAttribute("aria-describedby", "label-hint");
    else $("label").removeAttribute("aria-describedby");
  }

  #result() {
    // A hidden empty handout, so that scripts find the elements before a key is created.
    if (!created) return [handout("", baseUrl())];
    const { keys, isMany } = created;
    if (hasClaims()) {
      if (isMany) return [secretList(claimRows(created), { testid: "created-link", file: "claim-links.csv", columns: "id,label,claim_link,expires_at" })];
      return [strong(copyableText("code", "claimLink", "claim", claimRows(created)[0].secret))];
    }
    const button = make("button", { type: "button", textContent: text("claimInstead")(keys.length) });
    button.dataset.testid = "claim-instead";
    button.addEventListener("click", () => run(() => this.#claim(), button));
    const instead = make("div", { className: "choices start" }, button, make("p", { className: "hint", textContent: text("claimInsteadHint")(keys.length) }),
      make("p", { id: "claim-progress", className: "hint", role: "status" }));
    if (!isMany) return [handout(keys[0].key, baseUrl()), instead];
    const rows = keys.map(({ id, label, key }) => ({ id, label, secret: key, more: baseUrl() }));
    return [secretList(rows, { testid: "created-key", file: "new-keys.csv", columns: "id,label,key,base_url" }), clientSettings(keys[0].key), instead];
  }

  async #create() {
    const mine = view;
    const body = JSON.stringify(this.#request());
    if (body !== this.#attempt.body) this.#attempt = { key: newIdempotencyKey(), body };
    let response;
    try {
      response = await api("POST", "/keys", { body, headers: { "idempotency-key": this.#attempt.key } });
    } catch (error) {
      // A rejected attempt is over. Only one without a response is retried with the same key.
      if (!["unsure", "store_unavailable", "between", "odd"].includes(error.name)) this.#attempt = { key: "", body: "" };
      throw error;
    }
    this.#attempt = { key: "", body: "" };
    // Earlier secrets may not have been copied yet.
    const earlier = created ? [...secretsOf(created), ...created.earlier] : [];
    created = { keys: response.keys ?? [response], claims: new Map(), claiming: null, isMany: Boolean(response.keys), earlier };
    // The view was left meanwhile; the created keys are shown in the view for creation.
    if (view !== mine) {
      notify("status", text("createdElsewhere"));
      return;
    }
    for (const id of ["label", "limit", "expires"]) $(id).value = "";
    this.#markPreset();
    await this.#showCreated();
  }

  async #showCreated() {
    this.show();
    $("created").focus();
    await this.#done();
  }

  #request() {
    const request = { label: $("label").value.trim() || undefined };
    if (this.#isMany) request.count = wholeNumber($("count"), COUNT);
    request.daily_limit = limitIn($("limit"));
    request.expires_at = (!this.#isShort && futureIn($("expires"))) || undefined;
    return request;
  }

  async #claim() {
    const mine = view;
    const batch = created;
    batch.claiming ??= claimAll(batch).finally(() => { batch.claiming = null; });
    await batch.claiming;
    if (view === mine && created === batch) await this.#showCreated();
  }

  #close() {
    discardCreated();
    this.show();
    $("label").focus();
  }
}

// Label and secret of each key, or its claim link.
function secretsOf(batch) {
  return batch.keys.map(({ id, label, key }) => ({ label, secret: batch.claims.has(id) ? absoluteUrl(batch.claims.get(id).url) : key }));
}

// Secrets of earlier batches, until they are hidden.
function earlierSecrets(rows) {
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

const claimRows = ({ keys, claims }) => keys.map(({ id, label }) => ({ id, label, secret: absoluteUrl(claims.get(id).url), more: claims.get(id).expires_at }));

// Creates one claim link after the other. If one fails, the next attempt continues from there.
async function claimAll(batch) {
  for (const { id } of batch.keys.filter((key) => !batch.claims.has(key.id))) {
    if (created !== batch) return;
    batch.claims.set(id, await api("POST", `${keyPath(id)}/claim`, { body: {} }));
    if (batch.isMany && $("claim-progress")) $("claim-progress").textContent = text("claimProgress")(number(batch.claims.size), number(batch.keys.length));
  }
}

// Several secrets: one line each, and all of them as text or as a file.
function secretList(rows, { testid, file, columns }) {
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

// What all holders of these keys need.
function clientSettings(key) {
  return make("div", { className: "handout" },
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("baseUrl") }), copyableText("code", "baseUrl", "base", baseUrl())),
    make("div", { className: "piece" },
      make("p", { className: "name", textContent: text("toTry") }), copyableText("pre", "toTry", "curl", curlCommand(baseUrl(), key))));
}

// A cell that a spreadsheet would run as a formula gets an apostrophe in front of it.
const csvCell = (value) => `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;

function csvOf(columns, rows) {
  const lines = rows.map(({ id, label, secret, more }) => [id, label, secret, more].map(csvCell).join(","));
  return `${[columns, ...lines].join("\r\n")}\r\n`;
}

addView("create", CreateView);
