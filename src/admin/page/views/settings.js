// Settings and health of the process.
class SettingsView {
  async load() {
    this.status = await api("GET", "/status");
  }

  show() {
    if (!this.status) return;
    const { store, version, started_at: started, now, day, timezone, resets_at: resets, settings } = this.status;
    $("health").replaceChildren(...pairs([
      ["store", make("span", { className: `lamp ${store.ok ? "good" : "bad"}`, textContent: text(store.ok ? "storeOk" : "storeBad") })],
      ["version", version],
      ["started", text("startedAt")(date(started), formatDuration(Date.now() - Date.parse(started)))],
      ["clockName", date(now)],
      ["dayName", `${longDay(day)} (${timezone})`],
      ["resetsName", date(resets)],
    ]));
    $("settings").replaceChildren(...settings.map(({ name, value }) =>
      make("tr", {}, make("th", { scope: "row" }, make("code", { textContent: name })), make("td", { className: "free" }, settingValue(value)))));
  }
}

function settingValue(value) {
  if (value === null || value === undefined || value === "") return make("span", { className: "unknown", textContent: text("notSet") });
  return make("code", { textContent: String(value), dir: "auto" });
}

addView("settings", SettingsView);
