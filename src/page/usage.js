// The card of a key's current day: what is left, what was used, and a meter of both.
addTexts({
  leftOf: [(limit) => `of ${limit} requests left`, (limit) => `次剩余，共 ${limit} 次`],
  usedFree: ["used today, no daily limit", "次请求，无每日限制"],
  usedOf: [(used, limit) => `${used} of ${limit} requests used`, (used, limit) => `已用 ${used} 次，共 ${limit} 次`],
  usedSum: [(used) => `${used} used`, (used) => `已用 ${used} 次`],
  models: ["By model", "按模型统计"],
  model: ["Model", "模型"],
  unknown: ["not known", "未知"],
  noModels: ["No model was used in this period.", "这些天没有使用过模型。"],
  someUnknown: [(unknown) => `${unknown} without figures`, (unknown) => `${unknown} 次无数据`],
  status: [(status) => `Response status ${status}`, (status) => `返回状态码 ${status}`],
  someError: ["Failed", "失败"],
  causes: {
    client_gone: ["Cancelled before the end", "在结束前中断"],
    insufficient_quota: ["The requests were used up", "次数已用完"],
    rate_limit_exceeded: ["Too many requests in a short time", "请求过于频繁"],
    key_disabled: ["The key was disabled", "密钥已停用"],
    key_expired: ["The key had expired", "密钥已过期"],
    key_misconfigured: ["The key was not set up correctly", "密钥的设置有误"],
    store_unavailable: ["The gateway could not count the request", "网关暂时无法计数"],
    upstream_unreachable: ["The model service could not be reached", "无法连接模型服务"],
    upstream_protocol: ["The model service broke the connection", "模型服务中断了连接"],
    upstream_timeout: ["The model service took too long", "模型服务响应超时"],
    upstream_failed: ["The model service failed", "模型服务出错"],
    upstream_credentials: ["The model service rejected the gateway's credentials", "模型服务拒绝了网关"],
    upstream_rate_limited: ["The model service is busy", "模型服务繁忙"],
    upstream_redirect: ["The model service has moved", "模型服务地址已变更"],
    upstream_refused: ["The model service rejected the request", "模型服务拒绝了该请求"],
    request_too_large: ["The request was too large", "请求过大"],
    request_body_broken: ["The request ended early", "请求中断"],
  },
});

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

// Usage by model, and why a request failed.
function modelName(model, className) {
  return model
    ? make("span", { className, dir: "auto", textContent: model })
    : make("span", { className: `${className} unknown`, textContent: text("unknown") });
}

// Fills the table of models: each with its share of the most used, requests and tokens.
function showModels(models, shown = models) {
  $("no-models").hidden = models.length > 0;
  $("models-table").hidden = models.length === 0;
  const max = Math.max(1, ...shown.map((model) => model.requests));
  $("models").replaceChildren(...shown.map((model) =>
    make("tr", {},
      make("th", { scope: "row" }, modelName(model.model, "model"), track(model.requests / max)),
      numberCell(model.requests), tokensCell(model))));
}

function tokensCell({ tokens, tokens_unknown: unknown = 0 }) {
  const cell = numberCell(tokens);
  if (unknown > 0) cell.append(make("span", { className: "soft below", textContent: text("someUnknown")(number(unknown)) }));
  return cell;
}

function cause({ code, status }) {
  return textIn("causes", code) ?? (status ? text("status")(status) : text("someError"));
}
