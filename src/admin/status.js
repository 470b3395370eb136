"use strict";
// Everything is written as text, never as HTML, and control and direction characters are escaped as on a terminal: names
// come from outside.
const unsafe = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu;
const short = { "\t": "\\t", "\r": "\\r", "\n": "\\n" };
const plain = (text) => String(text).replace(unsafe, (c) => short[c] ?? "\\u{" + c.codePointAt(0).toString(16) + "}");
const $ = (id) => document.getElementById(id);
const make = (name, text, cls) => { const e = document.createElement(name); if (text != null) e.textContent = plain(text); if (cls) e.className = cls; return e; };
const write = (e, text) => { const now = plain(text); if (e.textContent !== now) e.textContent = now; };
// The content of a cell is one element, because on a phone the cell is a line with its column's heading at the left.
const cell = (content, cls) => {
  const td = make("td", null, cls), box = make("div");
  box.append(content instanceof Node ? content : plain(content ?? "–"));
  if (content === "") td.classList.add("blank");
  td.append(box);
  td.setAttribute("role", "cell");
  return td;
};
const order = ["prepare", "download", "sandbox", "schema", "data", "indexes", "analyze", "check", "finish", "swap", "bisect", "evidence"];
const secs = (s) => s == null ? "–" : s < 10 ? s.toFixed(1) + " s" : s < 120 ? Math.round(s) + " s" : s < 7200 ? Math.round(s / 60) + " min" : s < 172800 ? (s / 3600).toFixed(1) + " h" : (s / 86400).toFixed(1) + " days";
const bytes = (n) => { const u = ["B", "KiB", "MiB", "GiB", "TiB"]; let i = 0; while (n >= 1024 && i < 4) { n /= 1024; i++; } return n.toFixed(i ? 1 : 0) + " " + u[i]; };
const count = (n, noun) => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");
const age = (t) => (Date.now() - Date.parse(t)) / 1000;
const ago = (t) => t ? secs(age(t)) + " ago" : "never";
const shade = { verified: "good", success: "good", failed: "bad", failure: "bad", inconclusive: "warn" };

// Replaces the children only if they are others, so that neither focus nor selection is lost.
function put(parent, children) {
  const same = parent.children.length === children.length && children.every((c, i) => parent.children[i] === c);
  if (!same) parent.replaceChildren(...children);
}

// Elements by key, made anew only if their data changed. Each has a function `tick` for what changes with time.
const made = { sets: new Map(), standing: new Map(), continuable: new Map(), recent: new Map(), running: new Map() };
function reuse(kind, items, keyOf, build) {
  const old = made[kind], now = new Map();
  for (const item of items) {
    const key = keyOf(item), data = JSON.stringify(item), there = old.get(key);
    now.set(key, there?.data === data ? there : { data, element: build(item, there?.element) });
  }
  made[kind] = now;
  const elements = [...now.values()].map((m) => m.element);
  elements.forEach((e) => e.tick?.());
  return elements;
}

function row(table, ...cells) {
  const tr = make("tr"), heads = $(table).closest("table").querySelectorAll("th");
  tr.setAttribute("role", "row");
  cells.forEach((td, i) => { td.dataset.label = heads[i].textContent; });
  tr.append(...cells);
  return tr;
}

function since(tr, td, time) {
  tr.tick = () => write(td.firstChild, ago(time));
  return tr;
}

function link(text, href) {
  const a = make("a", text);
  a.href = href;
  a.rel = "noreferrer";
  return a;
}

// Links to the log, the trace and the evidence of a job, as far as they are known.
let templates = {};
function links(request, trace, evidence) {
  const found = [];
  const fill = (name, template) => {
    if (!template || (template.includes("{trace_id}") && !trace)) return;
    found.push(link(name, template.replaceAll("{request_id}", encodeURIComponent(request)).replaceAll("{trace_id}", encodeURIComponent(trace ?? ""))));
  };
  fill("log", templates.log);
  fill("trace", templates.trace);
  if (evidence?.startsWith("gs://")) {
    const path = evidence.slice(5).replace(/\.dsse\.json$/, ".html").split("/").map(encodeURIComponent).join("/");
    found.push(link("evidence", "https://storage.cloud.google.com/" + path));
  }
  const box = make("div", null, "links");
  found.forEach((a, i) => box.append(i ? " · " : "", a));
  return box;
}

