// The key, and its requests and tokens of today.
const EXPIRES_SOON_MS = 7 * 86400000;

function showKey(usage, now) {
  $("name").textContent = usage.label || text("noLabel");
  $("name").className = usage.label.length > 60 ? "long" : "";
  $("masked").textContent = usage.key;
  const end = usage.expires_at;
  const left = Date.parse(end) - now;
  const name = left <= 0 ? "expired" : left < EXPIRES_SOON_MS ? "expiresSoon" : "expires";
  setText($("expires"), end && text(name)(date(end), formatDuration(left)));
  $("expires").className = end && left < EXPIRES_SOON_MS ? "soft late" : "soft";
}

function showToday(usage) {
  const { unlimited, daily_limit: limit, used, remaining } = usage;
  showMeter({ used, limit: unlimited ? 0 : limit, remaining });
  $("countdown-name").textContent = text("resetsIn");
  $("resets-name").textContent = text("resetsAt");
  $("resets").dateTime = usage.resets_at;
  $("resets").textContent = moment(usage.resets_at);
  showSums("requests", usage.requests, [["succeeded"], ["failed"], ["refunded"]]);
  showSums("tokens", usage.tokens,
    [["prompt"], ["cached", "part"], ["completion"], ["reasoning", "part"], ["total", "whole"]]);
  setText($("tokens-unknown"), tokensUnknown(usage.requests));
}

// Unknown figures are left out rather than shown as 0.
function showSums(id, figures, rows) {
  const known = rows.filter(([name]) => typeof figures[name] === "number");
  $(id).replaceChildren(...known.map(([name, className = ""]) =>
    make("div", { className },
      make("dt", { textContent: text(name) }),
      make("dd", { textContent: number(figures[name]) }))));
}

// Updates what depends on the time. Called every second.
function showTime(usage, now) {
  const left = Date.parse(usage.resets_at) - now;
  const words = left > 0 ? formatDuration(left) : text("now");
  if ($("countdown").textContent !== words) $("countdown").textContent = words;
  const full = !usage.unlimited && usage.remaining === 0;
  $("exhausted").className = "notice bad";
  setText($("exhausted"), full ? `${text("full")}${whenAgain(usage, left)}` : null);
}

function whenAgain(usage, left) {
  if (usage.expires_at && Date.parse(usage.expires_at) <= Date.parse(usage.resets_at)) return text("fullExpires");
  return left > 0 ? text("fullUntil")(formatDuration(left)) : text("fullNow");
}
