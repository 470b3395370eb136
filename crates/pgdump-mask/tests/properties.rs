//! Any rule over any value of its type gives a value that the type accepts; the same key gives the same one.

use std::sync::LazyLock;

use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableMask, TableShape};
use proptest::prelude::*;

/// Rules by the type that they are for.
const RULES: [(&str, &[&str]); 17] = [
    (
        "text",
        &[
            "{ hash: true }",
            "{ fake: name }",
            "{ fake: email }",
            "{ fake: text }",
            "{ digits: true }",
            "{ truncate: 3 }",
            "{ replace: { regex: \"[a-z]+\", with: \"#\" } }",
            "{ template: \"x-{other}\" }",
        ],
    ),
    (
        "character varying(25)",
        &[
            "{ hash: true }",
            "{ fake: name }",
            "{ fake: email }",
            "{ fake: address }",
            "{ fake: iban }",
            "{ fake: phone }",
            "{ replace: { regex: \".\", with: \"abc\" } }",
        ],
    ),
    (
        "smallint",
        &[
            "{ hash: true }",
            "{ digits: true }",
            "{ noise: 10% }",
            "{ noise: 1000 }",
        ],
    ),
    (
        "integer",
        &["{ hash: true }", "{ digits: true }", "{ noise: 50% }"],
    ),
    (
        "bigint",
        &["{ hash: true }", "{ digits: true }", "{ noise: 50% }"],
    ),
    (
        "numeric(12,3)",
        &["{ hash: true }", "{ digits: true }", "{ noise: 33% }"],
    ),
    ("numeric(4,4)", &["{ digits: true }", "{ noise: 33% }"]),
    ("double precision", &["{ noise: 33% }", "{ noise: 0.5 }"]),
    ("real", &["{ noise: 33% }", "{ noise: 1000000 }"]),
    ("uuid", &["{ hash: true }"]),
    (
        "character(9)",
        &[
            "{ hash: true }",
            "{ digits: true }",
            "{ fake: text }",
            "{ fake: phone }",
            "{ replace: { regex: \".\", with: \"$0$0\" } }",
            "{ template: \"x{other}\" }",
        ],
    ),
    ("date", &["{ shift: 30d }", "{ shift: 52w, by: other }"]),
    (
        "timestamp without time zone",
        &["{ shift: 30d }", "{ shift: 90m, by: other }"],
    ),
    (
        "timestamp with time zone",
        &["{ shift: 30d }", "{ shift: 90m, by: other }"],
    ),
    (
        "integer[]",
        &[
            "{ each: { hash: true } }",
            "{ each: { digits: true } }",
            "{ each: { noise: 50% } }",
        ],
    ),
    (
        "jsonb",
        &[
            "{ json: { $: { hash: true } } }",
            "{ json: { $.a: { fake: name }, \"$.b[*]\": { noise: 5% } } }",
            "{ json: { $.*: { null: true } } }",
        ],
    ),
    (
        "text[]",
        &[
            "{ each: { hash: true } }",
            "{ each: { truncate: 1 } }",
            "{ each: { null: true } }",
        ],
    ),
];

/// One for all cases: the tables of small domains are made once per key.
static KEY: LazyLock<MaskKey> =
    LazyLock::new(|| MaskKey::new("sixteen bytes or more".to_owned().into()).unwrap());

fn table(ty: &str, rule: &str) -> TableMask {
    let file = format!("version: 1\ntables: {{ s.t: {{ columns: {{ v: {rule} }} }} }}");
    let masking = Masking::new(MaskFile::parse(&file).unwrap(), Some(KEY.clone())).unwrap();
    let column = |name: &str, ty: &str| ColumnShape {
        name: name.to_owned(),
        sql_type: ty.to_owned(),
        ..ColumnShape::default()
    };
    let shape = TableShape {
        schema: "s".to_owned(),
        table: "t".to_owned(),
        columns: vec![column("other", "text"), column("v", ty)],
        parents: Vec::new(),
    };
    let misfit = format!("{ty} {rule}");
    masking.table(&shape).ok().flatten().expect(&misfit)
}

