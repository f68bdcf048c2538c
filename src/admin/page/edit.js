// The form in which a key's label, limit and expiry are changed.
class EditForm {
  #key = null;
  // The fields as they were filled in.
  #filled = "";
  #saved;
  #markPreset;

  // `saved` is called with the key as it is then.
  constructor(saved) {
    this.#saved = saved;
    this.#markPreset = startPresets($("limit"), $("edit-form"));
    $("undo").addEventListener("click", () => this.fill(this.#key));
    $("edit-form").addEventListener("input", () => this.#showButtons());
    $("edit-form").addEventListener("submit", (event) => {
      event.preventDefault();
      run(() => this.#save(), $("save"));
    });
  }

  // What was typed and not yet saved is kept.
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
    for (const id of ["limit", "expires"]) markBad($(id), false);
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
    if (!(await this.#isMeant(changes))) return;
    const key = await this.#sendOrAsk(changes);
    if (view !== shown || !key) return;
    this.fill(key);
    this.#saved(key);
  }

  // A key that is to stop is asked for once.
  async #isMeant({ disabled, expires_at: at }) {
    if (disabled) return confirmed({ title: text("disableTitle"), subject: subjectOf(this.#key), words: text("disableText"), yes: text("disable"), danger: true });
    if (at && Date.parse(at) <= Date.now()) return confirmed({ title: text("expireTitle"), subject: subjectOf(this.#key), words: text("expireText"), yes: text("save"), danger: true });
    return true;
  }

  async #sendOrAsk(changes) {
    const change = (version) => orLook(() => api("PATCH", keyPath(this.#key.id), { body: changes, version }));
    try {
      await change(this.#key.version);
    } catch (error) {
      if (!(error instanceof Problem) || error.name !== "changed") throw error;
      const present = await fetchKey(this.#key.id);
      const isWanted = await confirmed({
        title: text("changedTitle"), subject: subjectOf(present),
        words: text("changedEdit")(differences(this.#key, present)), yes: text("changedSave"),
      });
      if (!isWanted) {
        // What was typed stays, on top of the key as it is.
        await lookAgain(view).catch(() => {});
        return null;
      }
      await change(present.version);
    }
    return fetchKey(this.#key.id);
  }
}
