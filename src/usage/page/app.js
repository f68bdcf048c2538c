// The holder's page. The key stays in its input and in memory; the API's answer is written as text.
"use strict";

const TEXTS = {
  en: {
    title: "Your usage", other: "中文", key: "Your key", show: "Show usage",
    hint: "Kept in this page only, and forgotten when you leave it.",
    left: "requests left today", none: "no daily limit", noLabel: "Your key",
    used: (used, limit) => `${used} of ${limit} used`, usedFree: (used) => `${used} used today`,
    resets: (at) => `The count starts again on ${at} (your time).`,
    expires: (at) => `The key is valid until ${at}.`,
    succeeded: "Succeeded", failed: "Failed", refunded: "Refunded", tokens: "Tokens", days: "Requests, last 30 days",
    needKey: "Enter your key.", wrong: "This key is not known. Was it copied completely?",
    refused: "This key is disabled or has expired.", unavailable: "Usage cannot be read at the moment. Please try again.",
    unreachable: "The gateway cannot be reached.",
  },
  zh: {
    title: "我的用量", other: "English", key: "你的密钥", show: "查看用量",
    hint: "密钥只保存在当前页面的内存中，离开页面即清除。",
    left: "次（今日剩余）", none: "无每日限制", noLabel: "我的密钥",
    used: (used, limit) => `已用 ${used} / ${limit}`, usedFree: (used) => `今日已用 ${used} 次`,
    resets: (at) => `将于 ${at}（你的时区）重新计数。`,
    expires: (at) => `密钥有效期至 ${at}。`,
    succeeded: "成功", failed: "失败", refunded: "已退还", tokens: "Token 数", days: "最近 30 天的请求数",
    needKey: "请输入密钥。", wrong: "密钥无效，请检查是否复制完整。",
    refused: "密钥已停用或已过期。", unavailable: "暂时无法读取用量，请稍后再试。",
    unreachable: "无法连接网关。",
  },
};

const DAY = 86400000;
const $ = (id) => document.getElementById(id);
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let usage = null;

const text = (name) => TEXTS[language][name];
const number = (value) => new Intl.NumberFormat(language).format(value);
const time = (at) =>
  new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at));

async function load() {
  const key = $("key").value.trim();
  if (!key) throw new Error(text("needKey"));
  let response;
  try {
    response = await fetch(location.pathname, {
      headers: { authorization: `Bearer ${key}`, accept: "application/json" },
      cache: "no-store",
      credentials: "omit",
    });
  } catch {
    throw new Error(text("unreachable"));
  }
  if (response.ok) return response.json();
  const reason = { 400: "wrong", 401: "wrong", 403: "refused" }[response.status] ?? "unavailable";
  throw new Error(text(reason));
}

function show() {
  $("usage").hidden = !usage;
  if (!usage) return;
  const { unlimited, daily_limit: limit, used, remaining } = usage;
  $("name").textContent = usage.label || text("noLabel");
  $("masked").textContent = usage.key;
  $("left").textContent = unlimited ? "∞" : number(remaining);
  $("left-unit").textContent = text(unlimited ? "none" : "left");
  $("meter").hidden = unlimited;
  $("meter").className = remaining === 0 ? "full" : "";
  $("fill").style.width = unlimited ? "0" : `${(used / limit) * 100}%`;
  $("used").textContent = unlimited ? text("usedFree")(number(used)) : text("used")(number(used), number(limit));
  $("resets").textContent = text("resets")(time(usage.resets_at));
  $("expires").hidden = !usage.expires_at;
  if (usage.expires_at) $("expires").textContent = text("expires")(time(usage.expires_at));
  for (const name of ["succeeded", "failed", "refunded"]) $(name).textContent = number(usage.requests[name]);
  $("tokens").textContent = number(usage.tokens.total);
  showDays();
}

function showDays() {
  const requests = new Map(usage.history.map((day) => [day.day, day.requests]));
  const { succeeded, failed } = usage.requests;
  requests.set(usage.day, Math.max(usage.used, succeeded + failed));
  const today = Date.parse(usage.day);
  const days = Array.from({ length: 30 }, (_, ago) => new Date(today - (29 - ago) * DAY).toISOString().slice(0, 10));
  const most = Math.max(1, ...days.map((day) => requests.get(day) ?? 0));
  const format = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", timeZone: "UTC" });
  const name = (day) => format.format(new Date(day));
  $("days").replaceChildren(...days.map((day) => {
    const count = requests.get(day) ?? 0;
    const item = document.createElement("li");
    const bar = document.createElement("span");
    const words = document.createElement("span");
    words.className = "unseen";
    words.textContent = item.title = `${name(day)}: ${number(count)}`;
    bar.style.height = `${(count / most) * 100}%`;
    if (!count) item.className = "none";
    item.append(bar, words);
    return item;
  }));
  $("first-day").textContent = name(days[0]);
  $("last-day").textContent = name(days[29]);
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  show();
}

$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  event.submitter.disabled = true;
  $("error").hidden = true;
  try {
    usage = await load();
  } catch (error) {
    usage = null;
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
  event.submitter.disabled = false;
  show();
});
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  $("error").hidden = true;
  translate();
});
translate();
