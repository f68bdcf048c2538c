// How a key, its state and its usage are shown.
addTexts({
  active: ["Active", "正常"],
  exhausted: ["Used up", "已用完"],
  expired: ["Expired", "已过期"],
  disabled: ["Disabled", "已停用"],
  claimOpen: ["Link not opened", "链接未打开"],
  claimOpened: ["Link opened", "链接已打开"],
  unlimited: ["Unlimited", "无限制"],
  noLabel: ["No label", "无标签"],
  storeOk: ["The store is available", "存储正常"],
  storeBad: ["The store is not available", "存储无响应"],
});

const named = (key) => key.label || text("noLabel");
// Isolated, so that a right-to-left label does not reorder the text around it.
const subjectOf = (key) => (key.label ? `\u2068${key.label}\u2069 · ${key.key}` : key.key);
const limitWords = (limit) => (limit === 0 ? text("unlimited") : number(limit));
const isLimited = (key) => key.daily_limit > 0;
const shareOf = (key) => (isLimited(key) ? key.used_today / key.daily_limit : 0);

function chip(name, kind) {
  return make("span", { className: `chip ${kind}`, textContent: text(name) });
}

// The state of the key, and that of its claim link.
function chips(key) {
  const kinds = { active: "good", exhausted: "bad", expired: "off", disabled: "off" };
  const claim = claimState(key.claim);
  return [
    chip(key.state, kinds[key.state] ?? "off"),
    ...(claim === "claimNone" || claim === "claimExpired" ? [] : [chip(claim, claim === "claimOpened" ? "plain" : "warn")]),
  ];
}

function claimState(claim) {
  if (!claim) return "claimNone";
  if (claim.opened_at) return "claimOpened";
  return Date.parse(claim.expires_at) <= Date.now() ? "claimExpired" : "claimOpen";
}

// `3 / 200` above a bar.
function usageBar(key) {
  const used = `${number(key.used_today)} / ${isLimited(key) ? number(key.daily_limit) : "∞"}`;
  const state = meterState(shareOf(key), isLimited(key) && key.remaining === 0);
  return make("span", { className: `used ${state}` }, used, ...(isLimited(key) ? [track(shareOf(key))] : []));
}

function keyLink(id, words) {
  return make("a", { href: `#/keys/${encodeURIComponent(id)}`, textContent: words, dir: "auto" });
}

function timeElement(at, write = date) {
  return make("time", { dateTime: at, textContent: write(at) });
}

// Rows of a definition list. Unknown values are left out.
function pairs(rows) {
  return rows.filter(([, value]) => value !== null && value !== undefined).map(([name, value, className = ""]) =>
    make("div", { className }, make("dt", { textContent: text(name) }), make("dd", {}, value)));
}