fn masked(table: &TableMask, value: &str) -> Option<String> {
    let mut row = [Some(b"o\t\\".to_vec()), Some(value.as_bytes().to_vec())];
    let kept = table.mask_values(&mut row, &mut MaskCounts::default());
    assert!(kept.unwrap());
    let [_, value] = row;
    value.map(|v| String::from_utf8(v).unwrap())
}

/// A value of the type, as PostgreSQL writes it.
fn value_of(ty: &str) -> BoxedStrategy<String> {
    match ty {
        "text" => any::<String>().boxed(),
        "character varying(25)" => "\\PC{0,25}".boxed(),
        "smallint" => any::<i16>().prop_map(|v| v.to_string()).boxed(),
        "integer" => any::<i32>().prop_map(|v| v.to_string()).boxed(),
        "bigint" => any::<i64>().prop_map(|v| v.to_string()).boxed(),
        "numeric(12,3)" => (-999_999_999_i64..=999_999_999, 0..1000)
            .prop_map(|(whole, fraction)| format!("{whole}.{fraction:03}"))
            .boxed(),
        "numeric(4,4)" => (any::<bool>(), 0..10_000)
            .prop_map(|(is_negative, digits)| {
                let sign = if is_negative && digits > 0 { "-" } else { "" };
                format!("{sign}0.{digits:04}")
            })
            .boxed(),
        "real" => any::<f32>()
            .prop_filter("finite", |v| v.is_finite())
            .prop_map(|v| format!("{v:e}"))
            .boxed(),
        "uuid" => any::<u128>()
            .prop_map(|v| {
                let digits = format!("{v:032x}");
                let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
                parts.map(|part| digits[part].to_owned()).join("-")
            })
            .boxed(),
        "character(9)" => "\\PC{0,9}".prop_map(|v| format!("{v:<9}")).boxed(),
        "integer[]" => proptest::collection::vec(any::<Option<i32>>(), 0..4)
            .prop_map(|elements| {
                let elements = elements.into_iter();
                let written = elements.map(|e| e.map_or("NULL".to_owned(), |e| e.to_string()));
                format!("{{{}}}", written.collect::<Vec<_>>().join(","))
            })
            .boxed(),
        "double precision" => any::<f64>()
            .prop_filter("finite", |v| v.is_finite())
            .prop_map(|v| format!("{v:e}"))
            .boxed(),
        "date" => (3..9000_i32, 1..=12, 1..=28)
            .prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}"))
            .boxed(),
        "timestamp without time zone" => (3..9000_i32, 1..=12, 1..=28, 0..24, 0..60)
            .prop_map(|(y, m, d, h, s)| format!("{y:04}-{m:02}-{d:02} {h:02}:00:{s:02}.25"))
            .boxed(),
        "timestamp with time zone" => (3..9000_i32, 1..=12, 1..=28, 0..24)
            .prop_map(|(y, m, d, h)| format!("{y:04}-{m:02}-{d:02} {h:02}:59:01+05:30"))
            .boxed(),
        "jsonb" => (any::<String>(), any::<i32>(), any::<bool>())
            .prop_map(|(text, number, flag)| {
                let text = serde_json::to_string(&text).unwrap();
                format!(
                    r#"{{"a": {{"c": {text}}}, "b": [{number}, {flag}, null, 1.50], "z": {text}}}"#
                )
            })
            .boxed(),
        "text[]" => proptest::collection::vec(any::<Option<String>>(), 0..4)
            .prop_map(|elements| {
                let quoted = |e: Option<String>| match e {
                    Some(e) => format!("\"{}\"", e.replace('\\', "\\\\").replace('"', "\\\"")),
                    None => "NULL".to_owned(),
                };
                format!(
                    "{{{}}}",
                    elements
                        .into_iter()
                        .map(quoted)
                        .collect::<Vec<_>>()
                        .join(",")
                )
            })
            .boxed(),
        other => panic!("no values of {other}"),
    }
}

/// Elements of an array, read independently of the crate.
fn elements(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut commas, mut is_quoted, mut is_escaped) = (0, false, false);
    for c in inner.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => commas += 1,
            '{' | '}' if !is_quoted => return None,
            _ => {}
        }
    }
    let is_whole = !is_quoted && !is_escaped;
    is_whole.then_some(if inner.is_empty() { 0 } else { commas + 1 })
}

