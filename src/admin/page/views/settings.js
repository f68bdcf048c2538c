// Settings and health of the process.
addTexts({
  settings: ["Settings", "设置"],
  health: ["Health", "运行状况"],
  store: ["Store", "存储"],
  version: ["Version", "版本"],
  started: ["Started", "启动时间"],
  startedAt: [(at, time) => `${at} (${time} ago)`, (at, time) => `${at}（${time}前）`],
  clockName: ["Clock", "时钟"],
  dayName: ["Day", "当前日期"],
  resetsName: ["Count starts again", "重新计数"],
  settingsRead: ["Settings", "设置"],
  settingsHint: ["As this process has read them; secrets are masked", "当前进程读取的值，机密内容已隐藏"],
  setting: ["Name", "名称"],
  value: ["Value", "值"],
  notSet: ["not set", "未设置"],
});

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
