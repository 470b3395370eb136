// Takes a picture of a page. Arguments: URL, file of the picture, height in CSS pixels.
import { createRequire } from "node:module";
const require = createRequire(process.env.NODE_MODULES + "/");
const { chromium } = require("playwright-core");
const [url, file, height] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 960, height: Number(height) }, colorScheme: "light" });
await page.goto(url);
await page.screenshot({ path: file });
await browser.close();
