// Checks pages in a browser: pages that commands wrote, then a worker's status page on a phone in dark mode, on a tablet and
// on a desktop, with the keyboard. Arguments: URL, folder for screenshots, files of pages. Prints a word per step; the test
// that started it waits for these words.
import { createRequire } from "node:module";
import { cutOff, must, picture } from "./checks.mjs";
import { checkWritten } from "./layout.mjs";
const require = createRequire(process.env.NODE_MODULES + "/");
const { chromium } = require("playwright-core");
const [url, folder, ...files] = process.argv.slice(2);
const say = (word) => process.stdout.write(word + "\n");

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const views = [
  { name: "phone", viewport: { width: 390, height: 844 }, colorScheme: "dark" },
  { name: "tablet", viewport: { width: 768, height: 1024 }, colorScheme: "light" },
  { name: "desk", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
];
// One page for all, in each view in turn: a new one takes longer than all that is checked in it.
const page = await browser.newPage();
await checkWritten(page, files, folder);
say("written");
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
  await picture(page, `${folder}/${view.name}-running.png`);
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
  await picture(page, `${folder}/${view.name}-ended.png`);
  must(trouble.length === 0, trouble.join("\n"));
}
// What a worker may say of its queue, with names that would hide themselves or change the direction of the text.
const name = "a\u202etxt\u001b[31m\n\u0000é.dump", at = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();
const shownName = "a\\u{202e}txt\\u{1b}[31m\\n\\u{0}é.dump";
const progress = { stage: "data", object_bytes: 5, object_size: 10, data_bytes: 5, rows: 1, tables_done: 0, tables: 1, tasks_done: 0, tasks: 0, latest_tables: [{ name, rows: 1, is_read: false }] };
const pausedAt = at(60);
const sample = (finished_at, measured_seconds) => ({ finished_at, measured_seconds, bytes: 1 << 20 });
const ended = { request_id: "id\u202e", kind: "verification", status: "failure", verdict: "failed", backup: { name }, target_db: name, started_at: at(9), finished_at: at(5), duration_seconds: 4,
  rows: 7, stages: { data: 3 }, trace_id: "t", error: { reason: "archive_corrupt", message: name }, verification: { depth: "data", evidence: "gs://b/x\u202e/1.dsse.json" } };
const said = {
  version: "0", ready: false, stopping: false, problems: ["topic " + name],
  running: [{ request_id: "id\u202e", kind: "restore", backup: name, target_db: name, started_at: at(5), attempt: 1, progress }],
  sets: [{ name, last_proof: at(60), proven_backup: name, proven_depth: "data", last_verdict: "verified", rto: { measured_seconds: 6, forecast_seconds: 7, samples: 2 }, trend: [sample(at(90), 3), sample(at(60), 6)], is_signed: true }],
  standing: [{ order: "staging", target_db: name, when: "proven", last_success: { order: "staging", outcome: "success", request_id: "standing/staging/1", backup: name, generation: "1", finished_at: at(90) },
    last_failure: { order: "staging", outcome: "failure", request_id: "standing/staging/2", backup: name, generation: "2", finished_at: at(60), reason: "archive_corrupt" }, waiting: name, waiting_generation: "4",
    last_superseded: { order: "staging", outcome: "superseded", request_id: "standing/staging/3", backup: name, generation: "3", finished_at: at(30), superseded_by: "standing/staging/4" } },
    { order: "reports", target_db: "reports", when: "0 3 * * * UTC", last_success: { order: "reports", outcome: "success", request_id: "standing/reports/1", generation: "1", rules: "0a", finished_at: at(90) },
      paused_since: pausedAt, next_due: at(-60) }],
  recent: [ended],
  queue: { held: 4, oldest: at(3600), waiting: [{ reason: "target_busy", messages: 2, oldest: at(3600) }, { reason: "retry", messages: 1, oldest: at(300) }], last_delay_seconds: 2 },
  links: { log: "https://log.example/?q={request_id}", trace: "https://trace.example/{trace_id}" },
};
await page.route("**/status.json", (route) => route.fulfill({ json: said }));
await page.waitForFunction(() => document.querySelectorAll("#recent tr").length === 1, null, { timeout: 30000, polling: 100 });
const shown = await page.evaluate(() => Object.fromEntries(["state", "queue", "running", "sets", "standing", "recent"].map((id) => [id, document.getElementById(id).textContent])));
for (const part of ["state", "running", "sets", "standing", "recent"]) must(shown[part].includes(shownName), `${part}: the name is not escaped: ${shown[part]}`);
const texts = await page.evaluate(() => {
  const of = (e) => [e.textContent, ...[...e.attributes].filter((a) => a.name !== "href").map((a) => a.value)];
  return ["state", "queue", "running", "sets", "standing", "recent"].flatMap((id) => [...document.querySelectorAll(`#${id}, #${id} *`)].flatMap(of));
});
const raw = texts.find((text) => /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u.test(text));
must(raw === undefined, "a control or direction character: " + JSON.stringify(raw));
must(shown.queue === "Queue: 4 messages held by this worker, the oldest published 60 min ago; 2 messages wait for a target that another restore uses, the oldest published 60 min ago; "
  + "1 message waits for the next attempt after a failure, the oldest published 5 min ago; the last new one had waited 2.0 s.", shown.queue);
must((await page.textContent("main")).includes("pubsub.googleapis.com/subscription/num_undelivered_messages"), "the page does not say where the backlog is");
must((await page.locator("#sets svg rect").count()) === 2, "no trend");
for (const part of [`waits: ${shownName}#4; superseded: ${shownName}#3`, `${shownName}#1`, "–#1, masked", "paused since " + pausedAt]) must(shown.standing.includes(part), part + ": " + shown.standing);
must(shown.standing.includes("archive_corrupt") && (await page.locator("#standing td.bad").count()) === 1, "the failure after the last success is not marked: " + shown.standing);
// The addresses of links have the names themselves.
const hrefs = await page.locator("#recent a").evaluateAll((all) => all.map((a) => a.href));
const expected = ["https://log.example/?q=id%E2%80%AE", "https://trace.example/t", "https://storage.cloud.google.com/b/x%E2%80%AE/1.html"];
must(JSON.stringify(hrefs) === JSON.stringify(expected), hrefs.join(" "));
for (const view of views) {
  await show(view);
  const cut = await page.evaluate(cutOff);
  must(cut.length === 0, `${view.name}: cut off: ${cut.join("; ")}`);
  await picture(page, `${folder}/${view.name}-names.png`);
}
must(trouble.length === 0, trouble.join("\n"));
await page.unroute("**/status.json");
// The link to the metrics works.
await page.click("a[href=metrics]");
must((await page.textContent("body")).includes("restore_success_total 1"), "no metrics");
await browser.close();
say("done");