// A bar for each restore, oldest first.
function trend(samples) {
  if (!samples || samples.length < 2) return "–";
  const svg = (name, values) => { const e = document.createElementNS("http://www.w3.org/2000/svg", name); Object.entries(values).forEach(([k, v]) => e.setAttribute(k, v)); return e; };
  const most = Math.max(...samples.map((s) => s.measured_seconds)) || 1, wide = 120 / samples.length;
  const all = svg("svg", { viewBox: "0 0 120 24", class: "trend", role: "img" });
  const [first, last] = [samples[0], samples[samples.length - 1]];
  all.setAttribute("aria-label", samples.length + " restores, from " + secs(first.measured_seconds) + " to " + secs(last.measured_seconds) + ", at most " + secs(most));
  samples.forEach((s, i) => {
    const high = Math.max(1, s.measured_seconds / most * 24), bar = svg("rect", { x: (i * wide).toFixed(1), y: (24 - high).toFixed(1), width: (wide * 0.8).toFixed(1), height: high.toFixed(1) });
    const title = svg("title", {});
    title.textContent = plain(s.finished_at) + ": " + secs(s.measured_seconds) + " for " + bytes(s.bytes);
    bar.append(title);
    all.append(bar);
  });
  return all;
}

// The box of a running job; `there` is the one of two seconds ago.
function job(j, there) {
  const p = j.progress, what = j.kind === "verification" ? "verifying " + j.backup : "restoring " + j.backup + " into " + j.target_db;
  const box = there ?? make("div", null, "job");
  if (!there) {
    const request = make("div", "request " + j.request_id, "soft");
    box.parts = { head: make("div"), bar: make("progress"), foot: make("div", null, "soft"), tables: make("details"), list: make("ul"), summary: make("summary") };
    box.parts.bar.setAttribute("aria-label", plain(what));
    box.parts.tables.append(box.parts.summary, box.parts.list);
    box.append(box.parts.head, box.parts.bar, box.parts.foot, request, links(j.request_id, j.trace_id), box.parts.tables);
  }
  const { head, bar, foot, tables, list, summary } = box.parts;
  write(head, what + " (" + p.stage + ")");
  if (p.fraction != null) { bar.max = 1; bar.value = p.fraction; }
  const left = p.eta_seconds != null ? ", about " + secs(p.eta_seconds) + " left" : "";
  box.tick = () => {
    write(foot, bytes(p.object_bytes) + (p.object_size ? " of " + bytes(p.object_size) : "") + " read, " + count(p.rows, "row") + ", tables " + p.tables_done + "/" + p.tables + ", running for " + secs(age(j.started_at)) + left);
  };
  const latest = p.latest_tables ?? [];
  tables.hidden = latest.length === 0;
  write(summary, "Tables (the latest " + latest.length + ")");
  list.replaceChildren(...latest.map((t) => make("li", t.name + ": " + count(t.rows, "row") + (t.is_read ? ", all read" : ", being read"))));
  return box;
}

// The duration, and below it the time of each stage.
function took(r) {
  const box = make("div", secs(r.duration_seconds));
  box.append(make("div", Object.entries(r.stages ?? {}).filter(([, s]) => s >= 0.05).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b)).map(([name, s]) => name + " " + secs(s)).join(", "), "soft stages"));
  return cell(box, "num");
}

function set(x) {
  const proven = x.proven_backup && x.proven_backup + (x.proven_depth ? ", depth " + x.proven_depth : "") + (x.is_signed ? "" : ", evidence not signed");
  const when = cell(ago(x.last_proof), x.last_proof ? "when" : "bad");
  return since(row("sets", cell(x.name), when, cell(proven), cell(secs(x.rto?.measured_seconds), "num"), cell(secs(x.rto?.forecast_seconds), "num"),
    cell(trend(x.trend)), cell(x.last_verdict, shade[x.last_verdict])), when, x.last_proof);
}

// A standing restore.
function standing(x) {
  const good = x.last_success, bad = x.last_failure, isWorse = bad && (!good || Date.parse(bad.finished_at) > Date.parse(good.finished_at));
  const when = cell(ago(good?.finished_at), good ? "when" : "bad");
  const of = (name, generation) => name + (generation ? "#" + generation : ""), old = x.last_superseded;
  const isNew = old && (!good || Date.parse(old.finished_at) > Date.parse(good.finished_at));
  const state = [x.problem, x.paused_since && "paused since " + x.paused_since, x.waiting && "waits: " + of(x.waiting, x.waiting_generation),
    isNew && "superseded: " + of(old.backup ?? "–", old.generation), !x.paused_since && !x.waiting && x.next_due && "next run " + x.next_due].filter(Boolean).join("; ");
  return since(row("standing", cell(x.order), cell(x.target_db), when, cell(good && of(good.backup ?? "–", good.generation) + (good.rules ? ", masked" : "")), cell(bad ? bad.finished_at + (bad.reason ? ": " + bad.reason : "") : "", isWorse ? "bad" : null),
    cell(x.when), cell(state, x.problem ? "bad" : x.paused_since ? "warn" : null)), when, good?.finished_at);
}

