// Usage of today and of the last 30 days, and the keys nearest to their limit.
addTexts({
  overview: ["Overview", "概览"],
  activeKeys: ["Active keys", "活跃密钥"],
  errors: ["Errors", "错误"],
  andRejected: [(count) => `and ${count} rejected`, (count) => `另有 ${count} 次被拒绝`],
  ofKeys: [(count) => `used today, of ${count}`, (count) => `今日使用过，共 ${count} 个`],
  ofRequests: [(share) => `${share} of requests`, (share) => `占请求的 ${share}`],
  nearest: ["Nearest to their limit", "最接近上限的密钥"],
  nearestHint: ["Today, of the keys that work and have a limit", "今日，仅限可用且有上限的密钥"],
  todayIs: [(day) => `Today, ${day}`, (day) => `今日 ${day}`],
  noNearest: ["No key with a limit was used today.", "今日没有用过有上限的密钥。"],
  versionIs: [(version) => `Version ${version}`, (version) => `版本 ${version}`],
  runningFor: [(time) => `Running for ${time}`, (time) => `已运行 ${time}`],
  resetsIn: [(time, zone) => `The day ends in ${time} (${zone})`, (time, zone) => `${time}后进入新的一天（${zone}）`],
});

const NEAREST_KEYS = 8;

class OverviewView {
  #chart = new MonthChart($("month"), "h3");

  async load() {
    const today = await todayReport();
    const [month, nearest, status] = await Promise.all([
      monthReport(today.day),
      api("GET", `/keys?${query({ sort: "nearest_limit", limit: NEAREST_KEYS })}`),
      catchProblem(api("GET", "/status")),
    ]);
    Object.assign(this, { today, month, status, nearest: nearest.keys.filter(isNearLimit) });
  }

  show() {
    if (!this.today) return;
    const figures = this.month.get(this.today.day) ?? { requests: 0, failed: 0, rejected: 0, tokens: 0 };
    $("day").textContent = text("todayIs")(longDay(this.today.day));
    $("tiles").replaceChildren(
      tile("requests", short(figures.requests), figures.rejected ? text("andRejected")(number(figures.rejected)) : ""),
      tile("activeKeys", number(this.today.active_keys), text("ofKeys")(number(this.today.total_keys))),
      tile("errors", short(figures.failed), errorShare(figures)),
      tile("tokens", short(figures.tokens), tokensUnknown(figures) ?? ""));
    this.#chart.show(daysUpTo(this.today.day, this.month));
    $("no-nearest").hidden = this.nearest.length > 0;
    $("nearest").replaceChildren(...this.nearest.map((key) =>
      make("li", {},
        make("div", { className: "whose" }, keyLink(key.id, named(key)), make("code", { textContent: key.key })),
        usageBar(key),
        make("span", { className: "chips" }, ...chips(key)))));
    $("health").replaceChildren(...(this.status instanceof Problem ? [this.status.describe()] : healthLine(this.status)));
  }
}

// Whether the key is listed among those nearest to their limit.
const isNearLimit = (key) => isLimited(key) && key.used_today > 0 && ["active", "exhausted"].includes(key.state);

const monthBefore = (day) => new Date(Date.parse(day) - (DAYS - 1) * DAY).toISOString().slice(0, 10);

// The gateway's current day, and the number of keys used on it.
const todayReport = () => api("GET", `/usage?${query({ group_by: "day", limit: 1 })}`);

// A report of the 30 days up to `day`, as a map from day to figures.
async function monthReport(day, parameters = {}) {
  const report = await api("GET", `/usage?${query({ from: monthBefore(day), to: day, group_by: "day", ...parameters })}`);
  return new Map(report.items.map((item) => [item.day, { ...item, tokens: item.tokens.total }]));
}

function tile(name, figure, beside) {
  const made = make("div", { className: "tile" },
    make("dt", { textContent: text(name) }),
    make("dd", {}, make("strong", { textContent: figure }), make("span", { className: "soft", textContent: beside })));
  made.dataset.testid = `tile-${name}`;
  return made;
}

// Larger numbers do not fit into a tile.
const short = (value) => (value < 1e6 ? number(value) : compactNumber(value, 3));
const errorShare = ({ requests, failed }) => (failed && requests ? text("ofRequests")(percent(failed / requests)) : "");

function healthLine({ store, version, started_at: started, resets_at: resets, timezone }) {
  const words = [
    text("versionIs")(version),
    text("runningFor")(formatDuration(Date.now() - Date.parse(started))),
    text("resetsIn")(formatDuration(Date.parse(resets) - Date.now()), timezone),
  ];
  return [
    make("span", { className: `lamp ${store.ok ? "good" : "bad"}`, textContent: text(store.ok ? "storeOk" : "storeBad") }),
    ...words.map((part) => make("span", { textContent: part })),
  ];
}

addView("overview", OverviewView);
