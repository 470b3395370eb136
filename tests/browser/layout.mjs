// Checks written pages on a phone, a tablet and a desktop, in light and dark: nothing is cut off, nothing is loaded from
// elsewhere, and no script runs.
import { basename } from "node:path";
import { cutOff, must, picture } from "./checks.mjs";

// Each width in one scheme; in a complete campaign, in both.
const schemes = process.env.CAMPAIGN === "full" ? ["light", "dark"] : [];
const full = [390, 768, 1280].flatMap((width) => schemes.map((scheme) => [width, scheme]));
const views = full.length ? full : [[390, "light"], [768, "dark"], [1280, "light"]];

// A choice of tables hides the others, by keyboard.
const checkChoices = async (page, at) => {
  const choices = page.locator("fieldset.filter input");
  if (!(await choices.count())) return;
  await choices.first().check();
  const rows = page.locator("tr.t:visible");
  const all = await rows.count();
  await choices.first().focus();
  await page.keyboard.press("ArrowDown");
  const some = await rows.count();
  must(some > 0 && some < all, `${at}: ${some} of ${all} tables are shown`);
};

export const checkWritten = async (page, files, folder) => {
  const trouble = [];
  const heard = {
    console: (m) => m.type() === "error" && trouble.push(m.text()),
    request: (r) => /^(file|data):/.test(r.url()) || trouble.push("elsewhere: " + r.url()),
  };
  for (const [event, hear] of Object.entries(heard)) page.on(event, hear);
  for (const file of files) {
    await page.goto("file://" + file);
    await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
    for (const [width, colorScheme] of views) {
      const at = `${basename(file)} at ${width} px`;
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme });
      const cut = await page.evaluate(cutOff);
      must(cut.length === 0, `${at}: cut off: ${cut.join("; ")}`);
      must((await page.locator("script").count()) === 0, `${at}: a script`);
      await picture(page, `${folder}/${basename(file, ".html")}-${width}-${colorScheme}.png`);
      await checkChoices(page, at);
    }
  }
  must(trouble.length === 0, trouble.join("\n"));
  for (const [event, hear] of Object.entries(heard)) page.removeListener(event, hear);
};
