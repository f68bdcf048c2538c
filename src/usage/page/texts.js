// Texts of the holders' page.
addTexts({
  en: {
    title: "Usage",
    formTitle: "See how much you have left", formIntro: "Enter the key that you were given. This does not use up a request.",
    key: "Your key", revealSecret: "Show the key", concealSecret: "Hide the key",
    hint: "It is kept in this page's memory only and forgotten when you leave.",
    submit: "Show usage", forget: "Use another key", noLabel: "Your key",
    expires: (at) => `Valid until ${at}`, expiresSoon: (at, left) => `Valid until ${at} (${left} left)`, expired: (at) => `Expired on ${at}`,

    full: "Today's requests are used up. ", fullUntil: (left) => `You can use this key again in ${left}.`,
    fullExpires: "The key expires before the count starts again. Ask the person who gave it to you for a new one.",
    fullNow: "You can use this key again in a moment.",
    resetsIn: "Starts again in", resetsAt: "In your time zone", now: "a moment",
    detail: "Today in detail",
    prompt: "Prompt", completion: "Completion", total: "Total", cached: "from cache", reasoning: "reasoning",
    detailHint: "Failed includes responses that you cancelled. Refunded requests do not count as used. Tokens are counted where the model reported them.",

    allModels: (count) => `Show all ${count} models`, fewModels: "Show fewer",
    errors: "Last errors", errorsHint: "Requests that failed or were rejected, newest first",
    noErrors: "No request has failed or was rejected.",

    updated: (at) => `Updated at ${at}`, zone: (zone) => `Days are counted in ${zone}`,
    auto: "Refresh every 30 seconds", said: "The figures are up to date.",
    leftNow: (left) => `Requests left today: ${left}.`,

    problems: {
      noKey: "Enter your key.",
      badKey: "This is not a key: it contains a space or a character that no key has.",
      wrong: "This key is not known. Was it copied completely, and has it not been replaced?",
      disabled: "This key is disabled. Ask the person who gave it to you.",
      expired: "This key has expired. Ask the person who gave it to you for a new one.",
      misconfigured: "This key is not set up correctly. Contact the person who gave it to you.",
      unavailable: "Usage cannot be read at the moment. Your key is not the cause; please try again soon.",
      busy: "Too many requests at once. Please try again in a few seconds.",
    },
    stale: (problem, at) => `${problem} These figures are from ${at}.`,
  },
  zh: {
    title: "用量查询",
    formTitle: "查看剩余用量", formIntro: "请输入发给你的密钥。查询不计入请求次数。",
    key: "你的密钥", revealSecret: "显示密钥", concealSecret: "隐藏密钥",
    hint: "密钥只保存在当前页面的内存中，离开页面即清除。",
    submit: "查看用量", forget: "换一个密钥", noLabel: "我的密钥",
    expires: (at) => `有效期至 ${at}`, expiresSoon: (at, left) => `有效期至 ${at}（还剩 ${left}）`, expired: (at) => `已于 ${at} 过期`,

    full: "今日次数已用完。", fullUntil: (left) => `${left}后可再次使用。`,
    fullExpires: "密钥将在重新计数之前过期，请联系发放者获取新密钥。",
    fullNow: "马上即可再次使用。",
    resetsIn: "距重新计数", resetsAt: "你所在时区的时间", now: "马上",
    detail: "今日明细",
    prompt: "输入", completion: "输出", total: "合计", cached: "缓存命中", reasoning: "推理",
    detailHint: "失败包括你自行中断的请求。已退还的请求不计入用量。Token 数以模型返回的数据为准。",

    allModels: (count) => `显示全部 ${count} 个模型`, fewModels: "收起",
    errors: "最近的错误", errorsHint: "失败或被拒绝的请求，最新的在前",
    noErrors: "没有失败或被拒绝的请求。",

    updated: (at) => `更新于 ${at}`, zone: (zone) => `日期按 ${zone} 时区计算`,
    auto: "每 30 秒自动刷新", said: "数据已是最新。",
    leftNow: (left) => `今日剩余 ${left} 次。`,

    problems: {
      noKey: "请输入密钥。",
      badKey: "这不是有效的密钥：其中含有空格或密钥不会使用的字符。",
      wrong: "密钥无效。请检查是否复制完整，或是否已被更换。",
      disabled: "此密钥已停用，请联系发放者。",
      expired: "此密钥已过期，请联系发放者获取新密钥。",
      misconfigured: "此密钥的设置有误，请告知发放者。",
      unavailable: "暂时无法读取用量，与你的密钥无关，请稍后再试。",
      busy: "请求过于频繁，请几秒后再试。",
    },
    stale: (problem, at) => `${problem}当前显示的是 ${at} 的数据。`,
  },
});
