//! `make bench`, sixth part: the cost of masking 10 of 40 columns. Compares a masked restore with the plain restore of the same
//! object into the same server, in turns, and with what a user would do instead: the plain restore, then an UPDATE that masks as
//! much in SQL, then VACUUM FULL, which removes the original values from the table's files (and not from the WAL). The restore
//! before the UPDATE is the plain one of the same round. Each round checks that nothing of the original e-mail addresses is left.
//!
//! Greenmask is not measured: it masks while it dumps a running server, and PyPI, npm and Debian have no package of it.
//! `docs/comparison.md` compares it from its documentation.
//!
//! `BENCH_SCALE` (1: about 400 MB of table data), `BENCH_PAIRS` (5). Results: `target/bench/mask.json` and, from a scale of 1 on, the
//! figures of `docs/masked-restores.md`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pgrestored::sandbox::Sandbox;
use shared::servers::Postgres;
use shared::{
    MeasuredCost, Ours, Stand, fresh, keep, make_dump, measure, median, query, renew, restore_ours,
    serve, watch,
};

mod shared;

const PAGE: &str = "docs/masked-restores.md";
const PEOPLE: &str = include_str!("people.sql");
/// Number of rows at a scale of 1.
const ROWS: f64 = 500_000.0;

const RULES: &str = r#"version: 1
tables:
  public.people:
    columns:
      email: { fake: email }
      name: { fake: name }
      phone: { fake: phone }
      ssn: { digits: true }
      token: { hash: true }
      born: { shift: 30d, by: id }
      note: { null: true }
      login: { template: "user-{id}@example.org" }
      bio: { replace: { regex: '[\w.]+@[\w.]+', with: "someone@example.com" } }
      profile: { json: { "$.address.street": { fake: address }, "$.contacts[*].phone": { fake: phone } } }
      "*": keep
"#;
const MASKED_COLUMNS: usize = 10;
const KEY: &str = "the same key for every run of the benchmark";

/// Masks the same columns about as well.
const UPDATE: &str = r"UPDATE people SET
    email = md5(email || 'key') || '@example.com',
    name = 'name ' || left(md5(name || 'key'), 12),
    phone = '+1555' || lpad((hashtext(phone || 'key') & 8388607)::text, 7, '0'),
    ssn = translate(ssn, '0123456789', '3807159264'),
    token = md5(token || 'key'),
    born = born + (1 + (hashtext(id || 'key') & 15)),
    note = NULL,
    login = 'user-' || id || '@example.org',
    bio = regexp_replace(bio, '[\w.]+@[\w.]+', 'someone@example.com', 'g'),
    profile = jsonb_set(jsonb_set(profile, '{address,street}', to_jsonb(left(md5(profile->'address'->>'street' || 'key'), 12))),
        '{contacts,0,phone}', to_jsonb('+1555' || lpad((hashtext(profile->'contacts'->0->>'phone' || 'key') & 8388607)::text, 7, '0')))";
const LEFT: &str = "SELECT count(*) FROM people WHERE people::text LIKE '%@corp.test%'";

/// One restore in each way.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct MaskRound {
    plain: MeasuredCost,
    masked: MeasuredCost,
    /// After the plain restore.
    update: MeasuredCost,
    vacuum: MeasuredCost,
}

impl MaskRound {
    fn updated(&self) -> f64 {
        self.plain.seconds + self.update.seconds
    }

    fn vacuumed(&self) -> f64 {
        self.updated() + self.vacuum.seconds
    }
}

#[derive(Debug, serde::Serialize)]
struct MaskResults {
    cores: usize,
    scale: f64,
    rows: u64,
    text_bytes: f64,
    rounds: Vec<MaskRound>,
    /// Medians over the rounds of (this way's seconds / those of the plain restore).
    masked: f64,
    updated: f64,
    vacuumed: f64,
}

struct MaskBench {
    server: Sandbox,
    host: String,
    object: String,
    rules: PathBuf,
    key: PathBuf,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let rows = (ROWS * stand.scale).max(1000.0) as u64;
    let dump = make_dump(&stand.bindir, &stand.scratch, "people", PEOPLE, rows);
    let written = |name: &str, text: &str| {
        let file = stand.scratch.join(name);
        std::fs::write(&file, text).expect("a file");
        file
    };
    let (rules, key) = (written("mask.yaml", RULES), written("mask.key", KEY));
    let server = Postgres::of(&stand.bindir).target(true, "");
    let served = serve(&stand.scratch, 0);
    let bench = MaskBench {
        server,
        host: served.host.clone(),
        object: name_of(&dump),
        rules,
        key,
    };
    let mut text_bytes = 0.0;
    let rounds: Vec<MaskRound> = (0..stand.pairs)
        .map(|number| bench.round(number, &mut text_bytes))
        .collect();
    let ratio = |of: fn(&MaskRound) -> f64| {
        median(rounds.iter().map(|r| of(r) / r.plain.seconds).collect())
    };
    let results = MaskResults {
        cores: stand.cores,
        scale: stand.scale,
        rows,
        text_bytes,
        masked: ratio(|r| r.masked.seconds),
        updated: ratio(MaskRound::updated),
        vacuumed: ratio(MaskRound::vacuumed),
        rounds,
    };
    println!("\n{}", results.text());
    keep("mask.json", &format!("{:#}\n", serde_json::json!(results)));
    renew(PAGE, stand.scale, &results.text());
}

