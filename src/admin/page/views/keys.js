// The list of keys, with search, filters, order and pages, and changes to each key.
addTexts({
  keys: ["Keys", "密钥"],
  keyList: ["List of keys", "密钥列表"],
  search: ["Search", "搜索"],
  searchHint: ["Label, id, key or its hash", "标签、编号、密钥或其哈希"],
  state: ["State", "状态"],
  sort: ["Order", "排序"],
  anyState: ["All states", "全部状态"],
  sortIssued: ["Oldest first", "最早的在前"],
  sortNewest: ["Newest first", "最新的在前"],
  sortLabel: ["By label", "按标签"],
  sortNearest: ["Nearest to limit", "最接近上限"],
  columnKey: ["Key", "密钥"],
  columnUsed: ["Used today", "今日已用"],
  columnLeft: ["Left", "剩余"],
  columnLast: ["Last used", "最近使用"],
  columnActions: ["Actions", "操作"],
  never: ["Never", "从未"],
  noKeys: ["There are no keys yet. Create the first one above.", "还没有密钥，请在上方创建。"],
  noMatch: ["No key matches. Try another word or state.", "没有匹配的密钥，请换个关键词或状态。"],
  shownAll: [(count) => `All ${count} shown`, (count) => `已显示全部 ${count} 个`],
  shownSome: [(count) => `The first ${count} shown`, (count) => `已显示前 ${count} 个`],
  of: [(what, whose) => `${what}: ${whose}`, (what, whose) => `${what}：${whose}`],
  resetShort: ["Reset", "重置"],
  enable: ["Enable", "启用"],
  disableDone: ["The key was disabled.", "密钥已停用。"],
  enableDone: ["The key was enabled.", "密钥已启用。"],
  export: ["Export CSV", "导出 CSV"],
  exportDone: ["The keys were exported: hashes and settings, no secrets.", "密钥已导出：只含哈希和设置，不含密钥本身。"],
  import: ["Import CSV", "导入 CSV"],
  importTitle: ["Import keys", "导入密钥"],
  importFile: ["CSV file", "CSV 文件"],
  importRows: ["Preview", "将会发生什么"],
  importHint: [
    "You see a preview first; nothing is changed until you confirm. Columns: key or key_sha256, and optionally label, daily_limit, expires_at, disabled.",
    "先预览结果，确认之前不会有任何改动。列：key 或 key_sha256，可选 label、daily_limit、expires_at、disabled。",
  ],
  importSum: [
    (fresh, same, conflicts) => `New: ${fresh}. Known already: ${same}. In conflict: ${conflicts}. Nothing has been changed yet.`,
    (fresh, same, conflicts) => `新增 ${fresh} 个，已存在 ${same} 个，冲突 ${conflicts} 个。尚未作任何改动。`,
  ],
  importYes: [(count) => `Import (${count} new)`, (count) => `导入（新增 ${count} 个）`],
  importMore: [(count) => `And ${count} more lines.`, (count) => `还有 ${count} 行。`],
  importDone: [
    (fresh, same, conflicts) => `Imported. New: ${fresh}, known already: ${same}, left out as conflicts: ${conflicts}.`,
    (fresh, same, conflicts) => `导入完成：新增 ${fresh} 个，已存在 ${same} 个，因冲突略过 ${conflicts} 个。`,
  ],
  line: ["Line", "行"],
  labelName: ["Label", "标签"],
  outcome: ["Outcome", "结果"],
  outcomes: {
    new: ["New", "新增"],
    unchanged: ["Known already", "已存在"],
    conflict: ["Conflict", "冲突"],
    invalid: ["Not valid", "无效"],
  },
});

addProblems({
  changedTo: [
    ({ detail }) => `This key has been changed in the meantime: ${detail}. Nothing was done; try again if you still want to.`,
    ({ detail }) => `这个密钥刚被别人修改过：${detail}。操作没有执行，如仍需要请重试。`,
  ],
});

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
    if (!(error instanceof Problem) || !["version_changed", "key_not_found"].includes(error.name)) throw error;
    const present = error.name === "version_changed" ? await fetchKey(key.id) : null;
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
    if (file.size > MAX_FILE_LEN) throw new Problem("request_too_large");
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
  const known = textIn("outcomes", outcome) ?? outcome;
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
startImport();
