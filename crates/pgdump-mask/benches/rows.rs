//! `cargo bench -p pgdump-mask --bench rows`: processor time of masking, per row of the table of `benches/mask.rs`, with all of its
//! rules and with each one alone. Arguments: seconds per rule (1), then the rules to measure (all).

use std::fmt::Write;

use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableMask, TableShape};

const ROWS: u64 = 20_000;
/// The usual size of a chunk of rows.
const CHUNK: usize = 256 << 10;

const RULES: [&str; 10] = [
    "email: { fake: email }",
    "name: { fake: name }",
    "phone: { fake: phone }",
    "ssn: { digits: true }",
    "token: { hash: true }",
    "born: { shift: 30d, by: id }",
    "note: { 'null': true }",
    "login: { template: \"user-{id}@example.org\" }",
    "bio: { replace: { regex: '[\\w.]+@[\\w.]+', with: \"someone@example.com\" } }",
    "profile: { json: { \"$.address.street\": { fake: address }, \"$.contacts[*].phone\": { fake: phone } } }",
];

const COLUMNS: [(&str, &str); 40] = [
    ("id", "bigint"),
    ("email", "text"),
    ("name", "text"),
    ("phone", "character varying(30)"),
    ("ssn", "text"),
    ("token", "text"),
    ("born", "date"),
    ("login", "text"),
    ("note", "text"),
    ("bio", "text"),
    ("profile", "jsonb"),
    ("tenant_id", "integer"),
    ("status", "character varying(12)"),
    ("plan", "character varying(12)"),
    ("country", "character(2)"),
    ("region", "text"),
    ("language", "text"),
    ("currency", "character(3)"),
    ("created_at", "timestamp with time zone"),
    ("updated_at", "timestamp with time zone"),
    ("last_seen", "timestamp without time zone"),
    ("logins", "integer"),
    ("orders", "integer"),
    ("amount", "numeric(14,2)"),
    ("balance", "numeric(14,2)"),
    ("discount", "numeric(5,2)"),
    ("score", "double precision"),
    ("rating", "real"),
    ("is_active", "boolean"),
    ("is_verified", "boolean"),
    ("newsletter", "boolean"),
    ("source", "text"),
    ("campaign", "text"),
    ("referrer", "bigint"),
    ("tags", "text[]"),
    ("flags", "smallint"),
    ("segment", "text"),
    ("remarks", "text"),
    ("settings", "jsonb"),
    ("external_id", "uuid"),
];

fn main() {
    // Under `cargo test --benches`, nothing is measured.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let seconds: f64 = arguments
        .next()
        .map_or(1.0, |s| s.parse().expect("seconds"));
    let wanted: Vec<String> = arguments.collect();
    let rows: String = (1..=ROWS).map(row).collect();
    let chunks = chunks(rows.as_bytes());
    println!("{ROWS} rows, {} bytes each", rows.len() as u64 / ROWS);
    report("all rules", &RULES, &chunks, seconds, &wanted);
    for rule in RULES {
        let name = rule.split(':').next().expect("a column");
        report(name, &[rule], &chunks, seconds, &wanted);
    }
}

fn report(name: &str, rules: &[&str], chunks: &[&[u8]], seconds: f64, wanted: &[String]) {
    if wanted.is_empty() || wanted.iter().any(|w| w == name) {
        let nanoseconds = measure(&table(rules), chunks, seconds);
        println!("{name:10} {nanoseconds:6.0} ns of processor time per row");
    }
}

/// Nanoseconds per row, in the fastest of the rounds.
fn measure(table: &TableMask, chunks: &[&[u8]], seconds: f64) -> f64 {
    let (mut best, mut spent) = (f64::MAX, 0.0);
    while spent < seconds * 1e9 {
        let before = processor_time();
        let mut counts = MaskCounts::default();
        for chunk in chunks {
            let mut out = Vec::with_capacity(chunk.len() + chunk.len() / 8);
            table
                .mask_rows(chunk, &mut out, &mut counts)
                .expect("rows that fit");
            std::hint::black_box(out);
        }
        let used = processor_time() - before;
        spent += used;
        best = best.min(used / ROWS as f64);
    }
    best
}

/// Nanoseconds that this thread has run.
fn processor_time() -> f64 {
    // The kernel counts when it schedules.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    nanoseconds.expect("a number")
}

fn table(rules: &[&str]) -> TableMask {
    let rules: String = rules.iter().map(|r| format!("      {r}\n")).collect();
    let yaml =
        format!("version: 1\ntables:\n  public.people:\n    columns:\n{rules}      \"*\": keep\n");
    let key = MaskKey::new("the same key for every run of the benchmark".into()).expect("a key");
    let masking = Masking::new(MaskFile::parse(&yaml).expect("rules"), Some(key));
    let columns = COLUMNS.map(|(name, sql_type)| ColumnShape {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        ..ColumnShape::default()
    });
    let shape = TableShape {
        schema: "public".to_owned(),
        table: "people".to_owned(),
        columns: columns.into(),
        parents: Vec::new(),
    };
    let table = masking.expect("a mask").table(&shape);
    table.expect("rules that fit").expect("rules that change")
}

