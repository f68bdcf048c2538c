// The card of a key's current day: what is left, what was used, and a meter of both.
const NEAR_LIMIT = 0.8;

// `limit` is 0 for an unlimited key.
function showMeter({ used, limit, remaining }) {
  const isLimited = limit > 0;
  const share = isLimited ? used / limit : 0;
  $("today").className = `card today ${meterState(share, isLimited && remaining === 0)}`;
  $("figure").textContent = number(isLimited ? remaining : used);
  $("figure-unit").textContent = isLimited ? text("leftOf")(number(limit)) : text("usedFree");
  for (const id of ["meter", "scale"]) $(id).hidden = !isLimited;
  $("fill").style.width = `${Math.min(1, share) * 100}%`;
  $("meter").ariaValueMax = limit;
  $("meter").ariaValueNow = Math.min(used, limit);
  $("meter").ariaLabel = text("today");
  $("meter").ariaValueText = text("usedOf")(number(used), number(limit));
  $("used").textContent = text("usedSum")(number(used));
  $("share").textContent = percent(share);
}

// The class of an exhausted key and of one that is near its limit.
function meterState(share, isExhausted) {
  if (isExhausted) return "full";
  return share >= NEAR_LIMIT ? "near" : "";
}
