// The current language, and numbers and times in it. Times are in the browser's time zone; days are
// calendar days of the gateway.
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

const text = (name) => TEXTS[language][name];

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
