// Runs in a page: what reaches beyond the window, or is hidden behind the edge of a box that scrolls.
export const cutOff = () => {
  const name = (e) => e.tagName.toLowerCase() + (e.className && typeof e.className === "string" ? "." + e.className : "") + " " + e.textContent.slice(0, 40);
  const isShown = (e) => e.getClientRects().length > 0 && !e.closest("svg, thead");
  const all = [...document.querySelectorAll("main *")].filter(isShown);
  const beyond = all.filter((e) => { const r = e.getBoundingClientRect(); return r.left < -0.5 || r.right > innerWidth + 0.5; });
  const hidden = all.filter((e) => e.matches(".scroll") && e.scrollWidth > e.clientWidth + 1);
  return [...beyond, ...hidden].map(name);
};

export const must = (it, what) => { if (!it) throw new Error(what); };

// Pictures are for people, and take as long as all checks together: only complete campaigns and `make screenshots` take them.
const takesPictures = process.env.CAMPAIGN === "full" || Boolean(process.env.PICTURES);
export const picture = async (page, path) => { if (takesPictures) await page.screenshot({ path, fullPage: true }); };
