// Makes the pictures of the guides. `docs/pictures/make` runs it.

const assert = require("node:assert/strict");
const { execFileSync, spawn } = require("node:child_process");
const { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:net");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { chromium } = require("playwright-core");

const { GATEWAY, PICTURES, CHROMIUM = "/usr/bin/chromium" } = process.env;
const NAMES = process.argv.slice(2);
const TOKEN = "an-admin-token-for-the-pictures";
const ISSUED = "trial-alice-20261126-Yw4Tn0hZbV7KqLr2sXcE9mJdGa";
const DAYS = 30;
const NOW = "2026-11-26T15:20:00Z";
// Of the window, and of the tallest picture.
const WINDOW = { width: 1180, height: 720 };
const TALLEST = 1250;

// What differs between the two languages: the words of the keys, and the zone of the gateway.
const LANGUAGES = {
  en: {
    locale: "en-GB", suffix: "", zone: "UTC", name: "Trial gateway", contact: "keys@example.com",
    labels: ["alice, evaluation", "bob, evaluation", "partner Orchard", "internal tests", "workshop 1", "workshop 2", "carol, ended", "dave, paused"],
    newLabel: "alice, evaluation", question: "Hello",
  },
  zh: {
    locale: "zh-CN", suffix: ".zh", zone: "Asia/Shanghai", name: "试用网关", contact: "keys@example.com",
    labels: ["用户A-2026-11-02", "用户B-2026-11-02", "合作伙伴-果园科技", "内部测试", "培训班-1", "培训班-2", "用户C-已到期", "用户D-已停用"],
    newLabel: "用户A-2026-11-26", question: "你好",
  },
};

// The keys: how often a day each is used, and what it may.
const KEYS = [
  { user: "alice", limit: 200, daily: 70, today: 143 },
  { user: "bob", limit: 50, daily: 30, today: 52 },
  { user: "orchard", limit: 1000, daily: 150, today: 212 },
  { user: "tests", limit: 0, daily: 40, today: 61 },
  { user: "workshop1", limit: 50, daily: 12, today: 41 },
  { user: "workshop2", limit: 50, daily: 8, today: 7 },
  { user: "carol", limit: 100, daily: 10, today: 0, expires: "2026-11-20T00:00:00Z" },
  { user: "dave", limit: 100, daily: 10, today: 0, disabled: true },
].map((key, place) => ({ ...key, id: `key_5f0c2a9e71b4d8${(0x30 + place).toString(16)}`, text: `trial-${key.user}-20261028-by-hand-${"wx7QpKdR2mVn"[place]}4tQ` }));

// The same numbers in each run.
function seeded(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

// A gateway by a clock that stands still.
class Gateway {
  constructor(words) {
    this.dir = mkdtempSync(join(tmpdir(), "pictures-"));
    this.words = words;
  }

  // Sets the clock of a gateway that runs.
  setClock(at) {
    const draft = join(this.dir, "clock.draft");
    writeFileSync(draft, `${clock(at)}\n`);
    renameSync(draft, join(this.dir, "clock"));
  }

  // Starts it at a time; its clock can be set if it `reads` it, which takes longer at each look.
  async start(at, reads = false) {
    const { name, contact, zone } = this.words;
    if (reads) this.setClock(at);
    const port = await freePort();
    this.base = `http://127.0.0.1:${port}`;
    this.process = spawn(GATEWAY, ["--demo"], {
      cwd: this.dir, stdio: ["ignore", "ignore", "inherit"],
      env: {
        PATH: process.env.PATH, TZ: "UTC", LD_PRELOAD: faketime(), FAKETIME_DONT_FAKE_MONOTONIC: "1", FAKETIME_DISABLE_SHM: "1",
        ...(reads ? { FAKETIME_TIMESTAMP_FILE: join(this.dir, "clock"), FAKETIME_NO_CACHE: "1" } : { FAKETIME: clock(at) }),
        PORT: String(port), ADMIN_TOKEN: TOKEN, QUOTA_TIMEZONE: zone, RUST_LOG: "error", GATEWAY_NAME: name, CONTACT: contact,
        PUBLIC_URL: "https://api.example.com",
      },
    });
    for (let tries = 0; ; tries += 1) {
      const ready = await fetch(`${this.base}/healthz`).then((response) => response.ok, () => false);
      if (ready) return;
      assert.ok(tries < 400 && this.process.exitCode === null, "the gateway did not start");
      await new Promise((done) => setTimeout(done, 25));
    }
  }

  async end() {
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGTERM");
    await ended;
  }

  async remove() {
    if (this.process?.exitCode === null) await this.end();
    rmSync(this.dir, { recursive: true });
  }

  async admin(method, path, body, type = "application/json") {
    const response = await fetch(`${this.base}/admin${path}`, {
      method, headers: { authorization: `Bearer ${TOKEN}`, "content-type": type },
      body: typeof body === "string" ? body : body && JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  // Sends `count` chats with a key: some to the other model, a few that fail.
  async chats(key, count, random, failures) {
    for (let number = 0; number < count; number += 1) {
      const model = random() < 0.3 ? "deepseek-reasoner" : "deepseek-chat";
      const content = this.words.question.repeat(1 + Math.floor(random() * 60));
      const path = random() < failures ? "/v1/audio/speech" : "/v1/chat/completions";
      const body = JSON.stringify({ model, messages: [{ role: "user", content }] });
      const headers = { authorization: `Bearer ${key.text}`, "content-type": "application/json" };
      let response;
      do {
        response = await fetch(this.base + path, { method: "POST", headers, body });
        await response.arrayBuffer();
        // A disk that is busy with something else must not change the figures.
      } while (response.status === 503);
    }
  }

  // Thirty days with these keys, until now.
  async live() {
    const today = Date.parse(NOW);
    const day = (ago) => today - ago * 86400e3;
    await this.start(day(DAYS));
    const lines = KEYS.map((key, place) => [key.id, key.text, JSON.stringify(this.words.labels[place]), key.limit, new Date(day(DAYS - 1)).toISOString(), key.expires ?? ""].join(","));
    await this.admin("POST", "/keys/import", `id,key,label,daily_limit,created_at,expires_at\n${lines.join("\n")}\n`, "text/csv");
    await this.end();
    for (let ago = DAYS - 1; ago >= 1; ago -= 1) {
      await this.start(day(ago));
      const isWeekend = [0, 6].includes(new Date(day(ago)).getUTCDay());
      await Promise.all(KEYS.map((key, place) => {
        const random = seeded(ago * 100 + place);
        const count = Math.round(key.daily * (isWeekend ? 0.3 : 1) * (0.6 + 0.8 * random()));
        return this.chats(key, Math.min(count, key.limit || count), random, ago % 6 ? 0.005 : 0.1);
      }));
      await this.end();
    }
    await this.start(today - 9 * 3600e3, true);
    await this.admin("PATCH", `/keys/${KEYS[7].id}`, { disabled: true });
    const times = [8, 6, 3, 1, 0.5, 0.1];
    for (const [turn, hours] of times.entries()) {
      this.setClock(today - hours * 3600e3);
      await Promise.all(KEYS.map((key, place) => {
        const share = (of) => Math.floor((key.today * of) / times.length);
        return this.chats(key, share(turn + 1) - share(turn), seeded(turn * 100 + place + 7), 0.02);
      }));
    }
    this.setClock(today - 240e3);
    await this.admin("PATCH", `/keys/${KEYS[4].id}`, { daily_limit: 60 });
    await this.admin("POST", `/keys/${KEYS[5].id}/claim`, {});
    this.setClock(today);
  }
}

// A time as faketime reads it.
const clock = (at) => new Date(at).toISOString().slice(0, 19).replace("T", " ");

function faketime() {
  const folders = readdirSync("/usr/lib").map((name) => join("/usr/lib", name));
  const found = [...folders, "/usr/lib", "/usr/local/lib"].map((path) => join(path, "faketime/libfaketimeMT.so.1")).find(existsSync);
  assert.ok(found, "libfaketime is not installed");
  return found;
}

const freePort = () => new Promise((done) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => done(port));
  });
});

// One browser context of a language, and the pictures that are taken in it.
class Camera {
  constructor(browser, gateway, words) {
    Object.assign(this, { browser, gateway, words });
  }

  async open(path) {
    const { locale, zone } = this.words;
    const context = await this.browser.newContext({
      locale, timezoneId: zone, viewport: WINDOW, deviceScaleFactor: 1.25, colorScheme: "light", reducedMotion: "reduce", bypassCSP: true,
    });
    const page = await context.newPage();
    await page.clock.setFixedTime(new Date(NOW));
    await page.goto(this.gateway.base + path);
    // The same font on each machine.
    await page.addStyleTag({ content: ":root, button, input, select { font-family: 'Noto Sans CJK SC', sans-serif !important }" });
    page.named = (id) => page.getByTestId(id);
    return page;
  }

  async signIn() {
    const page = await this.open("/admin");
    await page.named("token-input").fill(TOKEN);
    await page.named("token-submit").click();
    await page.named("shown").waitFor({ state: "attached" });
    return page;
  }

  // Takes a picture of the page from its top, or of one part of it, if it is named.
  async take(page, name, part) {
    if (NAMES.length && !NAMES.some((prefix) => name.startsWith(prefix))) return;
    const file = join(PICTURES, `${name}${this.words.suffix}.png`);
    await page.evaluate(() => document.activeElement?.blur());
    await plain(page, this.gateway.base);
    const height = await page.evaluate(() => Math.ceil(document.querySelector("main").getBoundingClientRect().bottom + scrollY));
    const whole = { fullPage: true, clip: { x: 0, y: 0, width: WINDOW.width, height: Math.min(height, TALLEST) } };
    await (part ?? page).screenshot({ path: file, ...(part ? {} : whole) });
    execFileSync("pngquant", ["--force", "--strip", "--speed", "1", "--output", file, "48", file]);
    console.log(file);
  }
}

// What is made by chance reads the same in each picture.
const plain = (page, base) => page.evaluate(([from, issued]) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    text.data = text.data.replaceAll(from, "https://api.example.com")
      .replace(/http:\/\/127\.0\.0\.1:\d+\/v1/, "https://api.deepseek.com/v1")
      .replace(/^\d{5}$/, "8787")
      .replace(/trial-\w+-20261126-\w{20,}/g, issued)
      .replace(/(claim#)[\w.-]+/g, "$1kQ3vX0aZr7PtWm2nYc8JbLd5Hs1GfUe6");
  }
}, [base, ISSUED]);

async function pictures(camera) {
  const page = await camera.open("/admin");
  await page.named("token-form").waitFor();
  await camera.take(page, "admin-sign-in");
  await page.context().close();
  await adminPictures(camera, await camera.signIn());
  await holderPictures(camera);
}

async function adminPictures(camera, page) {
  const { gateway, words } = camera;
  const go = async (hash, shown) => {
    await page.goto(`${gateway.base}/admin${hash}`);
    await shown.first().waitFor();
    await page.waitForFunction(() => document.querySelector("#refresh")?.getAttribute("aria-disabled") !== "true");
  };
  await go("#/overview", page.named("tiles").locator("dd"));
  await camera.take(page, "admin-today");
  await go("#/keys", page.named("keys-table"));
  await camera.take(page, "admin-keys");
  await go(`#/keys/${KEYS[0].id}`, page.named("today"));
  await camera.take(page, "admin-key");
  await camera.take(page, "admin-handover", page.locator(".card", { has: page.named("claim") }));
  await page.named("rotate").click();
  await camera.take(page, "admin-rotate", page.locator("dialog[open]"));
  await page.named("confirm-no").click();

  await go("#/create", page.named("label-input"));
  await page.named("label-input").fill(words.newLabel);
  await page.named("preset-200").click();
  await camera.take(page, "admin-create");
  await page.named("create-submit").click();
  await page.named("claim-instead").waitFor();
  await camera.take(page, "admin-created");
  await page.named("claim-instead").click();
  await page.named("created-claim").waitFor();
  camera.claim = new URL(await page.named("created-claim").innerText());
  await camera.take(page, "admin-claim");
  await page.named("created-done").click();
  await page.named("create-many").check();
  await page.named("label-input").fill("workshop-{n}");
  await page.named("limit-input").fill("50");
  await page.named("count-input").fill("30");
  await camera.take(page, "admin-create-many");

  await go("#/keys", page.named("keys-table"));
  await page.named("import").click();
  await page.named("import-file").setInputFiles({
    name: "keys.csv", mimeType: "text/csv", buffer: Buffer.from(`key,label,daily_limit\ntrial-erin-by-hand-0001,${words.labels[0].replace(/,.*/, "")} 2,100\n${KEYS[1].text},,50\n`),
  });
  await page.named("import-sum").waitFor();
  await camera.take(page, "admin-import", page.locator("dialog[open]"));
  await page.named("import-close").click();

  await go("#/audit", page.named("audit-entries"));
  await camera.take(page, "admin-audit");
  await go("#/settings", page.named("settings"));
  await camera.take(page, "admin-settings");
  await page.context().close();
}

// What the holder of a key sees.
async function holderPictures(camera) {
  const claim = await camera.open(`/claim${camera.claim.hash}`);
  await claim.named("show-key").waitFor();
  await camera.take(claim, "claim");
  await claim.named("show-key").click();
  await claim.named("created-key").waitFor();
  await camera.take(claim, "claim-given");
  await claim.context().close();

  const usage = await camera.open("/usage");
  await usage.locator("input").first().fill(KEYS[0].text);
  await usage.locator("button[type=submit]").first().click();
  await usage.locator("svg").first().waitFor();
  await camera.take(usage, "usage");
  await usage.context().close();
}

async function main() {
  for (const words of Object.values(LANGUAGES)) {
    const browser = await chromium.launch({
      executablePath: CHROMIUM, env: { ...process.env, LANGUAGE: words.locale.replace("-", "_") },
      args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--font-render-hinting=none", `--lang=${words.locale}`],
    });
    const gateway = new Gateway(words);
    try {
      await gateway.live();
      await pictures(new Camera(browser, gateway, words));
    } finally {
      await gateway.remove();
      await browser.close();
    }
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
