// Changes to one key. Each needs a confirmation and resolves to the changed key, to null if the key
// was deleted, or to undefined if nothing was done.
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
