// Texts of the claim page.
addTexts({
  title: ["Your key", "领取密钥"],
  brand: ["Trial key", "试用密钥"],
  waiting: ["One moment …", "请稍候…"],
  waitingIntro: ["The link is being looked up.", "正在查询链接。"],
  hello: ["A key is waiting for you", "你有一个密钥待领取"],
  helloIntro: ["With it you can use the models of this gateway. The link was made for you: it shows the key once.", "用它可以使用本网关的模型。此链接专为你生成，只显示一次密钥。"],
  showKey: ["Show my key", "显示我的密钥"],
  onceBefore: ["The key is shown one time only. Have a safe place for it ready, such as a password manager.", "密钥只显示一次，请先准备好安全的保存位置，例如密码管理器。"],
  claimed: ["This is your key", "这是你的密钥"],
  claimedIntro: ["Keep it secret: anyone who has it can use up your requests.", "请妥善保管：得到密钥的人可以用掉你的次数。"],
  onceAfter: ["Copy it now. When you leave this page it is gone, and the link does not work again.", "请立即复制。离开此页面后密钥不再显示，链接也随即失效。"],
  label: ["For", "用途"],
  limit: ["Requests a day", "每日次数"],
  unlimited: ["Unlimited", "无限制"],
  keyUntil: ["Key valid until", "密钥有效期至"],
  linkUntil: ["Link works until", "链接有效期至"],
  usageLink: ["See how much you have left", "查看剩余用量"],
  again: ["Try again", "重试"],
  failedTitle: ["This link does not work", "此链接无法使用"],
});

addProblems({
  noToken: ["The link is not complete. Was it copied completely, with everything after “#”?", "链接不完整。请确认已完整复制，包括“#”之后的内容。"],
  claim_not_found: ["This link is not known. Was it copied completely? If so, ask the sender for a new one.", "找不到此链接。请确认已完整复制；如果无误，请联系发送者获取新链接。"],
  claim_opened: [
    "This link was opened already, and shows its key only once. If that was not you, contact the sender at once: the key can be replaced.",
    "此链接已被打开过，密钥只显示一次。如果不是你打开的，请立即告知发送者，以便更换密钥。",
  ],
  claim_expired: ["This link has expired. Ask the sender for a new one.", "此链接已过期，请联系发送者获取新链接。"],
  claim_withdrawn: ["This link was withdrawn. Ask the sender for a new one.", "此链接已被撤回，请联系发送者获取新链接。"],
  store_unavailable: ["The gateway is not available at the moment. The link was not used up; please try again soon.", "网关暂时没有响应。链接未被使用，请稍后再试。"],
  too_many_attempts: [
    ({ wait }) => `Too many attempts. Please wait ${wait || 60} seconds; the link was not used up.`,
    ({ wait }) => `尝试次数过多，请等待 ${wait || 60} 秒；链接未被使用。`,
  ],
  unsure: [
    "The gateway cannot be reached, so it is not known whether the key was handed out. Please try again on this page, without leaving it: if it was, it is shown to you all the same.",
    "无法连接网关，不能确定密钥是否已经发出。请不要离开此页面并重试：即使已经发出，仍会显示给你。",
  ],
});
