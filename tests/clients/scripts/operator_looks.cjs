// Every view of the operators' page in both languages, light and dark, on a desktop and a phone.

const { clean, everyLook, open } = require("./browser.cjs");
const { BASE, call, signedIn, until } = require("./operator.cjs");

const looks = async (browser) => {
  const keys = await createKeys();
  await everyLook(async (options, look) => {
    const claim = await call("POST", `/keys/${keys.idle.id}/claim`, {});
    await claimPage(browser, options, look, claim.url);
    const view = await signIn(browser, options, look);
    await everyView(view, keys, (state) => look(view.page, state));
    await clean(view, view.page.url());
    await view.context.close();
  });
};

// Keys in every state, the longest label and the largest numbers included.
async function createKeys() {
  const add = (body) => call("POST", "/keys", body);
  const keys = {
    idle: await add({ label: "Ada" }),
    long: await add({ label: "An evaluation of the new summariser with long documents ".repeat(4).slice(0, 199), daily_limit: 1000000000 }),
    free: await add({ label: "用户A-2026-11-22", daily_limit: 0, expires_at: "2999-01-01T00:00:00Z" }),
    off: await add({}),
  };
  await call("PATCH", `/keys/${keys.off.id}`, { disabled: true });
  await call("POST", `/keys/${keys.free.id}/claim`, {});
  return keys;
}

async function signIn(browser, options, look) {
  const view = await open(browser, `${BASE}/admin`, `${BASE}/admin`, options);
  await look(view.page, "sign-in");
  await view.id("token-submit").click();
  await view.id("error-message").waitFor();
  await look(view.page, "sign-in-rejected");
  await view.context.close();
  return signedIn(browser, options);
}

async function everyView(view, keys, look) {
  const { page, id } = view;
  const go = async (hash, shown) => {
    await page.goto(`${BASE}/admin${hash}`);
    await shown.waitFor();
    await until(view, () => page.locator("#refresh").getAttribute("aria-disabled", { timeout: 1000 }), (busy) => busy !== "true");
  };
  await go("#/overview", id("tiles").locator("dd").first());
  await look("overview");
  await go("#/keys", id("keys-table"));
  await look("keys");
  await id(`delete-${keys.idle.id}`).click();
  await look("keys-delete");
  await id("confirm-no").click();
  await id("search-input").fill("no such key");
  await id("empty").waitFor();
  await look("keys-none");
  await id("import").click();
  await look("import");
  await id("import-close").click();
  for (const name of ["idle", "long", "free", "off"]) {
    await go(`#/keys/${keys[name].id}`, id("today"));
    await look(`key-${name}`);
  }
  await id("rotate").click();
  await look("rotate");
  await id("confirm-no").click();
  await id("claim").click();
  await look("claim-confirm");
  await id("confirm-no").click();
  await go("#/keys/key_none", id("key-audit"));
  await look("key-gone");
  await page.goto(`${BASE}/admin#/create`);
  await id("create-many").check();
  await look("create");
  await id("label-input").fill("workshop-{n}");
  await id("count-input").fill("12");
  await id("create-submit").click();
  await id("copy-all").waitFor();
  await look("created-many");
  await id("claim-instead").click();
  await id("created-link").first().waitFor();
  await look("created-links");
  await id("created-done").click();
  await id("create-one").check();
  await id("create-submit").click();
  await id("claim-instead").waitFor();
  await look("created-one");
  await id("claim-instead").click();
  await id("created-claim").waitFor();
  await look("created-claim");
  await id("created-done").click();
  await go("#/audit", id("audit-entries"));
  await look("audit");
  await go("#/settings", id("settings"));
  await look("settings");
}

async function claimPage(browser, options, look, url) {
  const whole = new URL(url, BASE).href;
  const view = await open(browser, whole, `${BASE}/claim`, options);
  await view.id("show-key").waitFor();
  await look(view.page, "claim");
  await view.id("show-key").click();
  await view.id("created-key").waitFor();
  await view.page.locator("summary").click();
  await look(view.page, "claim-given");
  await view.page.reload();
  await view.id("problem").waitFor();
  await look(view.page, "claim-opened");
  await clean(view, whole);
  await view.context.close();
}

module.exports = { looks };
