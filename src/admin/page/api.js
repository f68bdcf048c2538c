// Calls of the admin API. The token is kept in `token` only.
addProblems({
  version_changed: ["This has been changed in the meantime. Refresh and try again.", "内容刚被别人修改过，请刷新后重试。"],
  key_not_found: ["This key no longer exists.", "这个密钥已不存在。"],
  store_unavailable: ["The store is not available at the moment. Nothing is lost; please try again soon.", "存储暂时没有响应，数据没有丢失，请稍后再试。"],
  too_many_attempts: [({ wait }) => `Too many attempts. Please wait ${wait || 60} seconds.`, ({ wait }) => `尝试次数过多，请等待 ${wait || 60} 秒。`],
  address_not_allowed: ["The admin API is not open to your address.", "管理接口不对你的地址开放。"],
  cross_site_request: [
    "The gateway took this for a request from another site. Does a proxy change Origin or Host?",
    "网关把此请求当成了其他网站的请求。代理是否改动了 Origin 或 Host？",
  ],
  request_too_large: ["This is too large for the gateway.", "内容太大，网关无法接收。"],
  already_issued: [
    "These keys were created already, and their text cannot be shown again. Find them in the list, newest first, and rotate them or make claim links.",
    "这些密钥已经创建，无法再次显示。请在列表中按最新的在前排序找到它们，更换密钥或生成领取链接。",
  ],
  request_in_progress: ["This is being done right now. Please wait a moment and try again.", "正在处理，请稍候再试。"],
  key_not_active: ["This key is disabled or expired, so it cannot be claimed. Enable it or move its expiry first.", "这个密钥已停用或已过期，无法领取。请先启用它或修改有效期。"],
  node_not_found: ["There is no such node any more.", "没有这个节点了。"],
  node_in_use: [
    "This node is connected, or was a few seconds ago. Stop its process first: if it ends by itself, nothing is missing.",
    "这个节点还在连接，或几秒前还在。请先停止它的进程：它自己结束的话，什么都不会少。",
  ],
  node_closed: ["This node holds nothing: its journal was closed, or it was released before.", "这个节点没有占用任何东西：它的 journal 已关闭，或它已被释放。"],
  wrongToken: ["The admin token is wrong.", "管理员令牌不正确。"],
  unknownCall: ["The gateway does not know this call. Is it an older version?", "网关没有这个接口，版本是否过旧？"],
  between: [
    ({ status }) => `Something between this page and the gateway has responded (status ${status}). It is not known whether this was done.`,
    ({ status }) => `页面与网关之间的某个环节返回了结果（状态码 ${status}），不确定操作是否已完成。`,
  ],
  betweenRead: [
    ({ status }) => `Something between this page and the gateway has responded (status ${status}).`,
    ({ status }) => `页面与网关之间的某个环节返回了结果（状态码 ${status}）。`,
  ],
  unsure: [
    "The gateway cannot be reached, so it is not known whether this was done. Look at what is shown now before you try again.",
    "无法连接到网关，不确定操作是否已完成。重试之前请先查看当前显示的状态。",
  ],
  rejected: [
    ({ status, detail }) => `The gateway rejected this (status ${status}). ${detail}`,
    ({ status, detail }) => `网关拒绝了此操作（状态码 ${status}）。${detail}`,
  ],
});

const PREFIX = document.body.dataset.prefix;

let token = "";
// Number of the current session. Responses to requests of earlier sessions are not shown.
let session = 0;

// The problem of a status whose code has no words.
const STATUSES = {
  404: "unknownCall", 412: "version_changed", 413: "request_too_large", 429: "too_many_attempts",
  502: "between", 503: "store_unavailable", 504: "between",
};

// Calls the API. `version` is the version of the key that the change applies to.
async function api(method, path, { body, version, headers = {}, timeout } = {}) {
  const mine = session;
  const requestHeaders = { authorization: `Bearer ${token}`, ...headers };
  if (body !== undefined && !requestHeaders["content-type"]) requestHeaders["content-type"] = "application/json";
  if (version) requestHeaders["if-match"] = `"${version}"`;
  const requestBody = typeof body === "string" || body === undefined || body instanceof ArrayBuffer ? body : JSON.stringify(body);
  const result = await send(PREFIX + path, { method, headers: requestHeaders, body: requestBody, timeout }).catch((error) => {
    // The call may have succeeded although its response was lost.
    throw method !== "GET" && error.name === "unreachable" ? new Problem("unsure") : error;
  });
  if (mine !== session) throw new Problem("signedOut");
  if (result.response.ok) {
    // A page from a proxy in between is not a response of the API.
    if (result.json === null && headers.accept !== "text/csv") throw new Problem("odd", errorDetails(result));
    return result.json ?? result.body;
  }
  if (result.response.status === 401) {
    endSession();
    throw new Problem("wrongToken", errorDetails(result));
  }
  const problem = problemOf(result, STATUSES, "rejected");
  throw problem.name === "between" && method === "GET" ? new Problem("betweenRead", errorDetails(result)) : problem;
}

// Resolves to the problem if only one part of a view cannot be loaded.
async function catchProblem(pending) {
  try {
    return await pending;
  } catch (error) {
    if (!(error instanceof Problem) || ["signedOut", "wrongToken"].includes(error.name)) throw error;
    return error;
  }
}

// Makes a change, and reloads the view if it is not known whether the change was made.
async function reloadIfUnsure(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Problem && error.name === "unsure") await reload(view).catch(() => {});
    throw error;
  }
}

async function reload(mine) {
  await mine.load();
  if (mine === view) mine.show();
}

const keyPath = (id) => `/keys/${encodeURIComponent(id)}`;

const query = (parameters) => {
  const known = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return new URLSearchParams(known).toString();
};
