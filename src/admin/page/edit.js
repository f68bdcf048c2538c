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
      if (!(error instanceof Problem) || error.name !== "changed") throw error;
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
