// The texts of the page in English and Chinese, and numbers and times in the current language. Times are
// in the browser's time zone; days are calendar days of the gateway.

// Pairs of texts by name, or groups of them. Inserted values are already formatted.
const TEXTS = { problems: {} };

// Adds texts, each in English and in Chinese. Scripts add those that they show.
const addTexts = (texts) => Object.assign(TEXTS, texts);

// Adds the texts of problems, by error code or by a name of the page's own.
const addProblems = (texts) => Object.assign(TEXTS.problems, texts);

let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

const inLanguage = (pair) => pair[language === "zh" ? 1 : 0];

const text = (name) => inLanguage(TEXTS[name]);

// A text of a group, or null if the group does not have this name, which the gateway has sent.
const textIn = (group, name) => (Object.hasOwn(TEXTS[group], name ?? "") ? inLanguage(TEXTS[group][name]) : null);

addTexts({
  other: ["中文", "English"],
  otherLang: ["zh-CN", "en"],
  betweenSentences: [" ", ""],
  reveal: ["Show", "显示"],
  conceal: ["Hide", "隐藏"],
  loading: ["Loading…", "正在查询…"],
  refresh: ["Refresh", "刷新"],
  today: ["Today", "今日"],
  requests: ["Requests", "请求"],
  tokens: ["Tokens", "Token"],
  succeeded: ["Succeeded", "成功"],
  failed: ["Failed", "失败"],
  refunded: ["Refunded", "已退还"],
  tokensUnknown: [(unknown, all) => `${unknown} of ${all} without figures`, (unknown, all) => `${all} 次中有 ${unknown} 次无 Token 数据`],
  moment: [(day, clock, zone) => `${day}, ${clock} ${zone}`, (day, clock, zone) => `${day} ${clock} ${zone}`],
  days: [(n) => (n === 1 ? "1\u00a0day" : `${n}\u00a0days`), (n) => `${n}\u00a0天`],
  hours: [(n) => `${n}\u00a0h`, (n) => `${n}\u00a0小时`],
  minutes: [(n) => `${n}\u00a0min`, (n) => `${n}\u00a0分钟`],
  seconds: [(n) => `${n}\u00a0s`, (n) => `${n}\u00a0秒`],
});

// The browser's variety of the current language, which determines the format of dates.
function locale() {
  const own = navigator.language;
  if (own.toLowerCase().startsWith(language)) return own;
  return language === "zh" ? "zh-CN" : "en";
}

const number = (value) => new Intl.NumberFormat(locale()).format(value);
const compactNumber = (value, digits = 3) =>
  new Intl.NumberFormat(locale(), { notation: "compact", maximumSignificantDigits: digits }).format(value);
const percent = (share) => new Intl.NumberFormat(locale(), { style: "percent" }).format(share);
const formatted = (at, options) => new Intl.DateTimeFormat(locale(), options).format(new Date(at));

const CLOCK = { hour: "numeric", minute: "2-digit" };
const DATE = { month: "short", day: "numeric" };
// Formatted in three parts, as one format would put the zone before the hour in Chinese.
const moment = (at) =>
  text("moment")(formatted(at, { weekday: "short", ...DATE }), formatted(at, CLOCK), zone(at));
const shortMoment = (at) => formatted(at, { ...DATE, ...CLOCK, second: "2-digit" });
const date = (at) => formatted(at, { year: "numeric", ...DATE, ...CLOCK });
// The year only if it is not the current one.
const shortDate = (at) =>
  new Date(at).getFullYear() === new Date().getFullYear() ? formatted(at, { ...DATE, ...CLOCK }) : formatted(at, { ...DATE, year: "numeric" });
const clock = (at) => formatted(at, { ...CLOCK, second: "2-digit" });
const day = (name) => formatted(name, { ...DATE, timeZone: "UTC" });
const longDay = (name) => formatted(name, { weekday: "short", ...DATE, timeZone: "UTC" });

function zone(at) {
  const format = new Intl.DateTimeFormat(locale(), { timeZoneName: "short" });
  return format.formatToParts(new Date(at)).find(({ type }) => type === "timeZoneName").value;
}

// The two largest units, and seconds below an hour only, so that the page does not flicker.
function formatDuration(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const parts = seconds < 3600
    ? [["minutes", Math.floor(seconds / 60)], ["seconds", seconds % 60]]
    : largeUnits(Math.ceil(seconds / 60));
  const said = parts.filter(([, count]) => count > 0).map(([unit, count]) => text(unit)(count));
  return said.join(" ");
}

function largeUnits(minutes) {
  const hours = Math.floor(minutes / 60);
  return hours < 24
    ? [["hours", hours], ["minutes", minutes % 60]]
    : [["days", Math.floor(hours / 24)], ["hours", hours % 24]];
}
