// Checks pages in a browser on a phone, a tablet and a desktop, in light and dark: nothing is cut off, nothing is loaded
// from elsewhere, and no script runs. Arguments: folder for screenshots, then files of pages. Prints "done" at the end.
import { createRequire } from "node:module";
import { basename } from "node:path";
import { cutOff } from "./cut-off.mjs";
const require = createRequire(process.env.NODE_MODULES + "/");
const { chromium } = require("playwright-core");
const [folder, ...files] = process.argv.slice(2);
const must = (it, what) => { if (!it) throw new Error(what); };

// Each width in one scheme; in a complete campaign, in both.
const schemes = process.env.CAMPAIGN === "full" ? ["light", "dark"] : [];
const full = [390, 768, 1280].flatMap((width) => schemes.map((scheme) => [width, scheme]));
const views = full.length ? full : [[390, "light"], [768, "dark"], [1280, "light"]];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
// One page for all: a new one takes longer than all that is checked in it.
const page = await browser.newPage();
const trouble = [];
page.on("console", (m) => m.type() === "error" && trouble.push(m.text()));
page.on("request", (r) => /^(file|data):/.test(r.url()) || trouble.push("elsewhere: " + r.url()));
for (const file of files) {
  for (const [width, colorScheme] of views) {
    const at = `${basename(file)} at ${width} px`;
    await page.setViewportSize({ width, height: 844 });
    await page.emulateMedia({ colorScheme });
    await page.goto("file://" + file);
    await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
    const cut = await page.evaluate(cutOff);
    must(cut.length === 0, `${at}: cut off: ${cut.join("; ")}`);
    must((await page.locator("script").count()) === 0, `${at}: a script`);
    await page.screenshot({ path: `${folder}/${basename(file, ".html")}-${width}-${colorScheme}.png`, fullPage: true });
    // A choice of tables hides the others, by keyboard.
    const choices = page.locator("fieldset.filter input");
    if (await choices.count()) {
      const rows = page.locator("tr.t:visible");
      const all = await rows.count();
      await choices.first().focus();
      await page.keyboard.press("ArrowDown");
      const some = await rows.count();
      must(some > 0 && some < all, `${at}: ${some} of ${all} tables are shown`);
    }
  }
}
must(trouble.length === 0, trouble.join("\n"));
await browser.close();
process.stdout.write("done\n");
