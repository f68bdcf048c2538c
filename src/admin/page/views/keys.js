// The list of keys, with search, filters, order and pages, and changes to each key.
const PAGE_LEN = 100;
// The filters, kept while other views are open. They are not in the URL, as a search may be for a key.
const DEFAULT_FILTERS = { search: "", state: "", sort: "issued" };
let filters = { ...DEFAULT_FILTERS };

class KeysView {
  keys = [];
  next = null;
  #latestRequest = 0;
  #form = new CreateForm($("create-here"), { isShort: true, done: () => this.#afterCreation() });

  constructor() {
    for (const [id, value] of Object.entries(filters)) $(id).value = value;
    onFilterChange($("filters"), () => load());
    $("more").addEventListener("click", () => this.#more());
    $("export").addEventListener("click", (event) => run(exportKeys, event.currentTarget));
    $("import").addEventListener("click", openImport);
  }

  async load() {
    const page = await this.#page();
    if (page) ({ keys: this.keys, next: this.next } = page);
    this.isLoaded = true;
  }

  show() {
    this.#form.show();
    if (!this.isLoaded) return;
    $("rows").replaceChildren(...this.keys.map((key) => this.#row(key)));
    this.#showEnd();
  }

  async #page(after) {
    const mine = ++this.#latestRequest;
    filters = { search: $("search").value.trim(), state: $("state").value, sort: $("sort").value };
    const search = await searchParameter(filters.search);
    const page = await api("GET", `/keys?${query({ limit: PAGE_LEN, after, ...filters, search })}`);
    return mine === this.#latestRequest ? page : null;
  }

  #more() {
    return run(async () => {
      const page = await this.#page(this.next);
      if (!page || view !== this) return;
      this.keys.push(...page.keys);
      this.next = page.next;
      const rows = page.keys.map((key) => this.#row(key));
      $("rows").append(...rows);
      this.#showEnd();
      rows[0]?.querySelector("a").focus();
    }, $("more"));
  }

  #showEnd() {
    const isNarrowed = $("search").value.trim() || $("state").value;
    $("more").hidden = this.next === null;
    $("shown").textContent = this.keys.length ? text(this.next === null ? "shownAll" : "shownSome")(number(this.keys.length)) : "";
    setText($("empty"), this.keys.length ? null : text(isNarrowed ? "noMatch" : "noKeys"));
    document.querySelector("table.keys").hidden = this.keys.length === 0;
  }

  #row(key) {
    const cell = (name, className, ...children) => {
      const made = make("td", { className }, ...children);
      if (name) made.dataset.name = text(name);
      return made;
    };
    const row = make("tr", {},
      cell(null, "whose", keyLink(key.id, named(key)), make("code", { textContent: key.key })),
      cell("columnUsed", "", usageBar(key)),
      cell("columnLeft", "number", isLimited(key) ? number(key.remaining) : text("unlimited")),
      cell("columnLast", "soft", key.last_used_at ? timeElement(key.last_used_at, shortDate) : text("never")),
      cell("state", "chips", ...chips(key)),
      cell(null, "actions", ...this.#actions(key)));
    row.dataset.testid = `row-${key.id}`;
    return row;
  }

  #actions(key) {
    const action = (name, testid, work) => {
      const button = make("button", { type: "button", textContent: text(name), ariaLabel: text("of")(text(name), named(key)) });
      button.dataset.testid = `${testid}-${key.id}`;
      button.addEventListener("click", () => this.#change(key, testid, work, button));
      return button;
    };
    const remove = action("remove", "delete", removeKey);
    remove.className = "risky";
    return [action("resetShort", "reset", resetKey), action(key.disabled ? "enable" : "disable", "switch", switchKey), remove];
  }

  // Changes a key, and shows the result.
  #change(key, what, work, pressed) {
    const done = { reset: "resetDone", switch: key.disabled ? "enableDone" : "disableDone", delete: "removeDone" }[what];
    return run(async () => {
      const changed = await changeKey(key, work);
      if (changed === undefined || view !== this) return;
      this.keys = this.keys.flatMap((other) => (other.id !== key.id ? [other] : changed ? [changed] : []));
      this.show();
      notify("status", text(done));
      const button = changed && $("rows").querySelector(`[data-testid="${what}-${CSS.escape(key.id)}"]`);
      (button || $("title")).focus({ preventScroll: true });
    }, pressed);
  }

  async #afterCreation() {
    $("search").value = $("state").value = "";
    await load();
  }
}

