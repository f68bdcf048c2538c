// One key: its usage, its last requests, its audit trail, and changes to it.
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
      if (!(error instanceof Problem) || error.name !== "gone") throw error;
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