fn name_of(dump: &Path) -> String {
    let name = dump.file_name().and_then(|n| n.to_str());
    name.expect("a name").to_owned()
}

impl MaskBench {
    /// The two that are compared take turns in going first. The UPDATE follows the plain restore.
    fn round(&self, number: usize, text_bytes: &mut f64) -> MaskRound {
        let masked = (number % 2 == 1).then(|| self.masked());
        let plain = self.restore(&[]);
        *text_bytes = plain.result["bytes"].as_f64().expect("bytes");
        let update = self.sql(UPDATE);
        let vacuum = self.sql("VACUUM FULL people");
        self.check();
        let masked = masked.unwrap_or_else(|| self.masked());
        let round = MaskRound {
            plain: plain.measured,
            masked,
            update,
            vacuum,
        };
        println!(
            "round {}: plain {:.2} s, masked {:.2} s, UPDATE {:.2} s, VACUUM FULL {:.2} s",
            number + 1,
            round.plain.seconds,
            round.masked.seconds,
            round.update.seconds,
            round.vacuum.seconds
        );
        round
    }

    fn restore(&self, more: &[&str]) -> Ours {
        fresh(&self.server);
        restore_ours(&self.server, &self.host, &self.object, more)
    }

    fn masked(&self) -> MeasuredCost {
        let [rules, key] = [&self.rules, &self.key].map(|p| p.to_str().expect("UTF-8"));
        let ours = self.restore(&["--mask", rules, "--mask-key-file", key]);
        let columns = ours.result["masking"]["tables"][0]["columns"].as_array();
        let changed = columns.expect("masked columns").iter();
        let changed = changed.filter(|c| c["changed"].as_u64().is_some_and(|n| n > 0));
        assert_eq!(
            changed.count(),
            MASKED_COLUMNS,
            "{}",
            ours.result["masking"]
        );
        self.check();
        ours.measured
    }

    fn sql(&self, sql: &str) -> MeasuredCost {
        measure(&self.server, || {
            let mut psql = self.server.command("psql");
            psql.args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "restored",
                "-c",
                sql,
            ]);
            psql.stdin(Stdio::null());
            watch(psql.spawn().expect("psql"))
        })
    }

    fn check(&self) {
        assert_eq!(
            query(&self.server, "restored", LEFT),
            "0",
            "original values"
        );
    }
}

impl MaskResults {
    fn text(&self) -> String {
        let of = |f: fn(&MaskRound) -> f64| median(self.rounds.iter().map(f).collect());
        let mib = |f: fn(&MaskRound) -> f64| of(f) / 1048576.0;
        format!(
            "{} cores, {} rounds, {} rows of 40 columns, {:.0} MB of table data.\n\n\
             | | s | of the plain restore | CPU s, client + server | MiB of the client |\n|---|---|---|---|---|\n\
             | plain restore | {:.2} | 1 | {:.1} + {:.1} | {:.0} |\n\
             | masked restore, 10 columns | {:.2} | **{:.2}** | {:.1} + {:.1} | {:.0} |\n\
             | plain restore, then UPDATE | {:.2} | {:.2} | {:.1} + {:.1} | {:.0} |\n\
             | the same, then VACUUM FULL | {:.2} | {:.2} | {:.1} + {:.1} | {:.0} |\n",
            self.cores,
            self.rounds.len(),
            self.rows,
            self.text_bytes / 1e6,
            of(|r| r.plain.seconds),
            of(|r| r.plain.client_cpu),
            of(|r| r.plain.server_cpu),
            mib(|r| r.plain.peak_memory_bytes as f64),
            of(|r| r.masked.seconds),
            self.masked,
            of(|r| r.masked.client_cpu),
            of(|r| r.masked.server_cpu),
            mib(|r| r.masked.peak_memory_bytes as f64),
            of(MaskRound::updated),
            self.updated,
            of(|r| r.plain.client_cpu + r.update.client_cpu),
            of(|r| r.plain.server_cpu + r.update.server_cpu),
            mib(|r| r.plain.peak_memory_bytes as f64),
            of(MaskRound::vacuumed),
            self.vacuumed,
            of(|r| r.plain.client_cpu + r.update.client_cpu + r.vacuum.client_cpu),
            of(|r| r.plain.server_cpu + r.update.server_cpu + r.vacuum.server_cpu),
            mib(|r| r.plain.peak_memory_bytes as f64),
        )
    }
}