// The search parameter. A whole key is replaced by its hash, so that it is in no URL.
async function searchParameter(typed) {
  if (!/^trial-[A-Za-z0-9]+-[0-9]{8}-[A-Za-z0-9]{16,}$/.test(typed) || !globalThis.crypto.subtle) return typed;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(typed));
  return hexadecimal(new Uint8Array(digest));
}

// Changes a key. If it has been changed in the meantime, nothing is done and the differences are shown.
async function changeKey(key, work) {
  try {
    return await reloadIfUnsure(() => work(key));
  } catch (error) {
    if (!(error instanceof Problem) || !["changed", "gone"].includes(error.name)) throw error;
    const present = error.name === "changed" ? await fetchKey(key.id) : null;
    await reload(view).catch(() => {});
    $("title").focus({ preventScroll: true });
    throw present ? new Problem("changedTo", { detail: differences(key, present) }) : error;
  }
}

async function exportKeys() {
  const csv = await api("GET", "/keys/export?format=csv", { headers: { accept: "text/csv" }, timeout: 120000 });
  download(`keys-${new Date().toISOString().slice(0, 10)}.csv`, csv);
  notify("status", text("exportDone"));
}

// Imports keys from a file, after a dry run.
const ROWS_SHOWN = 200;
const MAX_FILE_LEN = 32 * 1024 * 1024;

// The bytes of the file. The gateway checks their encoding.
let importBytes = null;

function openImport() {
  $("import-file").value = "";
  discardImport();
  $("import-dialog").showModal();
}

function discardImport() {
  importBytes = null;
  setText($("import-problem"), null);
  $("import-plan").hidden = true;
  $("import-yes").hidden = true;
  $("import-rows").replaceChildren();
}

const sendImport = (isDry) =>
  api("POST", `/keys/import?${query({ dry_run: isDry })}`, { body: importBytes, headers: { "content-type": "text/csv" }, timeout: 120000 });

const showImportProblem = (words) => setText($("import-problem"), words);

function readImport() {
  discardImport();
  const file = $("import-file").files[0];
  if (!file) return undefined;
  return run(async () => {
    if (file.size > MAX_FILE_LEN) throw new Problem("tooLarge");
    importBytes = await file.arrayBuffer();
    showPlan(await sendImport(true));
  }, $("import-yes"), showImportProblem);
}

function showPlan(plan) {
  const fresh = plan.new;
  $("import-sum").textContent = text("importSum")(number(fresh), number(plan.unchanged), number(plan.conflicts));
  $("import-sum").className = `notice${plan.conflicts ? " warn" : ""}`;
  $("import-rows").replaceChildren(...plan.rows.slice(0, ROWS_SHOWN).map((row) =>
    make("tr", {},
      make("td", { className: "number", textContent: number(row.line) }),
      make("td", { className: "free", dir: "auto", textContent: row.label || text("noLabel") }),
      make("td", {}, outcomeWords(row)))));
  setText($("import-more"), plan.rows.length > ROWS_SHOWN ? text("importMore")(number(plan.rows.length - ROWS_SHOWN)) : null);
  $("import-yes").textContent = text("importYes")(number(fresh));
  $("import-yes").hidden = fresh === 0;
  $("import-plan").hidden = false;
  $("import-plan").focus();
}

function outcomeWords({ outcome, reason }) {
  const known = Object.hasOwn(text("outcomes"), outcome) ? text("outcomes")[outcome] : outcome;
  return reason ? `${known}: ${reason}` : known;
}

function commitImport() {
  return run(async () => {
    const done = await sendImport(false);
    $("import-dialog").close();
    await load();
    notify("status", text("importDone")(number(done.new), number(done.unchanged), number(done.conflicts)));
  }, $("import-yes"), showImportProblem);
}

function startImport() {
  $("import-file").addEventListener("change", readImport);
  $("import-yes").addEventListener("click", commitImport);
  $("import-close").addEventListener("click", () => $("import-dialog").close());
  $("import-dialog").addEventListener("close", discardImport);
}

// Downloads a text as a file, with the byte order mark by which spreadsheets recognise UTF-8.
function download(name, content) {
  const address = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

addView("keys", KeysView);
