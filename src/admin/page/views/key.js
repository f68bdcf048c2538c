// One key: its usage, its last requests, its audit trail, and changes to it.
addTexts({
  key: ["Key", "密钥"],
  backToKeys: ["All keys", "全部密钥"],
  createdAt: [(at) => `Created ${at}`, (at) => `创建于 ${at}`],
  usedAt: [(at) => `Last used ${at}`, (at) => `最近使用 ${at}`],
  neverUsed: ["Never used", "从未使用"],
  expiresAt: [(at) => `Expires ${at}`, (at) => `有效期至 ${at}`],
  totalUsed: [(count) => `${count} used in all`, (count) => `累计使用 ${count} 次`],
  addresses: [(count, exact) => `${count} ${exact === 1 ? "address" : "addresses"} in 24 hours`, (count) => `24 小时内 ${count} 个地址`],
  rejected: ["Rejected", "被拒绝"],
  edit: ["Edit", "编辑"],
  disabledField: ["Disabled: requests are rejected", "停用：拒绝所有请求"],
  save: ["Save", "保存"],
  undo: ["Undo", "撤销"],
  saved: ["Saved. It is in effect from the next request on.", "已保存，从下一个请求起生效。"],
  nothingChanged: ["Nothing was changed.", "没有改动。"],
  changedTitle: ["This key has been changed in the meantime", "这个密钥刚被别人修改过"],
  changedEdit: [
    (what) => `What is different now: ${what}. Save your changes on top of it, or cancel and look at the key first?`,
    (what) => `现在的不同之处：${what}。在此基础上保存你的修改，还是取消并先查看？`,
  ],
  changedSave: ["Save mine", "保存我的修改"],
  expireTitle: ["Let this key expire at once?", "让这个密钥立即过期？"],
  expireText: ["The expiry lies in the past, so its next request is rejected.", "有效期早于现在，它的下一个请求就会被拒绝。"],
  handover: ["Hand over and revoke", "交付与吊销"],
  removeName: ["Delete", "删除"],
  removeHint: ["The key stops for good. Its history and audit trail stay.", "密钥永久失效；用量历史和审计记录保留。"],
  rotateName: ["New secret", "更换密钥"],
  rotateHint: ["Gives the key a new text; label, limit and today's count stay.", "换成新的密钥文本；标签、上限和今日用量不变。"],
  rotateDone: ["The key was rotated.", "密钥已更换。"],
  claimNew: ["Make a claim link", "生成领取链接"],
  claimAgain: ["Replace the link", "更换链接"],
  claimDone: ["The claim link was made.", "领取链接已生成。"],
  claimNoneText: ["Shows the secret once to the person who opens it, so that no secret stays in a chat or a mail.", "向打开链接的人显示一次密钥，聊天记录和邮件中都不会留下密钥。"],
  claimOpenText: [
    (made, expires) => `Made on ${made}; not opened yet. Works until ${expires}.`,
    (made, expires) => `生成于 ${made}，尚未打开，有效期至 ${expires}。`,
  ],
  claimOpenedText: [(made, opened) => `Made on ${made}; opened on ${opened}.`, (made, opened) => `生成于 ${made}，已于 ${opened} 打开。`],
  claimExpiredText: [
    (made, expires) => `Made on ${made}; expired on ${expires} without being opened.`,
    (made, expires) => `生成于 ${made}，未被打开，已于 ${expires} 过期。`,
  ],
  lastRequests: ["Last requests", "最近的请求"],
  failedOnly: ["Failed only", "只看失败"],
  requestsKept: [(days) => (days === 1 ? "Kept for 1 day, newest first" : `Kept for ${days} days, newest first`), (days) => `保留 ${days} 天，最新的在前`],
  noRequests: ["No request yet.", "还没有请求。"],
  noFailed: ["No request has failed.", "没有失败的请求。"],
  requestsNotKept: ["Single requests are not kept. Set USAGE_RETENTION_DAYS to keep them.", "没有保留单个请求。设置 USAGE_RETENTION_DAYS 即可保留。"],
  tokensSum: [(count) => `${count} tokens`, (count) => `${count} 个 Token`],
  milliseconds: [(count) => `${count} ms`, (count) => `${count} 毫秒`],
  secondsOf: [(count) => `${count} s`, (count) => `${count} 秒`],
  keyAudit: ["Audit trail of this key", "这个密钥的操作记录"],
  noAudit: ["No entries yet.", "还没有记录。"],
  goneTitle: ["This key does not exist", "密钥不存在"],
  goneText: ["There is no such key, or it was deleted. Its audit trail is kept.", "没有这个密钥，或已被删除。操作记录仍然保留。"],
});

