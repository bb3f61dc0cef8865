// The web UI in a real browser: node ui.cjs CONFIG, a JSON file that tests/tests/ui_browser.rs writes. Each check says its
// name and ends the run with an error when it fails; the last line says how many there were.
"use strict";

const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const config = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const packages = createRequire(path.join(config.packages, "package.json"));
const { chromium } = packages("playwright-core");
const axe = fs.readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");

const LONG = 120000;
const PAGES = ["/", "/volumes", "/volumes/new", "/images", "/images/new", "/snapshots", "/disks", "/events"];
const WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
// A browser says each answer of the range 400 to 599, and each broken connection, on its console; checks that make them
// know.
const EXPECTED = /Failed to load resource: (the server responded with a status of [45]|net::ERR_CONNECTION_RESET)/;

let checks = 0;
const problems = [];

function assert(right, words) {
  if (!right) throw new Error(words);
}

async function check(name, body) {
  try {
    await body();
    assert(problems.length === 0, `the console says: ${problems.join("; ")}`);
    checks += 1;
    console.log(`ok: ${name}`);
  } catch (error) {
    console.log(`FAILED: ${name}: ${error.stack}`);
    process.exitCode = 1;
    problems.length = 0;
  }
}

// A page whose console has to stay silent: what the content security policy stops is said there.
async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  context.setDefaultTimeout(LONG);
  const page = await context.newPage();
  page.on("console", (message) => {
    const bad = ["error", "warning"].includes(message.type()) && !EXPECTED.test(message.text());
    if (bad) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("dialog", (dialog) => { problems.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

const card = (page, word) => page.locator("#base-image-card .state", { hasText: new RegExp(`${word}$`) });
const go = (page, where) => page.goto(config.url + where, { waitUntil: "load" });

async function accessible(page, what) {
  await page.evaluate(axe);
  const found = await page.evaluate((tags) => window.axe.run({ runOnly: tags }), WCAG);
  const words = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`);
  assert(words.length === 0, `${what}: ${words.join("; ")}`);
}

async function narrow(page, what) {
  const [has, takes] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
  assert(takes <= has, `${what} is ${takes} pixels wide on a screen of ${has}`);
}

async function picture(page, name) {
  await page.screenshot({ path: path.join(config.pictures, `ui-${name}.png`), scale: "css" });
}

async function firstPhase(browser) {
  const page = await open(browser, {});
  await check("an empty cluster says what to do first", async () => {
    for (const [where, words] of [["/volumes", "There are no volumes"], ["/images", "There are no images"]]) {
      await go(page, where);
      await page.getByText(words).waitFor();
      await page.getByRole("main").getByRole("link", { name: "Create" }).or(page.getByRole("link", { name: "Pull one" })).first().waitFor();
    }
  });
  await check("the keyboard alone gets to the form, and the first stop skips the menu", async () => {
    await go(page, "/volumes");
    await page.keyboard.press("Tab");
    const first = await page.evaluate(() => document.activeElement.textContent);
    assert(first === "Skip to the content", `the first stop is ${first}`);
    await page.keyboard.press("Enter");
    assert((await page.evaluate(() => document.activeElement.id)) === "main", "the link does not lead to the content");
    for (let steps = 0; ; steps += 1) {
      assert(steps < 10, "Create Volume is not among the first stops");
      await page.keyboard.press("Tab");
      if ((await page.evaluate(() => document.activeElement.textContent)) === "Create Volume") break;
    }
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Create Volume", level: 1 }).waitFor();
  });
  await check("an image is looked up while one types", async () => {
    await page.getByLabel("Base Image").pressSequentially(config.image, { delay: 2 });
    await card(page, "Found").waitFor();
    const words = await page.locator("#base-image-card").textContent();
    assert(words.includes("sha256:"), "the card has no digest");
    assert(words.includes("ext4"), "the card does not say what it holds");
    assert((await page.getByLabel("File system").inputValue()) === "ext4", "the file system is not filled in");
    await accessible(page, "the form with its card");
    await picture(page, "create-volume");
  });
  await check("an image that is not there is said with the registry's reason", async () => {
    await page.getByLabel("Base Image").fill(`${config.image}-not`);
    await card(page, "Not found").waitFor();
    await accessible(page, "the form with a card that says no");
  });
  await check("a wrong name is said beside its field, and what was typed and the card stay", async () => {
    await page.getByLabel("Base Image").fill(config.image);
    await page.getByLabel("Name", { exact: true }).fill("<img src=x onerror=alert(1)>");
    await card(page, "Found").waitFor();
    await page.getByRole("button", { name: "Create volume", exact: true }).click();
    await page.locator("#volume-name-error").waitFor();
    assert((await page.getByLabel("Base Image").inputValue()) === config.image, "the image is forgotten");
    await card(page, "Found").waitFor();
    await accessible(page, "the form with a refusal");
    assert((await page.locator("main img").count()) === 0, "a name became an element");
    assert((await page.getByLabel("Name", { exact: true }).inputValue()).startsWith("<img"), "the name is forgotten");
  });
  await check("a volume is created, and its page gets to the end without being loaded again", async () => {
    await page.getByLabel("Name", { exact: true }).fill("site");
    await page.getByRole("button", { name: "Create volume", exact: true }).click();
    await page.getByRole("heading", { name: "Volume site", level: 1 }).waitFor();
    await page.evaluate(() => { window.stays = true; });
    await page.getByRole("heading", { name: "Actions" }).or(page.locator("dl.facts dt", { hasText: "Made by" })).first().waitFor();
    assert(await page.evaluate(() => window.stays), "the page was loaded again");
    await go(page, "/volumes/site");
    await accessible(page, "the page of a volume");
    await picture(page, "volume");
  });
  await check("a name with HTML in an address stays text", async () => {
    await go(page, `/volumes/${encodeURIComponent("<img src=x onerror=alert(1)>")}`);
    assert((await page.locator("main img").count()) === 0, "a name became an element");
    await go(page, `/volumes?q=${encodeURIComponent("\"><script>alert(1)</script>")}`);
    assert((await page.locator("main script").count()) === 0, "a filter became an element");
  });
  await check("the progress of an image reaches its end without a reload", async () => {
    await go(page, "/images/new");
    const pull = page.getByRole("region", { name: "Pull" });
    await pull.getByLabel("Base Image").fill(config.second);
    await pull.getByLabel("Name", { exact: true }).fill("pulled");
    await pull.getByRole("button", { name: "Pull" }).click();
    await page.getByRole("heading", { name: "pulled", level: 1 }).waitFor();
    await page.evaluate(() => { window.stays = true; });
    await page.getByText("ready").first().waitFor();
    assert(await page.evaluate(() => window.stays), "the page was loaded again");
    await accessible(page, "the page of an image");
    await picture(page, "image");
  });
  await check("an upload that breaks goes on where it was", async () => {
    await go(page, "/images/new");
    let pieces = 0;
    await page.route("**/uploads/**", async (route) => {
      if (route.request().method() !== "PUT") return route.continue();
      pieces += 1;
      if (pieces === 2) return route.fulfill({ status: 502, body: "a proxy" });
      if (pieces === 3) return route.abort("connectionreset");
      if (pieces === 4) {
        // The whole piece arrives, and its answer does not.
        await route.fetch();
        return route.fulfill({ status: 504, body: "a proxy" });
      }
      return route.continue();
    });
    const form = page.getByRole("region", { name: "Upload" });
    await form.getByLabel("Name", { exact: true }).fill("uploaded");
    await form.getByLabel("File").setInputFiles(config.file);
    await picture(page, "new-image");
    await form.getByRole("button", { name: "Upload" }).click();
    await page.waitForURL("**/images/uploaded");
    await page.getByText("ready").first().waitFor();
    assert(pieces >= 5, `only ${pieces} pieces were sent`);
    await page.unroute("**/uploads/**");
  });
  await check("every page passes the rules of WCAG A and AA, in light and dark", async () => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const where of [...PAGES, "/volumes/site", "/volumes/site/delete", "/images/uploaded", "/images/uploaded/delete", "/nothing"]) {
        await go(page, where);
        await accessible(page, `${where} (${colorScheme})`);
        const name = where === "/" ? "overview" : where.slice(1);
        if (colorScheme === "light" && !name.includes("/") && name !== "nothing") await picture(page, name);
        if (colorScheme === "dark" && where === "/volumes") await picture(page, "dark");
      }
    }
    await page.emulateMedia({ colorScheme: "light" });
  });
  await check("no page is wider than a phone", async () => {
    const phone = await open(browser, { viewport: { width: 420, height: 860 }, colorScheme: "dark" });
    for (const where of [...PAGES, "/volumes/site", "/images/uploaded", "/volumes/site/delete"]) {
      await go(phone, where);
      await narrow(phone, where);
    }
    await go(phone, "/volumes/new");
    await picture(phone, "phone");
    await phone.context().close();
  });
  await check("everything works without scripts", async () => {
    const plain = await open(browser, { javaScriptEnabled: false });
    await go(plain, "/volumes/new");
    await plain.getByLabel("Name", { exact: true }).fill("plain");
    await plain.getByLabel("Base Image").fill(config.image);
    await plain.getByRole("button", { name: "Look at the base image" }).click();
    await card(plain, "Found").waitFor();
    await plain.getByRole("button", { name: "Create volume", exact: true }).click();
    await plain.getByRole("heading", { name: "Volume plain", level: 1 }).waitFor();
    await go(plain, "/images/new");
    const form = plain.getByRole("region", { name: "Upload" });
    await form.getByLabel("Name", { exact: true }).fill("plain-upload");
    await form.getByLabel("File").setInputFiles(config.file);
    await form.getByRole("button", { name: "Upload" }).click();
    await plain.getByRole("heading", { name: "plain-upload", level: 1 }).waitFor();
    await plain.context().close();
  });
  await check("another site can do nothing in somebody's name", async () => {
    const other = await open(browser, {});
    await other.route("http://evil.test/**", (route) => route.fulfill({
      contentType: "text/html",
      body: `<form method="post" action="${config.url}/volumes/site/delete"><button>Win</button></form>`,
    }));
    await other.goto("http://evil.test/");
    const [answer] = await Promise.all([
      other.waitForResponse((one) => one.request().method() === "POST"),
      other.getByRole("button").click(),
    ]);
    assert(answer.status() === 403, `the answer is ${answer.status()}`);
    await go(page, "/volumes/site");
    await page.getByRole("heading", { name: "Actions" }).waitFor();
    // Nor is the UI shown inside of another page.
    assert(answer.headers()["content-security-policy"].includes("frame-ancestors 'none'"), "frames are not refused");
    await other.context().close();
  });
  await check("eight tabs are served at once", async () => {
    const context = page.context();
    const tabs = await Promise.all(Array.from({ length: 8 }, () => context.newPage()));
    await Promise.all(tabs.map((tab) => go(tab, "/volumes")));
    const polls = tabs.map((tab) => tab.waitForResponse((one) => one.url().includes("/fragments/volumes")));
    const answers = await Promise.all(polls);
    for (const answer of answers) assert([200, 304].includes(answer.status()), `a poll was answered ${answer.status()}`);
    await Promise.all(tabs.map((tab) => tab.close()));
  });
  await check("a delete asks on a page of its own, which names what is lost", async () => {
    await go(page, "/volumes/plain");
    await page.getByRole("link", { name: "Delete this volume" }).click();
    await page.getByText("This will be lost").waitFor();
    await picture(page, "delete");
    await page.getByRole("button", { name: "Delete the volume" }).click();
    await page.waitForURL("**/volumes");
    assert((await page.getByRole("link", { name: "plain", exact: true }).count()) === 0, "the volume is still listed");
  });
  await check("somebody signs in, is told of a wrong password, and signs out", async () => {
    const login = await open(browser, {});
    await login.goto(`${config.guarded}/volumes?q=s`);
    await login.getByLabel("User").fill("ada");
    await login.getByLabel("Password").fill("wrong");
    await login.getByRole("button", { name: "Sign in" }).click();
    await login.getByRole("alert").waitFor();
    await accessible(login, "the page to sign in");
    await login.getByLabel("User").fill("ada");
    await login.getByLabel("Password").fill(config.password);
    await login.getByRole("button", { name: "Sign in" }).click();
    await login.waitForURL("**/volumes?q=s");
    const cookies = await login.context().cookies();
    assert(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict", JSON.stringify(cookies));
    await login.getByRole("button", { name: "Sign out" }).click();
    await login.waitForURL("**/login");
    await picture(login, "login");
    await login.goto(`${config.guarded}/volumes`);
    await login.getByRole("heading", { name: "Sign in" }).waitFor();
    await login.context().close();
  });
  await check("Create Volume makes an iSCSI target", async () => {
    await go(page, "/volumes/new");
    await page.getByLabel("Name", { exact: true }).fill("target");
    await page.getByLabel("Base Image").fill(config.image);
    await card(page, "Found").waitFor();
    await page.getByLabel("iSCSI target").check();
    const fields = page.locator("details", { hasText: "Initiator names" });
    if (!(await fields.evaluate((one) => one.open))) await fields.locator("summary").click();
    await fields.getByLabel("Initiator names").fill(config.initiator);
    const secret = await fields.getByLabel("CHAP secret").inputValue();
    assert(secret.length >= 12, "no secret is made up");
    const user = await fields.getByLabel("CHAP user").inputValue();
    await page.getByRole("button", { name: "Create volume", exact: true }).click();
    await page.getByRole("heading", { name: "Volume target", level: 1 }).waitFor();
    const fact = (name) => page.locator("dl.facts div", { has: page.locator("dt", { hasText: name }) }).locator("dd").first();
    await fact("IQN").waitFor();
    const found = { user, secret, iqn: (await fact("IQN").textContent()).trim(), portal: (await fact("Target address").textContent()).trim() };
    fs.writeFileSync(config.found, JSON.stringify(found));
    await go(page, "/volumes/target");
    await accessible(page, "the page of a target");
    await picture(page, "target");
    assert(!(await page.content()).includes(secret), "the secret is shown again");
  });
}

async function secondPhase(browser) {
  const page = await open(browser, {});
  await check("the target is taken back", async () => {
    await go(page, "/volumes/target");
    await page.getByRole("button", { name: "Take back" }).click();
    await page.getByRole("button", { name: "Expose" }).waitFor();
  });
  await check("what was done is listed", async () => {
    await go(page, "/events");
    await page.getByText("target").first().waitFor();
    await picture(page, "events");
  });
}

(async () => {
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
  const browser = await chromium.launch({ executablePath: config.chromium, args });
  try {
    await (config.phase === 1 ? firstPhase : secondPhase)(browser);
  } finally {
    await browser.close();
  }
  console.log(`${checks} checks passed`);
})().catch((error) => {
  console.log(`FAILED: ${error.stack}`);
  process.exitCode = 1;
});
