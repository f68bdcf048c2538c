// The audit trail: who did what to which key, with the values before and after.
const FIELDS = ["label", "daily_limit", "expires_at", "disabled", "key", "used", "grace_until"];

class AuditView {
  #list = new AuditList({ list: $("entries"), more: $("more"), parameters: () => this.#parameters(), isOfOneKey: false });

  constructor() {
    this.#showActions();
    onFilterChange($("filters"), () => load());
  }

  load() {
    return this.#list.load().then(() => { this.isLoaded = true; });
  }

  show() {
    this.#showActions();
    if (!this.isLoaded) return;
    this.#list.show();
    setText($("empty"), this.#list.entries.length ? null : text("noEntries"));
  }

  #parameters() {
    const value = (id) => $(id).value.trim();
    return { key: value("key"), action: value("action"), token_id: value("token-id").toLowerCase(), from: value("from"), to: value("to"), limit: 50 };
  }

  #showActions() {
    const chosen = $("action").value;
    const options = [["", text("anyAction")], ...Object.entries(text("actions"))];
    $("action").replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
    $("action").value = chosen;
  }
}

// Entries, newest first, page by page.
class AuditList {
  entries = [];
  #next = null;
  #parts;
  #latestRequest = 0;

  constructor(parts) {
    this.#parts = parts;
    parts.more.addEventListener("click", () => run(async () => {
      const before = this.entries.length;
      await this.#read(this.#next);
      this.show();
      parts.list.children[before]?.querySelector("a")?.focus();
    }, parts.more));
  }

  load() {
    return this.#read();
  }

  async #read(before) {
    const mine = ++this.#latestRequest;
    const page = await api("GET", `/audit?${query({ ...this.#parts.parameters(), before })}`);
    if (mine !== this.#latestRequest) return;
    this.entries = before ? [...this.entries, ...page.entries] : page.entries;
    this.#next = page.next;
  }

  show() {
    const { list, more, isOfOneKey } = this.#parts;
    list.replaceChildren(...this.entries.map((entry) => auditEntry(entry, isOfOneKey)));
    more.hidden = this.#next === null;
  }
}

function auditEntry(entry, isOfOneKey) {
  const details = detailWords(entry);
  const by = [
    entry.token_id ? text("byToken")(entry.token_id) : null,
    entry.ip ? text("fromAddress")(entry.ip) : null,
  ].filter(Boolean);
  const key = !isOfOneKey && entry.key_id ? [keyLink(entry.key_id, entry.label || entry.key_id)] : [];
  const known = Object.hasOwn(text("actions"), entry.action) ? text("actions")[entry.action] : entry.action;
  return make("li", {},
    make("div", { className: "what" },
      make("span", { className: entry.action === "admin.refused" ? "lamp bad" : "" }, known, ...(key.length ? [" ", ...key] : [])),
      timeElement(entry.at, shortMoment)),
    ...(details.length ? [make("ul", { className: "changes" }, ...details.map((words) => make("li", { dir: "auto", textContent: words })))] : []),
    make("div", { className: "about" }, ...by.map((words) => make("span", { textContent: words }))));
}

// One text per field of an entry: before and after, or the value alone.
function detailWords({ action, detail }) {
  if (!detail) return [];
  const isSet = (value) => value !== null && value !== undefined && value !== "" && value !== false;
  return Object.entries(detail).flatMap(([field, value]) => {
    if (value && typeof value === "object" && "before" in value) return [changeWords(field, value.before, value.after)];
    if (field === "label" && action !== "key.delete") return [];
    return isSet(value) ? [text("fieldIs")(fieldName(field), valueWords(field, value))] : [];
  });
}

const changeWords = (field, before, after) => text("fieldChanged")(fieldName(field), valueWords(field, before), valueWords(field, after));

const fieldName = (field) => (Object.hasOwn(text("fields"), field) ? text("fields")[field] : field);

function valueWords(field, value) {
  if (field === "daily_limit" && typeof value === "number") return limitWords(value);
  if (typeof value === "boolean") return text(value ? "yes" : "no");
  if (value === null || value === undefined || value === "") return text("none");
  if (/(_at|_until)$/.test(field) && !Number.isNaN(Date.parse(value))) return date(value);
  if (typeof value === "number") return number(value);
  return typeof value === "string" ? `“${value}”` : JSON.stringify(value);
}

// The differences between two versions of a key, as text.
function differences(before, after) {
  const changed = FIELDS.filter((field) => field in after && before[field] !== after[field]);
  return changed.map((field) => changeWords(field, before[field], after[field])).join(text("and")) || text("otherwise");
}

addView("audit", AuditView);