class KeyView {
  #id;
  #chart = new MonthChart($("month"), "h3");
  #edit = new EditForm((key) => this.#shown(key, "saved"));
  #requests;
  #audit;

  constructor(id) {
    this.#id = id;
    $("title").textContent = text("key");
    this.#requests = new RequestList(id);
    this.#audit = new AuditList({ list: $("audit"), more: $("audit-more"), parameters: () => ({ key: id, limit: 20 }), isOfOneKey: true });
    for (const [button, work, done] of [["reset", resetKey, "resetDone"], ["rotate", rotateKey, "rotateDone"], ["claim", claimKey, "claimDone"], ["remove", removeKey, "removeDone"]]) {
      $(button).addEventListener("click", (event) => this.#change(work, done, event.currentTarget));
    }
  }

  async load() {
    try {
      this.key = await fetchKey(this.#id);
    } catch (error) {
      // The audit trail of a deleted key can still be read.
      if (!(error instanceof Problem) || error.name !== "key_not_found") throw error;
      this.key = null;
      this.isGone = true;
    }
    if (this.key) {
      const { day } = await todayReport();
      const [month, models] = await Promise.all([monthReport(day, { key: this.#id }), modelReport(day, this.#id), this.#requests.load()]);
      Object.assign(this, { day, month, models });
    }
    await this.#audit.load();
  }

  show() {
    if (this.isGone) this.#showGone();
    if (!this.key || !this.month) return;
    $("key-body").hidden = false;
    this.#showWho();
    this.#showToday();
    this.#edit.show(this.key);
    this.#chart.show(daysUpTo(this.day, this.month));
    showModels(this.models);
    this.#showClaim();
    this.#requests.show();
    this.#showAudit();
  }

  #showGone() {
    $("title").textContent = text("goneTitle");
    $("dates").textContent = text("goneText");
    $("refresh").hidden = true;
    $("key-body").hidden = false;
    for (const part of $("key-body").children) part.hidden = !part.contains($("audit"));
    this.#showAudit();
  }

  #showAudit() {
    this.#audit.show();
    $("no-audit").hidden = this.#audit.entries.length > 0;
  }

  #showWho() {
    const { key } = this;
    $("title").textContent = named(key);
    $("title").className = key.label.length > 60 ? "long" : "";
    $("masked").textContent = key.key;
    $("state").replaceChildren(...chips(key));
    $("dates").textContent = [
      key.created_at && text("createdAt")(date(key.created_at)),
      key.last_used_at ? text("usedAt")(date(key.last_used_at)) : text("neverUsed"),
      key.expires_at && text("expiresAt")(date(key.expires_at)),
      text("totalUsed")(number(key.total_used)),
      key.addresses_24h > 0 && text("addresses")(number(key.addresses_24h), key.addresses_24h),
    ].filter(Boolean).join(" · ");
  }

  #showToday() {
    const { key } = this;
    showMeter({ used: key.used_today, limit: key.daily_limit, remaining: key.remaining });
    const today = this.month.get(this.day) ?? { succeeded: 0, failed: 0, refunded: 0, rejected: 0, tokens: 0 };
    $("today-sums").replaceChildren(...pairs([
      ["succeeded", number(today.succeeded)], ["failed", number(today.failed)], ["refunded", number(today.refunded)],
      ["rejected", number(today.rejected)], ["tokens", [number(today.tokens), tokensUnknown(today)].filter(Boolean).join(" · ")],
    ]));
  }

  #showClaim() {
    const { claim } = this.key;
    const state = claimState(claim);
    $("claim-state").textContent = claim
      ? text(`${state}Text`)(date(claim.created_at), date(claim.opened_at ?? claim.expires_at))
      : text("claimNoneText");
    $("claim").textContent = text(state === "claimOpen" ? "claimAgain" : "claimNew");
  }

  // Changes the key, and shows the result.
  #change(work, done, button) {
    return run(async () => {
      const changed = await changeKey(this.key, work);
      if (changed === undefined || view !== this) return;
      if (changed === null) {
        goTo("#/keys", text(done));
        return;
      }
      await this.#shown(changed, done);
    }, button);
  }

