// Signing in and out, and which view is shown. The address holds the view's name and no secret.
let view = null;
let shownAt = null;
// What was done, to be said once the next view is open.
let parting = null;

// `#/keys/<id>` is one key's view.
function addressed() {
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

// Puts the addressed view's markup in place and lets it load.
async function openView() {
  if (!token) return;
  const { name, parameter } = addressed();
  notify(null);
  closeQuestions();
  shownAt = location.hash;
  $("view").replaceChildren($(`${name}-view`).content.cloneNode(true));
  speak($("view"));
  for (const link of $("nav").querySelectorAll("a")) {
    if (link.dataset.view === (name === "key" ? "keys" : name)) link.ariaCurrent = name === "key" ? "true" : "page";
    else link.ariaCurrent = null;
  }
  view = new VIEWS[name](parameter);
  $("refresh")?.addEventListener("click", () => refresh());
  showTitle();
  scrollTo(0, 0);
  $("title").focus({ preventScroll: true });
  const said = parting;
  parting = null;
  if ((await load()) && said) notify("status", said);
}

function goTo(hash, words) {
  parting = words;
  location.hash = hash;
}

function showTitle() {
  document.title = view ? `${$("title").textContent} · ${text("title")}` : text("title");
}

let loads = 0;

// Lets the view ask for what it shows, also while it is loaded: what is wanted may have changed since.
// An answer for a view that was left is dropped.
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

// Does some work with its button busy, and tells what went wrong. Says whether all went well.
async function run(work, button = null, refused = (words) => notify("error", words)) {
  if (button?.ariaDisabled === "true") return false;
  if (button) button.ariaDisabled = "true";
  notify(null);
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.name === "signedOut" || error.name === "wrongToken") return false;
    refused(error.words() + error.reference());
    return false;
  } finally {
    if (button) button.ariaDisabled = null;
  }
}

// The page's one message: what went wrong, or what was done.
function notify(id, words) {
  for (const notice of [$("error"), $("status")]) say(notice, notice.id === id ? words : null);
}

function showDesk() {
  const open = Boolean(token);
  $("token-form").hidden = open;
  for (const id of ["view", "nav"]) $(id).hidden = !open;
  // What a session has left behind can be forgotten.
  $("logout").hidden = !open && !view;
}

async function signIn() {
  token = $("token").value.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  session += 1;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    const name = token ? "badToken" : "needToken";
    token = "";
    refuseToken(new Problem(name));
    return;
  }
  try {
    await api("GET", "/keys?limit=1");
  } catch (error) {
    token = "";
    if (!(error instanceof Problem)) throw error;
    refuseToken(error);
    return;
  }
  $("token").value = "";
  tokenField.conceal();
  markBad($("token"), false);
  notify(null);
  showDesk();
  if (view && shownAt === location.hash) {
    $("title").focus({ preventScroll: true });
    await load();
  } else await openView();
}

function refuseToken(problem) {
  notify("error", problem.words() + (problem.name === "wrongToken" ? "" : problem.reference()));
  markBad($("token"), ["needToken", "badToken", "wrongToken"].includes(problem.name));
  $("token").focus();
}

// The API knows the token no more: the view stays, for whoever signs in again.
function endSession() {
  const wasIn = !$("view").hidden;
  token = "";
  session += 1;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  showDesk();
  if (!wasIn) return;
  notify("error", text("sessionEnded"));
  $("token").focus();
}

// Forgets the token and all that was shown with it.
function signOut() {
  token = "";
  session += 1;
  view = shownAt = null;
  forgetCreated();
  narrowed = { ...NOT_NARROWED };
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  $("secret-what").replaceChildren();
  $("view").replaceChildren();
  $("token").value = "";
  tokenField.conceal();
  notify(null);
  showDesk();
  document.title = text("title");
}

// The language has changed: what is static follows by itself, the rest is written anew.
function translate() {
  speakAll();
  tokenField.show();
  notify(null);
  if (!view) return;
  speak($("view"));
  view.show();
  showTitle();
}
