// Texts of the pages in English and Chinese. Inserted values are already formatted.
const TEXTS = { en: {}, zh: {} };

// Adds a page's own texts. Its problems are added to the common ones.
function addTexts(added) {
  for (const [name, own] of Object.entries(added)) {
    const problems = { ...TEXTS[name].problems, ...own.problems };
    Object.assign(TEXTS[name], own, { problems });
  }
}

addTexts({
  en: {
    other: "中文", otherLang: "zh-CN", betweenSentences: " ",
    reveal: "Show", conceal: "Hide", loading: "Loading…", refresh: "Refresh",
    today: "Today", requests: "Requests", tokens: "Tokens",
    succeeded: "Succeeded", failed: "Failed", refunded: "Refunded",
    leftOf: (limit) => `of ${limit} requests left`, usedFree: "used today, no daily limit",
    usedOf: (used, limit) => `${used} of ${limit} requests used`, usedSum: (used) => `${used} used`,
    moment: (day, clock, zone) => `${day}, ${clock} ${zone}`,
    days: (n) => (n === 1 ? "1\u00a0day" : `${n}\u00a0days`), hours: (n) => `${n}\u00a0h`, minutes: (n) => `${n}\u00a0min`, seconds: (n) => `${n}\u00a0s`,

    month: "Last 30 days", measure: "Show in the chart", day: "Day", dayToday: "Today",
    chartHint: "One bar a day. The arrow keys, Home and End move from day to day.",
    chartName: (what) => `${what}, last 30 days`, asTable: "Show as a table",
    monthSum: (requests, tokens) => `Requests: ${requests}, tokens: ${tokens}`, nothing: "No usage yet.",
    bar: (day, requests, failed, tokens) => `${day}. Requests: ${requests}, failed: ${failed}, tokens: ${tokens}`,

    tokensUnknown: (unknown, all) => `${unknown} of ${all} without figures`, someUnknown: (unknown) => `${unknown} without figures`,

    models: "By model", model: "Model", unknown: "not known", noModels: "No model was used in this period.",
    status: (status) => `Response status ${status}`, someError: "Failed",
    causes: {
      client_gone: "Cancelled before the end",
      insufficient_quota: "The day's requests were used up",
      rate_limit_exceeded: "Too many requests at once",
      key_disabled: "The key was disabled",
      key_expired: "The key had expired",
      store_unavailable: "The gateway could not count the request",
      upstream_unreachable: "The model service could not be reached",
      upstream_protocol: "The model service broke the connection",
      upstream_timeout: "The model service took too long",
      upstream_failed: "The model service failed",
      upstream_credentials: "The model service rejected the gateway's credentials",
      upstream_rate_limited: "The model service is busy",
      upstream_redirect: "The model service has moved",
      upstream_refused: "The model service rejected the request",
      request_too_large: "The request was too large",
      request_body_broken: "The request ended early",
    },

    theKey: "Key", baseUrl: "Base URL", toTry: "To try it", clients: "Settings for OpenAI clients",
    inEnvironment: "Environment variables", inPython: "Python",
    copy: "Copy", copyOf: (what) => `Copy: ${what}`, copied: "Copied", selected: "Selected: press Ctrl+C",
    requestId: (id) => `Request id: ${id}`,
    problems: {
      unreachable: "The gateway cannot be reached. Are you online?",
      odd: ({ status }) => `The gateway sent an unexpected response (status ${status}).`,
    },
  },
  zh: {
    other: "English", otherLang: "en", betweenSentences: "",
    reveal: "显示", conceal: "隐藏", loading: "正在查询…", refresh: "刷新",
    today: "今日", requests: "请求", tokens: "Token",
    succeeded: "成功", failed: "失败", refunded: "已退还",
    leftOf: (limit) => `次剩余，共 ${limit} 次`, usedFree: "次请求，无每日限制",
    usedOf: (used, limit) => `已用 ${used} 次，共 ${limit} 次`, usedSum: (used) => `已用 ${used} 次`,
    moment: (day, clock, zone) => `${day} ${clock} ${zone}`,
    days: (n) => `${n}\u00a0天`, hours: (n) => `${n}\u00a0小时`, minutes: (n) => `${n}\u00a0分钟`, seconds: (n) => `${n}\u00a0秒`,

    month: "最近 30 天", measure: "图表内容", day: "日期", dayToday: "今天",
    chartHint: "每天一根柱，可用方向键、Home 和 End 键切换日期。",
    chartName: (what) => `最近 30 天：${what}`, asTable: "以表格显示",
    monthSum: (requests, tokens) => `${requests} 次请求，${tokens} 个 Token`, nothing: "尚无用量。",
    bar: (day, requests, failed, tokens) => `${day}：请求 ${requests} 次，失败 ${failed} 次，Token ${tokens} 个`,

    tokensUnknown: (unknown, all) => `${all} 次中有 ${unknown} 次无 Token 数据`, someUnknown: (unknown) => `${unknown} 次无数据`,

    models: "按模型统计", model: "模型", unknown: "未知", noModels: "这些天没有使用过模型。",
    status: (status) => `返回状态码 ${status}`, someError: "失败",
    causes: {
      client_gone: "在结束前中断",
      insufficient_quota: "当日次数已用完",
      rate_limit_exceeded: "请求过于频繁",
      key_disabled: "密钥已停用",
      key_expired: "密钥已过期",
      store_unavailable: "网关暂时无法计数",
      upstream_unreachable: "无法连接模型服务",
      upstream_protocol: "模型服务中断了连接",
      upstream_timeout: "模型服务响应超时",
      upstream_failed: "模型服务出错",
      upstream_credentials: "模型服务拒绝了网关",
      upstream_rate_limited: "模型服务繁忙",
      upstream_redirect: "模型服务地址已变更",
      upstream_refused: "模型服务拒绝了该请求",
      request_too_large: "请求过大",
      request_body_broken: "请求中断",
    },

    theKey: "密钥", baseUrl: "接口地址", toTry: "试用命令", clients: "OpenAI 客户端设置",
    inEnvironment: "环境变量", inPython: "Python",
    copy: "复制", copyOf: (what) => `复制：${what}`, copied: "已复制", selected: "已选中，请按 Ctrl+C",
    requestId: (id) => `请求编号：${id}`,
    problems: {
      unreachable: "无法连接网关，请检查网络。",
      odd: ({ status }) => `网关返回了意外的结果（状态码 ${status}）。`,
    },
  },
});