/// Whole rows of about [`CHUNK`] bytes.
fn chunks(rows: &[u8]) -> Vec<&[u8]> {
    let (mut chunks, mut rest) = (Vec::new(), rows);
    while !rest.is_empty() {
        let least = CHUNK.min(rest.len() - 1);
        let end = rest[least..].iter().position(|b| *b == b'\n');
        let (chunk, after) = rest.split_at(least + end.expect("whole rows") + 1);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

/// A mixed-up number, in place of a hash function of the server.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// In place of an MD5 sum.
fn hex(n: u64) -> String {
    format!("{:016x}{:016x}", mixed(n), mixed(n ^ 0x5555))
}

fn one_of<'t>(words: &[&'t str], n: u64) -> &'t str {
    words[(n % words.len() as u64) as usize]
}

/// A value in every `each`th row, and NULL in the others.
fn sometimes(g: u64, each: u64, value: String) -> String {
    if g.is_multiple_of(each) {
        value
    } else {
        "\\N".to_owned()
    }
}

/// A row of `benches/people.sql`.
fn row(g: u64) -> String {
    let h = |n: u64| mixed(g.wrapping_mul(31) + n);
    let day = |n: u64| format!("{:02}-{:02}", 1 + n % 12, 1 + n / 12 % 28);
    let clock = |n: u64| format!("{:02}:{:02}:{:02}", n / 3600 % 24, n / 60 % 60, n % 60);
    let mut row = String::new();
    let first = one_of(
        &[
            "Ada", "Grace", "Edsger", "Barbara", "Donald", "Radia", "Tony", "Frances",
        ],
        h(0),
    );
    let _ = write!(
        row,
        "{g}\tperson{g}@corp.test\t{first} {}\t+49 30 {}\t{:03}-{:02}-{:04}\t{}\t{}-{}\tp{g}\t{}\t\
         Writes from person{g}@corp.test about {}{}\t",
        &hex(g % 20_011)[..9],
        10_000_000 + h(1) % 16_777_216,
        g % 1000,
        h(2) % 64,
        g / 1000 % 10_000,
        hex(g),
        1950 + h(3) % 45,
        day(h(3)),
        sometimes(
            g,
            3,
            format!("called on 2024-{}, asked for person{g}", day(g))
        ),
        hex(g % 5003),
        if g.is_multiple_of(10) {
            "\\nand on a second line"
        } else {
            " and other things"
        },
    );
    let _ = write!(
        row,
        "{{\"theme\": \"dark\", \"address\": {{\"zip\": \"{:05}\", \"city\": \"Town {}\", \"street\": \"{} Corn Street\"}}, \
         \"contacts\": [{{\"kind\": \"home\", \"phone\": \"+49 30 {}\"}}]}}\t",
        g % 99_999,
        g % 300,
        g % 900,
        20_000_000 + g
    );
    let _ = write!(
        row,
        "{}\t{}\t{}\t{}\tregion {}\t{}\t{}\t2022-{} {}+00\t2024-{} {}+00\t2025-{} {}\t{}\t{}\t{}.{:02}\t{}.{:02}\t{}.{}0\t",
        1 + h(4) % 1024,
        one_of(&["new", "open", "done", "void"], h(5)),
        one_of(&["free", "pro"], g),
        one_of(&["DE", "FR", "UK", "US"], g),
        g % 40,
        one_of(&["de", "en", "fr"], g),
        one_of(&["EUR", "GBP", "USD"], g),
        day(g / 2000),
        clock(g * 41),
        day(g / 12_000),
        clock(g * 7),
        day(h(6)),
        clock(h(6)),
        h(7) % 1024,
        h(8) % 128,
        h(9) % 167_772,
        h(9) % 100,
        h(10) % 167_772,
        h(10) % 100,
        g % 100,
        g % 10,
    );
    let yes = |yes: bool| if yes { "t" } else { "f" };
    let _ = writeln!(
        row,
        "{}\t{}.{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\tsegment {}\t{} remarks that say about the same as others do\t\
         {{\"key\": \"{}\", \"page\": {}, \"wide\": {}}}\t{}-41d4-8a71-446655440000",
        (h(11) % 65_536) as f64 / 7.0,
        g % 50 / 10,
        g % 10,
        yes(!g.is_multiple_of(5)),
        yes(!g.is_multiple_of(7)),
        yes(g.is_multiple_of(2)),
        one_of(&["web", "app", "shop", "partner"], h(12)),
        sometimes(g, 4, format!("spring {}", g % 20)),
        sometimes(g, 6, (1 + g / 2).to_string()),
        sometimes(g, 3, format!("{{t{},u{}}}", g % 50, g % 20)),
        g % 256,
        g % 12,
        hex(g % 4999),
        hex(g / 3),
        g % 100,
        g.is_multiple_of(2),
        &hex(g)[..8],
    );
    row
}
