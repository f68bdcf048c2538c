// The audit trail: who did what to which key, with the values before and after.
addTexts({
  audit: ["Audit", "审计"],
  auditHint: ["Every change and every rejected attempt, newest first", "所有改动和被拒绝的尝试，最新的在前"],
  auditKey: ["Key", "密钥"],
  auditKeyHint: ["Id or whole key", "编号或完整密钥"],
  auditTokenHint: ["Its id", "令牌编号"],
  auditAction: ["Action", "操作"],
  auditToken: ["Token", "令牌"],
  auditDays: ["Days are the gateway's, in the time zone that Settings shows.", "日期以网关的时区为准（见“设置”）。"],
  from: ["From", "从"],
  to: ["To", "到"],
  anyAction: ["All actions", "全部操作"],
  noEntries: ["No entry matches.", "没有匹配的记录。"],
  byToken: [(id) => `by token ${id}`, (id) => `令牌 ${id}`],
  fromAddress: [(ip) => `from ${ip}`, (ip) => `来自 ${ip}`],
  actions: {
    "key.create": ["Key created", "创建密钥"],
    "key.update": ["Key changed", "修改密钥"],
    "key.rotate": ["Key rotated", "更换密钥"],
    "key.reset_usage": ["Count reset", "重置用量"],
    "key.delete": ["Key deleted", "删除密钥"],
    "key.claim.offer": ["Claim link made", "生成领取链接"],
    "key.claim.open": ["Claim link opened", "领取链接被打开"],
    "key.import": ["Key imported", "导入密钥"],
    "admin.refused": ["Attempt rejected", "拒绝访问"],
    "admin.read": ["Read", "查看"],
    "store.backup": ["Backup downloaded", "下载备份"],
    "node.release": ["Node released", "释放节点"],
  },
  fields: {
    label: ["label", "标签"],
    daily_limit: ["requests a day", "请求限制（次/日）"],
    expires_at: ["expiry", "有效期"],
    disabled: ["disabled", "停用"],
    key: ["key", "密钥"],
    used: ["used today", "今日已用"],
    used_today: ["used today", "今日已用"],
    grace_until: ["old secret works until", "旧密钥可用至"],
    claim_expires_at: ["link works until", "链接有效期至"],
    call: ["call", "接口"],
    code: ["reason", "原因"],
    node: ["node", "节点"],
    id: ["journal", "journal"],
    seen_at: ["last seen", "最后联系"],
    leased_units: ["counted as used", "算作已用"],
    leased_keys: ["of keys", "涉及密钥"],
    open_requests: ["counted as failed", "算作失败"],
  },
  fieldIs: [(field, value) => `${field}: ${value}`, (field, value) => `${field}：${value}`],
  fieldChanged: [(field, before, after) => `${field}: ${before} → ${after}`, (field, before, after) => `${field}：${before} → ${after}`],
  yes: ["yes", "是"],
  no: ["no", "否"],
  none: ["none", "无"],
  and: ["; ", "；"],
  otherwise: ["something that is not shown here", "此处未显示的内容"],
});

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
    const options = [["", text("anyAction")], ...Object.keys(TEXTS.actions).map((name) => [name, textIn("actions", name)])];
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
  const known = textIn("actions", entry.action) ?? entry.action;
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

const fieldName = (field) => textIn("fields", field) ?? field;

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
