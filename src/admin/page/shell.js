// Signing in and out, and the current view. The URL contains the view's name and no secret.
addTexts({
  title: ["Trial keys", "试用密钥管理"],
  brand: ["Trial keys", "试用密钥"],
  skip: ["Skip to the content", "跳到正文"],
  nav: ["Views", "页面导航"],
  logout: ["Sign out", "退出"],
  signIn: ["Sign in", "管理登录"],
  signInIntro: ["For operators of this gateway.", "仅供网关管理员使用。"],
  token: ["Admin token", "管理员令牌"],
  tokenHint: ["It is kept in this page's memory only and forgotten when you leave.", "令牌只保存在当前页面的内存中，离开页面即清除。"],
  revealSecret: ["Show the token", "显示令牌"],
  concealSecret: ["Hide the token", "隐藏令牌"],
  enter: ["Continue", "进入"],
  sessionEnded: ["The gateway no longer accepts this token. Sign in again to go on where you were.", "网关不再接受此令牌。请重新登录，即可从刚才的位置继续。"],
  refreshed: ["The figures are up to date.", "数据已是最新。"],
  more: ["Show more", "显示更多"],
});

addProblems({
  needToken: ["Enter the admin token.", "请输入管理员令牌。"],
  badToken: ["This is not a token: it contains a space or a character that no token has.", "这不是有效的令牌：其中含有空格或令牌不会使用的字符。"],
});

let view = null;
let shownHash = null;
// The status message for the next view.
let pendingStatus = null;

// The views by name.
const VIEWS = {};

// Adds a view, whose markup is the template `<name>-view`, with a link in the navigation.
function addView(name, View, { inNav = true } = {}) {
  VIEWS[name] = View;
  if (!inNav) return;
  const link = translated("a", name, { href: `#/${name}` });
  link.dataset.view = name;
  $("nav").append(link);
}

// `#/keys/<id>` is one key's view.
function currentRoute() {
  const [, name = "keys", parameter] = location.hash.match(/^#\/([a-z]+)(?:\/(.+))?$/) ?? [];
  if (name === "keys" && parameter) return { name: "key", parameter: decoded(parameter) };
  return { name: Object.hasOwn(VIEWS, name) && name !== "key" ? name : "keys", parameter: null };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// Opens the view that the URL names.
async function openView() {
  if (!token) return;
  const { name, parameter } = currentRoute();
  notify(null);
  closeConfirmations();
  shownHash = location.hash;
  $("view").replaceChildren($(`${name}-view`).content.cloneNode(true));
  translateIn($("view"));
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.dataset.view === (name === "key" ? "keys" : name)) link.ariaCurrent = name === "key" ? "true" : "page";
    else link.ariaCurrent = null;
  }
  view = new VIEWS[name](parameter);
  $("refresh")?.addEventListener("click", () => refresh());
  showTitle();
  scrollTo(0, 0);
  $("title").focus({ preventScroll: true });
  const said = pendingStatus;
  pendingStatus = null;
  if ((await load()) && said) notify("status", said);
}

function goTo(hash, words) {
  pendingStatus = words;
  location.hash = hash;
}

function showTitle() {
  document.title = view ? `${$("title").textContent} · ${text("title")}` : text("title");
}

let loads = 0;

// Loads the view, even while it is loading, as its filters may have changed. Responses for a view that
// was left are dropped.
async function load() {
  const mine = view;
  const turn = ++loads;
  const button = $("refresh");
  if (button) button.ariaDisabled = "true";
  $("view").ariaBusy = "true";
  const loaded = await run(async () => {
    await mine.load();
    if (mine === view) mine.show();
    if (mine === view) showTitle();
  });
  if (turn === loads) {
    $("view").ariaBusy = null;
    if (button) button.ariaDisabled = null;
  }
  return loaded;
}

async function refresh() {
  if ($("refresh").ariaDisabled === "true") return;
  if (await load()) notify("status", text("refreshed"));
}

// Runs `work` while its button is busy, and shows its problem. Resolves to whether there was none.
async function run(work, button = null, showProblem = (message) => notify("error", message)) {
  if (button?.ariaDisabled === "true") return false;
  if (button) button.ariaDisabled = "true";
  notify(null);
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.name === "signedOut" || error.name === "wrongToken") return false;
    showProblem(error.describe() + error.reference());
    return false;
  } finally {
    if (button) button.ariaDisabled = null;
  }
}

// Shows the page's only message, a problem or a status.
function notify(id, words) {
  for (const notice of [$("error"), $("status")]) setText(notice, notice.id === id ? words : null);
}

function showSession() {
  const open = Boolean(token);
  $("token-form").hidden = open;
  for (const id of ["view", "nav"]) $(id).hidden = !open;
  // Signing out also clears the view of a session that has ended.
  $("logout").hidden = !open && !view;
}

async function signIn() {
  session += 1;
  try {
    token = pastedCredential($("token").value, "needToken", "badToken");
    await api("GET", "/keys?limit=1");
  } catch (error) {
    token = "";
    if (!(error instanceof Problem)) throw error;
    rejectToken(error);
    return;
  }
  $("token").value = "";
  tokenField.conceal();
  setInvalid($("token"), false);
  notify(null);
  showSession();
  if (view && shownHash === location.hash) {
    $("title").focus({ preventScroll: true });
    await load();
  } else await openView();
}

function rejectToken(problem) {
  notify("error", problem.describe() + (problem.name === "wrongToken" ? "" : problem.reference()));
  setInvalid($("token"), ["needToken", "badToken", "wrongToken"].includes(problem.name));
  $("token").focus();
}

// The API no longer accepts the token. The view stays for the next sign-in.
function endSession() {
  const wasOpen = !$("view").hidden;
  token = "";
  session += 1;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  showSession();
  if (!wasOpen) return;
  notify("error", text("sessionEnded"));
  $("token").focus();
}

// Discards the token and everything that was shown with it.
function signOut() {
  token = "";
  session += 1;
  view = shownHash = null;
  discardCreated();
  filters = { ...DEFAULT_FILTERS };
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  $("secret-what").replaceChildren();
  $("view").replaceChildren();
  $("token").value = "";
  tokenField.conceal();
  notify(null);
  showSession();
  document.title = text("title");
}

// Shows the page in the current language.
function translate() {
  translatePage();
  tokenField.show();
  notify(null);
  if (!view) return;
  translateIn($("view"));
  view.show();
  showTitle();
}
