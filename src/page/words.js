// The language in use, and numbers and times in it. Times are in the reader's own zone; days are
// the gateway's calendar days and have none.
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

const text = (name) => TEXTS[language][name];

// The reader's own variety of the language, for the order of dates and the clock.
function locale() {
  const own = navigator.language;
  if (own.toLowerCase().startsWith(language)) return own;
  return language === "zh" ? "zh-CN" : "en";
}

const number = (value) => new Intl.NumberFormat(locale()).format(value);
const roughly = (value, digits = 3) =>
  new Intl.NumberFormat(locale(), { notation: "compact", maximumSignificantDigits: digits }).format(value);
const percent = (share) => new Intl.NumberFormat(locale(), { style: "percent" }).format(share);
const formatted = (at, options) => new Intl.DateTimeFormat(locale(), options).format(new Date(at));

const CLOCK = { hour: "numeric", minute: "2-digit" };
const DATE = { month: "short", day: "numeric" };
// In one format, Chinese would have the zone before the hour.
const moment = (at) =>
  text("moment")(formatted(at, { weekday: "short", ...DATE }), formatted(at, CLOCK), zone(at));
const shortMoment = (at) => formatted(at, { ...DATE, ...CLOCK, second: "2-digit" });
const date = (at) => formatted(at, { year: "numeric", ...DATE, ...CLOCK });
// The year only where it is another one.
const shortDate = (at) =>
  new Date(at).getFullYear() === new Date().getFullYear() ? formatted(at, { ...DATE, ...CLOCK }) : formatted(at, { ...DATE, year: "numeric" });
const clock = (at) => formatted(at, { ...CLOCK, second: "2-digit" });
const day = (name) => formatted(name, { ...DATE, timeZone: "UTC" });
const longDay = (name) => formatted(name, { weekday: "short", ...DATE, timeZone: "UTC" });

function zone(at) {
  const format = new Intl.DateTimeFormat(locale(), { timeZoneName: "short" });
  return format.formatToParts(new Date(at)).find(({ type }) => type === "timeZoneName").value;
}

// The two largest units; seconds in the last hour only, so that the page stays calm.
function span(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const parts = seconds < 3600
    ? [["minutes", Math.floor(seconds / 60)], ["seconds", seconds % 60]]
    : longer(Math.ceil(seconds / 60));
  const said = parts.filter(([, count]) => count > 0).map(([unit, count]) => text(unit)(count));
  return said.join(" ");
}

function longer(minutes) {
  const hours = Math.floor(minutes / 60);
  return hours < 24
    ? [["hours", hours], ["minutes", minutes % 60]]
    : [["days", Math.floor(hours / 24)], ["hours", hours % 24]];
}
