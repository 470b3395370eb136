#![no_main]
//! Any rows under any rule for any type: masked rows or an error, never a panic or a hang.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableMask, TableShape};

const TYPES: [&str; 22] = [
    "text", "character varying(20)", "character(30)", "citext", "enum", "\"char\"", "smallint", "integer", "bigint", "numeric",
    "numeric(20,4)", "numeric(4,4)", "numeric(3,5)", "real", "double precision", "uuid", "date", "timestamp with time zone",
    "jsonb", "text[]", "integer[]", "jsonb[]",
];
const RULES: [&str; 20] = [
    "{ null: true }", "{ template: \"x{other}\" }", "{ hash: true }", "{ fake: email }", "{ fake: name }",
    "{ fake: text }", "{ fake: iban }", "{ digits: true }", "{ shift: 30d, by: other }", "{ noise: 10% }",
    "{ truncate: 3 }", "{ replace: { regex: \"[a-z]\", with: \"$0$0\" } }", "{ json: { $: { hash: true } } }",
    "{ json: { \"$.a[*].b\": { fake: name }, $.*: { noise: 5% } } }", "{ each: { digits: true } }",
    "{ each: { fake: email } }", "{ each: { noise: 5% } }", "{ each: { json: { $.a: { digits: true } } } }", "{ fake: phone }",
    "{ json: { $.a: { shift: 3d, by: other }, $.b: { set: 1 } } }",
];

/// Every rule for every type that it fits.
static MASKS: LazyLock<Vec<TableMask>> = LazyLock::new(|| {
    let key = MaskKey::new("sixteen bytes or more".to_owned().into()).expect("a key");
    let column = |name: &str, sql_type: &str| ColumnShape {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        ..ColumnShape::default()
    };
    let cases = TYPES.iter().flat_map(|ty| RULES.iter().map(move |rule| (ty, rule)));
    cases
        .filter_map(|(ty, rule)| {
            let yaml = format!("version: 1\ntables: {{ s.t: {{ columns: {{ v: {rule} }} }} }}");
            let file = MaskFile::parse(&yaml).expect("a mask file");
            let masking = Masking::new(file, Some(key.clone())).expect("rules with their key");
            let shape = TableShape {
                schema: "s".to_owned(),
                table: "t".to_owned(),
                columns: vec![column("other", "text"), column("v", ty)],
                parents: Vec::new(),
            };
            masking.table(&shape).ok().flatten()
        })
        .collect()
});

fuzz_target!(|data: (u8, &[u8])| {
    let mask = &MASKS[usize::from(data.0) % MASKS.len()];
    let (mut out, mut again) = (Vec::new(), Vec::new());
    let done = mask.mask_rows(data.1, &mut out, &mut MaskCounts::default());
    assert_eq!(done, mask.mask_rows(data.1, &mut again, &mut MaskCounts::default()));
    assert!(out == again, "the same rows became others");
    if done.is_ok() {
        let ends = |rows: &[u8]| rows.iter().filter(|b| **b == b'\n').count();
        assert_eq!(ends(data.1), ends(&out), "a row was added or lost");
    }
});