fn accepts(ty: &str, original: &str, value: &str) -> bool {
    match ty {
        "text" => true,
        "character varying(25)" => value.chars().count() <= 25,
        "smallint" => value.parse::<i16>().is_ok(),
        "integer" => value.parse::<i32>().is_ok(),
        "bigint" => value.parse::<i64>().is_ok(),
        "numeric(12,3)" => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
            let digits = whole.trim_start_matches('-');
            digits.len() <= 9 && digits.parse::<u64>().is_ok() && fraction.len() <= 3
        }
        "numeric(4,4)" => {
            let fraction = value.trim_start_matches('-').strip_prefix("0.");
            fraction.is_some_and(|f| f.len() == 4 && f.parse::<u32>().is_ok())
        }
        "double precision" => value.parse::<f64>().is_ok_and(f64::is_finite),
        "real" => value.parse::<f32>().is_ok_and(f32::is_finite),
        "uuid" => {
            let parts: Vec<usize> = value.split('-').map(str::len).collect();
            parts == [8, 4, 4, 4, 12]
        }
        "character(9)" => value.chars().count() <= 9,
        "integer[]" => {
            let inner = value.trim_matches(['{', '}']);
            let mut all = inner.split(',').filter(|e| !e.is_empty());
            let is_integer = |e: &str| e == "NULL" || e.parse::<i32>().is_ok();
            elements(value) == elements(original) && all.all(is_integer)
        }
        "date" => value
            .parse::<jiff::civil::Date>()
            .is_ok_and(|d| d.to_string() == value),
        "timestamp without time zone" => value.parse::<jiff::civil::DateTime>().is_ok(),
        "timestamp with time zone" => {
            let local = value.strip_suffix("+05:30");
            local.is_some_and(|l| l.parse::<jiff::civil::DateTime>().is_ok())
        }
        "jsonb" => {
            let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            let keys = |text: &str| {
                let object = read(text)?.as_object()?.clone();
                Some(object.keys().cloned().collect::<Vec<_>>())
            };
            read(value).is_some() && keys(value) == keys(original)
        }
        "text[]" => elements(value).is_some() && elements(value) == elements(original),
        _ => false,
    }
}

fn any_case() -> impl Strategy<Value = (&'static str, &'static str, String)> {
    let rules: Vec<(&str, &str)> = RULES
        .iter()
        .flat_map(|(ty, rules)| rules.iter().map(|rule| (*ty, *rule)))
        .collect();
    proptest::sample::select(rules)
        .prop_flat_map(|(ty, rule)| value_of(ty).prop_map(move |value| (ty, rule, value)))
}

/// More of them in `make soak`.
fn cases() -> u32 {
    let is_full_campaign = std::env::var("CAMPAIGN").is_ok_and(|c| c == "full");
    if is_full_campaign { 1024 } else { 384 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_masked_value_is_one_of_its_type((ty, rule, value) in any_case()) {
        let one = masked(&table(ty, rule), &value);
        prop_assert_eq!(&one, &masked(&table(ty, rule), &value));
        if let Some(one) = one {
            prop_assert!(accepts(ty, &value, &one), "{} {}: {:?} became {:?}", ty, rule, value, one);
        }
    }

    /// Fields that no rule is for keep their bytes, whatever they are.
    #[test]
    fn fields_without_a_rule_keep_their_bytes(fields in proptest::collection::vec("[^\t\n\r]{0,12}", 1..20)) {
        let mask = table("text", "{ null: true }");
        let rows: String = fields.iter().map(|f| format!("{f}\tsecret\n")).collect();
        let expected: String = fields.iter().map(|f| format!("{f}\t\\N\n")).collect();
        let mut out = Vec::new();
        mask.mask_rows(rows.as_bytes(), &mut out, &mut MaskCounts::default()).unwrap();
        prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// No text makes masking panic: rows are untrusted input.
    #[test]
    fn any_bytes_are_masked_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
        at in 0..RULES.len(),
    ) {
        let (ty, rules) = RULES[at];
        for rule in rules {
            let mask = table(ty, rule);
            let _ = mask.mask_rows(&bytes, &mut Vec::new(), &mut MaskCounts::default());
        }
    }
}