// A restore that stopped, and whose work is kept.
function continuable(x) {
  const when = cell(ago(x.since), "when");
  return since(row("continuable", cell(x.target), when, cell(x.request_id, "id"), cell(bytes(x.bytes) + " (" + Math.floor(x.share * 100) + " %)", "num"), cell(x.rows.toLocaleString("en"), "num"),
    cell(x.until), cell(x.by_command ? "by hand: restore --resume" : "when its request is delivered again")), when, x.since);
}

function result(r) {
  const word = r.verdict ?? r.status, request = make("div", r.request_id);
  request.append(links(r.request_id, r.trace_id, r.verification?.evidence));
  const when = cell(ago(r.finished_at), "when");
  when.title = plain(r.finished_at);
  return since(row("recent", when, cell((r.kind === "verification" ? "" : "restore: ") + word + (r.verification?.depth && !r.error ? ", depth " + r.verification.depth : ""), shade[word]),
    cell(r.backup.name ?? "–"), cell(r.target_db), cell(request, "id"), cell(r.rows.toLocaleString("en"), "num"), took(r),
    cell(r.error ? r.error.reason + ": " + r.error.message : "", "why")), when, r.finished_at);
}

// Hides the results that lack one of the words.
function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean), rows = [...$("recent").children];
  rows.forEach((tr) => { const text = tr.textContent.toLowerCase(); tr.hidden = !words.every((w) => text.includes(w)); });
  const shown = rows.filter((tr) => !tr.hidden).length;
  write($("matches"), words.length ? shown + " of " + count(rows.length, "result") : "");
}

const waits = {
  target_busy: "for a target that another restore uses",
  same_request: "for another delivery of the same request",
  permit: "until a running job ends (RESTORE_MAX_CONCURRENT)",
  retry: "for the next attempt after a failure",
};

// The messages that the worker holds, those of them that wait, and how long the last new one had waited before.
function queue(q) {
  if (!q) return "";
  const oldest = (at) => at ? ", the oldest published " + ago(at) : "";
  const parts = [q.held ? count(q.held, "message") + " held by this worker" + oldest(q.oldest) : "no message is held by this worker"];
  for (const w of q.waiting ?? []) parts.push(count(w.messages, "message") + (w.messages === 1 ? " waits " : " wait ") + (waits[w.reason] ?? w.reason) + oldest(w.oldest));
  if (q.last_delay_seconds != null) parts.push("the last new one had waited " + secs(q.last_delay_seconds));
  return "Queue: " + parts.join("; ") + ".";
}

function show(s) {
  templates = s.links ?? {};
  write($("version"), s.version);
  const state = s.stopping ? "stopping" : s.ready ? "ready" : "not ready: " + (s.problems?.join("; ") || "the worker's own setup is broken; see its log");
  write($("state"), state);
  $("state").className = s.ready ? "good" : "bad";
  write($("queue"), queue(s.queue));
  const jobs = reuse("running", s.running, (j) => j.request_id + j.started_at, job);
  put($("running"), jobs.length ? jobs : [none]);
  put($("sets"), reuse("sets", s.sets, (x) => x.name, set));
  $("orders").hidden = !s.standing?.length;
  put($("standing"), reuse("standing", s.standing ?? [], (x) => x.order, standing));
  $("waiting").hidden = !s.continuable?.length;
  put($("continuable"), reuse("continuable", s.continuable ?? [], (x) => x.database, continuable));
  put($("recent"), reuse("recent", s.recent, (r) => r.kind + r.request_id, result));
  filter();
}
const none = make("p", "nothing", "soft");

async function tick() {
  try { const r = await fetch("status.json", { cache: "no-store" }); show(await r.json()); }
  catch { write($("state"), "the worker does not respond"); $("state").className = "bad"; }
  setTimeout(tick, 2000);
}
$("filter").addEventListener("input", filter);
tick();
