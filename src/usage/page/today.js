// The key, what is left of its day, and what was done with it.
const NEAR = 0.8;
const SOON = 7 * 86400000;

function showKey(usage, now) {
  $("name").textContent = usage.label || text("noLabel");
  $("name").className = usage.label.length > 60 ? "long" : "";
  $("masked").textContent = usage.key;
  const end = usage.expires_at;
  const left = Date.parse(end) - now;
  const name = left <= 0 ? "expired" : left < SOON ? "expiresSoon" : "expires";
  say($("expires"), end && text(name)(date(end), span(left)));
  $("expires").className = end && left < SOON ? "soft late" : "soft";
}

function showToday(usage) {
  const { unlimited, daily_limit: limit, used, remaining } = usage;
  const share = unlimited ? 0 : used / limit;
  const full = !unlimited && remaining === 0;
  $("today").className = `card today${full ? " full" : share >= NEAR ? " near" : ""}`;
  $("figure").textContent = number(unlimited ? used : remaining);
  $("figure-unit").textContent = unlimited ? text("free") : text("left")(number(limit));
  for (const id of ["meter", "scale"]) $(id).hidden = unlimited;
  $("fill").style.width = `${share * 100}%`;
  $("meter").ariaValueMax = limit;
  $("meter").ariaValueNow = used;
  $("meter").ariaLabel = text("today");
  $("meter").ariaValueText = text("meter")(number(used), number(limit));
  $("used").textContent = text("used")(number(used));
  $("share").textContent = percent(share);
  $("countdown-name").textContent = text("resetsIn");
  $("resets-name").textContent = text("resetsAt");
  $("resets").dateTime = usage.resets_at;
  $("resets").textContent = moment(usage.resets_at);
  showSums("requests", usage.requests, [["succeeded"], ["failed"], ["refunded"]]);
  showSums("tokens", usage.tokens,
    [["prompt"], ["cached", "part"], ["completion"], ["reasoning", "part"], ["total", "whole"]]);
  say($("tokens-unknown"), tokensUnknown(usage.requests));
}

// What is not known is left out, not shown as none.
function showSums(id, figures, rows) {
  const known = rows.filter(([name]) => typeof figures[name] === "number");
  $(id).replaceChildren(...known.map(([name, className = ""]) =>
    make("div", { className },
      make("dt", { textContent: text(name) }),
      make("dd", { textContent: number(figures[name]) }))));
}

// What depends on the time; called every second.
function showTime(usage, now) {
  const left = Date.parse(usage.resets_at) - now;
  const words = left > 0 ? span(left) : text("now");
  if ($("countdown").textContent !== words) $("countdown").textContent = words;
  const full = !usage.unlimited && usage.remaining === 0;
  $("verdict").className = "notice bad";
  say($("verdict"), full ? `${text("full")}${whenAgain(usage, left)}` : null);
}

function whenAgain(usage, left) {
  if (usage.expires_at && Date.parse(usage.expires_at) <= Date.parse(usage.resets_at)) return text("fullExpires");
  return left > 0 ? text("fullUntil")(span(left)) : text("fullNow");
}
