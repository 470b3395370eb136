"use strict";
// Everything is written as text, never as HTML: names come from outside.
const $ = (id) => document.getElementById(id);
const cell = (text, cls) => { const td = document.createElement("td"); td.textContent = text ?? "–"; if (cls) td.className = cls; return td; };
const row = (...cells) => { const tr = document.createElement("tr"); tr.append(...cells); return tr; };
// On a phone each row is a card, and each cell shows its column's heading.
const fill = (id, rows) => {
  const body = $(id), heads = [...body.closest("table").querySelectorAll("th")].map((th) => th.textContent);
  rows.forEach((tr) => [...tr.cells].forEach((td, i) => { td.dataset.label = heads[i]; }));
  body.replaceChildren(...rows);
};
const order = ["prepare", "download", "sandbox", "schema", "data", "indexes", "analyze", "check", "swap", "bisect", "evidence"];
const secs = (s) => s == null ? "–" : s < 10 ? s.toFixed(1) + " s" : s < 120 ? Math.round(s) + " s" : s < 7200 ? Math.round(s / 60) + " min" : (s / 3600).toFixed(1) + " h";
const bytes = (n) => { const u = ["B", "KiB", "MiB", "GiB", "TiB"]; let i = 0; while (n >= 1024 && i < 4) { n /= 1024; i++; } return n.toFixed(i ? 1 : 0) + " " + u[i]; };
const ago = (t) => t ? secs((Date.now() - Date.parse(t)) / 1000) + " ago" : "never";
const shade = { verified: "good", success: "good", failed: "bad", failure: "bad", inconclusive: "warn" };

function job(j) {
  const box = document.createElement("div"); box.className = "job";
  const p = j.progress, head = document.createElement("div"), bar = document.createElement("progress"), foot = document.createElement("div");
  const what = j.kind === "verification" ? "verifying " + j.backup : "restoring " + j.backup + " into " + j.target_db;
  head.textContent = what + " (" + p.stage + ")";
  if (p.fraction != null) { bar.max = 1; bar.value = p.fraction; }
  bar.setAttribute("aria-label", what);
  const took = (Date.now() - Date.parse(j.started_at)) / 1000;
  const left = p.eta_seconds != null ? ", about " + secs(p.eta_seconds) + " left" : "";
  foot.className = "soft";
  foot.textContent = bytes(p.object_bytes) + (p.object_size ? " of " + bytes(p.object_size) : "") + " read, " + p.rows.toLocaleString("en") + (p.rows === 1 ? " row" : " rows") + ", tables " + p.tables_done + "/" + p.tables + ", running for " + secs(took) + left;
  box.append(head, bar, foot);
  return box;
}

// The duration, and below it the time of each stage.
function took(r) {
  const td = cell(secs(r.duration_seconds), "num"), parts = document.createElement("div");
  parts.className = "soft stages";
  parts.textContent = Object.entries(r.stages ?? {}).filter(([, s]) => s >= 0.05).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)).map(([name, s]) => name + " " + secs(s)).join(", ");
  td.append(parts);
  return td;
}

function show(s) {
  $("version").textContent = s.version;
  $("state").textContent = s.stopping ? "stopping" : s.ready ? "ready" : "not ready: " + (s.problems?.join("; ") || "the worker's own setup is broken; see its log");
  $("state").className = s.ready ? "good" : "bad";
  const none = document.createElement("p"); none.className = "soft"; none.textContent = "nothing";
  $("running").replaceChildren(...(s.running.length ? s.running.map(job) : [none]));
  fill("sets", s.sets.map((x) => row(cell(x.name), cell(ago(x.last_proof), x.last_proof ? "when" : "bad"), cell(x.proven_backup && x.proven_backup + (x.proven_depth ? ", depth " + x.proven_depth : "") + (x.is_signed ? "" : ", evidence not signed")),
    cell(secs(x.rto?.measured_seconds), "num"), cell(secs(x.rto?.forecast_seconds), "num"), cell(x.last_verdict, shade[x.last_verdict]))));
  fill("recent", s.recent.map((r) => { const word = r.verdict ?? r.status; return row(cell(ago(r.finished_at), "when"),
    cell((r.kind === "verification" ? "" : "restore: ") + word + (r.verification?.depth && !r.error ? ", depth " + r.verification.depth : ""), shade[word]), cell(r.backup.name ?? r.request_id), cell(r.target_db), cell(r.rows.toLocaleString("en"), "num"),
    took(r), cell(r.error ? r.error.reason + ": " + r.error.message : "", "why")); }));
}

async function tick() {
  try { const r = await fetch("status.json", { cache: "no-store" }); show(await r.json()); }
  catch { $("state").textContent = "the worker does not respond"; $("state").className = "bad"; }
  setTimeout(tick, 2000);
}
tick();
