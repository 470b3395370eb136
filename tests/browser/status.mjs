// Checks a worker's status page in a browser: on a phone in dark mode, on a tablet and on a desktop, with the keyboard.
// Arguments: URL, folder for screenshots. Prints a word per step; the test that started it waits for these words.
import { createRequire } from "node:module";
import { cutOff } from "./cut-off.mjs";
const require = createRequire(process.env.NODE_MODULES + "/");
const { chromium } = require("playwright-core");
const [url, folder] = process.argv.slice(2);
const say = (word) => process.stdout.write(word + "\n");
const must = (it, what) => { if (!it) throw new Error(what); };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const views = [
  { name: "phone", viewport: { width: 390, height: 844 }, colorScheme: "dark" },
  { name: "tablet", viewport: { width: 768, height: 1024 }, colorScheme: "light" },
  { name: "desk", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
];
// One page in each view in turn: a new one takes longer than all that is checked in it.
const page = await browser.newPage();
const trouble = [];
page.on("console", (m) => m.type() === "error" && trouble.push(m.text()));
page.on("pageerror", (e) => trouble.push(String(e)));
page.on("requestfailed", (r) => trouble.push("failed: " + r.url()));
page.on("request", (r) => r.url().startsWith(url) || r.url().startsWith("data:") || trouble.push("elsewhere: " + r.url()));
const show = async ({ viewport, colorScheme }) => {
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
};
await show(views[0]);
await page.goto(url);

// The bar of the running restore grows, and the remaining time is shown.
for (const view of views) {
  await show(view);
  const bar = page.locator("#running progress");
  await bar.waitFor({ timeout: 30000 });
  const first = await bar.evaluate((b) => b.value);
  await page.waitForFunction((v) => document.querySelector("#running progress")?.value > v, first, { timeout: 30000, polling: 100 });
  await page.waitForFunction(() => /about .* left/.test(document.querySelector("#running").textContent), null, { timeout: 30000, polling: 100 });
  const text = await page.locator("#running").textContent();
  must(text.includes("restoring src.dump into slow"), text);
  must(text.includes("request slow"), "no request id: " + text);
  await page.waitForFunction(() => /public\.t: [\d,]+ rows?, being read/.test(document.querySelector("#running").textContent), null, { timeout: 30000, polling: 100 });
  must((await page.locator("#state").textContent()) === "ready", "the state is not ready");
  await page.screenshot({ path: `${folder}/${view.name}-running.png`, fullPage: true });
}
say("running");

// Ended jobs show their result, their error and the time of each stage.
for (const view of views) {
  await show(view);
  const recent = page.locator("#recent");
  await page.waitForFunction(() => /restore: success/.test(document.querySelector("#recent").textContent), null, { timeout: 60000, polling: 100 });
  const text = await recent.textContent();
  must(text.includes("backup_not_found"), "no reason of the failure: " + text);
  must(/data [\d.]+ s/.test(text), "no stage times: " + text);
  must(text.includes("slow"), "no request id: " + text);
  const cut = await page.evaluate(cutOff);
  must(cut.length === 0, `${view.name}: cut off: ${cut.join("; ")}`);
  // The filter leaves the results that have the word.
  const rows = page.locator("#recent tr:visible");
  const all = await rows.count();
  await page.fill("#filter", "BACKUP_not_found");
  must((await rows.count()) === 1, `${view.name}: ${await rows.count()} rows match`);
  must((await page.textContent("#matches")) === `1 of ${all} results`, await page.textContent("#matches"));
  await page.fill("#filter", "");
  must((await rows.count()) === all, `${view.name}: rows stay hidden`);
  // The colours follow the preferred colour scheme.
  const shade = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number).reduce((a, b) => a + b));
  must(view.colorScheme === "dark" ? shade < 200 : shade > 600, `${view.name}: background ${shade}`);
  // Every link can be reached with Tab, and the focus is visible.
  const reached = new Set();
  for (let i = 0; i < 15; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => { const a = document.activeElement; return { href: a.getAttribute("href"), outline: getComputedStyle(a).outlineStyle }; });
    if (at.href) { reached.add(at.href); must(at.outline !== "none", "no visible focus on " + at.href); }
  }
  for (const link of ["metrics", "status.json", "readyz"]) must(reached.has(link), `${view.name}: Tab does not reach ${link}`);
  await page.screenshot({ path: `${folder}/${view.name}-ended.png`, fullPage: true });
  must(trouble.length === 0, trouble.join("\n"));
}
// The link to the metrics works.
await page.click("a[href=metrics]");
must((await page.textContent("body")).includes("restore_success_total 1"), "no metrics");
await browser.close();
say("done");