  async #shown(key, done) {
    this.key = key;
    this.show();
    notify("status", text(done));
    await this.#audit.load();
    if (view === this) this.#showAudit();
  }
}

async function modelReport(day, key) {
  const report = await api("GET", `/usage?${query({ from: monthBefore(day), to: day, group_by: "model", key, limit: 20 })}`);
  return report.items.map((item) => ({ model: item.model || null, requests: item.requests, tokens: item.tokens.total, tokens_unknown: item.tokens_unknown }));
}

// The form that changes a key's label, limit and expiry.
class EditForm {
  #key = null;
  // The values of the fields when they were filled in.
  #filled = "";
  #saved;
  #markPreset;

  // `saved` is called with the changed key.
  constructor(saved) {
    this.#saved = saved;
    this.#markPreset = addPresets($("limit"), $("edit-form"));
    $("undo").addEventListener("click", () => this.fill(this.#key));
    $("edit-form").addEventListener("input", () => this.#showButtons());
    $("edit-form").addEventListener("submit", (event) => {
      event.preventDefault();
      run(() => this.#save(), $("save"));
    });
  }

  // Shows the key, but keeps unsaved changes.
  show(key) {
    if (this.#key && this.#isChanged()) this.#key = key;
    else this.fill(key);
  }

  fill(key) {
    this.#key = key;
    $("label").value = key.label;
    $("limit").value = String(key.daily_limit);
    writeExpiry($("expires"), key.expires_at);
    $("disabled").checked = key.disabled;
    for (const id of ["limit", "expires"]) setInvalid($(id), false);
    this.#markPreset();
    this.#filled = this.#typed();
    this.#showButtons();
  }

  #typed() {
    return JSON.stringify([$("label").value, $("limit").value, $("expires").value, $("disabled").checked]);
  }

  #isChanged() {
    return this.#typed() !== this.#filled;
  }

  #showButtons() {
    $("undo").hidden = !this.#isChanged();
  }

  // The fields that differ from what was filled in.
  #changes() {
    const [label, limit, expires, disabled] = JSON.parse(this.#filled);
    const changes = {};
    if ($("label").value !== label) changes.label = $("label").value.trim();
    if ($("limit").value !== limit) changes.daily_limit = wholeNumber($("limit"), LIMIT);
    if ($("expires").value !== expires || $("expires").validity.badInput) changes.expires_at = expiryIn($("expires"));
    if ($("disabled").checked !== disabled) changes.disabled = $("disabled").checked;
    return changes;
  }

  async #save() {
    const changes = this.#changes();
    if (!Object.keys(changes).length) {
      notify("status", text("nothingChanged"));
      return;
    }
    const shown = view;
    if (!(await this.#isConfirmed(changes))) return;
    const key = await this.#sendOrConfirm(changes);
    if (view !== shown || !key) return;
    this.fill(key);
    this.#saved(key);
  }

  // A change that stops the key needs a confirmation.
  async #isConfirmed({ disabled, expires_at: at }) {
    if (disabled) return confirmDialog({ title: text("disableTitle"), subject: subjectOf(this.#key), words: text("disableText"), yes: text("disable"), danger: true });
    if (at && Date.parse(at) <= Date.now()) return confirmDialog({ title: text("expireTitle"), subject: subjectOf(this.#key), words: text("expireText"), yes: text("save"), danger: true });
    return true;
  }

  async #sendOrConfirm(changes) {
    const change = (version) => reloadIfUnsure(() => api("PATCH", keyPath(this.#key.id), { body: changes, version }));
    try {
      await change(this.#key.version);
    } catch (error) {
      if (!(error instanceof Problem) || error.name !== "version_changed") throw error;
      const present = await fetchKey(this.#key.id);
      const isConfirmed = await confirmDialog({
        title: text("changedTitle"), subject: subjectOf(present),
        words: text("changedEdit")(differences(this.#key, present)), yes: text("changedSave"),
      });
      if (!isConfirmed) {
        // The unsaved changes stay, on top of the current key.
        await reload(view).catch(() => {});
        return null;
      }
      await change(present.version);
    }
    return fetchKey(this.#key.id);
  }
}

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

addView("key", KeyView, { inNav: false });
