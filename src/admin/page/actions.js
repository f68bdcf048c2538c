// Changes to one key. Each needs a confirmation and resolves to the changed key, to null if the key
// was deleted, or to undefined if nothing was done.
addTexts({
  reset: ["Reset count", "重置用量"],
  resetTitle: ["Reset today's count?", "重置今天的用量？"],
  resetYes: ["Reset count", "重置用量"],
  resetText: [(used) => `Used today: ${used}. The count goes back to 0 at once; the statistics stay.`, (used) => `今天已使用 ${used} 次，将立即归零；历史统计保留。`],
  resetDone: ["The count was reset.", "用量已重置。"],
  remove: ["Delete", "删除"],
  removeTitle: ["Delete this key?", "删除这个密钥？"],
  removeYes: ["Delete key", "删除密钥"],
  removeText: ["It stops working at once and cannot be brought back. Its history and audit trail stay.", "密钥立即失效，无法恢复；用量历史和审计记录保留。"],
  removeDone: ["The key was deleted.", "密钥已删除。"],
  disable: ["Disable", "停用"],
  disableTitle: ["Disable this key?", "停用这个密钥？"],
  disableText: ["Its next request is rejected. You can enable it again at any time.", "下一个请求即被拒绝，之后可随时重新启用。"],
  rotate: ["Rotate", "更换"],
  rotateTitle: ["Give this key a new secret?", "更换这个密钥？"],
  rotateText: ["The new secret is shown once. How long should the old one keep working?", "新密钥只显示一次。旧密钥还可以使用多久？"],
  graceName: ["The old secret works", "旧密钥"],
  graceNone: ["No longer: it stops at once", "立即失效"],
  rotatedTitle: ["The new secret", "新密钥"],
  onceHint: ["It is shown only this once.", "密钥只显示这一次。"],
  oldUntil: [(at) => `The old one works until ${at}.`, (at) => `旧密钥可用至 ${at}。`],
  oldGone: ["The old one has stopped working.", "旧密钥已失效。"],
  claimLink: ["Claim link", "领取链接"],
  claimTitle: ["Make a claim link?", "生成领取链接？"],
  claimYes: ["Make link", "生成链接"],
  claimTime: ["The link works for", "链接有效期"],
  claimText: [
    "The first person to open the link gets a new secret for this key, shown once. The current secret then stops working, so that no secret stays in a chat or a mail.",
    "第一个打开链接的人会得到这个密钥的新文本，只显示一次；现在的密钥随即失效。这样聊天记录和邮件中都不会留下密钥。",
  ],
  claimedTitle: [
    (count, said) => (count === 1 ? "The claim link" : `${said} claim links`),
    (count, said) => (count === 1 ? "领取链接" : `${said} 个领取链接`),
  ],
  claimHint: [
    (at, count) => (count === 1 ? `Send this link to the key's holder. It works once, until ${at}, and is not shown again.` : `Send each link to its key's holder. It works once, until ${at}, and is not shown again.`),
    (at, count) => (count === 1 ? `请把此链接发给使用者。链接只能打开一次，有效期至 ${at}，之后不再显示。` : `请把每个链接分别发给对应的使用者。每个链接只能打开一次，有效期至 ${at}，之后不再显示。`),
  ],
  hour1: ["1 hour", "1 小时"],
  day1: ["1 day", "1 天"],
  day7: ["7 days", "7 天"],
  day30: ["30 days", "30 天"],
});

const HOUR = 3600;
const CLAIM_TIMES = [[HOUR, "hour1"], [24 * HOUR, "day1"], [7 * 24 * HOUR, "day7"], [30 * 24 * HOUR, "day30"]];
const GRACE_TIMES = [[0, "graceNone"], [HOUR, "hour1"], [24 * HOUR, "day1"], [7 * 24 * HOUR, "day7"]];

const fetchKey = (id) => api("GET", keyPath(id));

async function resetKey(key) {
  const words = text("resetText")(number(key.used_today));
  if (!(await confirmDialog({ title: text("resetTitle"), subject: subjectOf(key), words, yes: text("resetYes") }))) return undefined;
  await api("POST", "/reset-usage", { body: { key: key.id }, version: key.version });
  return fetchKey(key.id);
}

async function removeKey(key) {
  const words = text("removeText");
  if (!(await confirmDialog({ title: text("removeTitle"), subject: subjectOf(key), words, yes: text("removeYes"), danger: true }))) return undefined;
  await api("DELETE", keyPath(key.id), { version: key.version });
  return null;
}

async function switchKey(key) {
  if (!key.disabled) {
    const words = text("disableText");
    if (!(await confirmDialog({ title: text("disableTitle"), subject: subjectOf(key), words, yes: text("disable"), danger: true }))) return undefined;
  }
  await api("PATCH", keyPath(key.id), { body: { disabled: !key.disabled }, version: key.version });
  return fetchKey(key.id);
}

async function rotateKey(key) {
  const grace = choice("grace", text("graceName"), GRACE_TIMES.map(([value, name]) => [value, text(name)]), 0);
  const isConfirmed = await confirmDialog({
    title: text("rotateTitle"), subject: subjectOf(key), words: text("rotateText"), yes: text("rotate"), danger: true, more: grace.part,
  });
  if (!isConfirmed) return undefined;
  const rotated = await api("POST", `${keyPath(key.id)}/rotate`, { body: { grace_seconds: grace.read() }, version: key.version });
  const until = rotated.old_key_valid_until;
  showSecret({
    title: text("rotatedTitle"), subject: key.label, content: handout(rotated.key, baseUrl()),
    hint: [text("onceHint"), until ? text("oldUntil")(date(until)) : text("oldGone")].join(text("betweenSentences")),
  });
  return fetchKey(key.id);
}

// Claim URLs may be paths on this server.
const absoluteUrl = (url) => new URL(url, location.origin).href;

async function claimKey(key) {
  const time = choice("claim", text("claimTime"), CLAIM_TIMES.map(([value, name]) => [value, text(name)]), 7 * 24 * HOUR);
  const isConfirmed = await confirmDialog({
    title: text("claimTitle"), subject: subjectOf(key), words: text("claimText"), yes: text("claimYes"), more: time.part,
  });
  if (!isConfirmed) return undefined;
  const claim = await api("POST", `${keyPath(key.id)}/claim`, { body: { expires_in_seconds: time.read() } });
  showSecret({
    title: text("claimedTitle")(1), subject: key.label,
    content: copyableText("code", "claimLink", "claim", absoluteUrl(claim.url)),
    hint: text("claimHint")(date(claim.expires_at), 1),
  });
  return fetchKey(key.id);
}
