#![no_main]
//! Any rows under any rule for any type: masked rows or an error, never a panic or a hang.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableMask, TableShape};

const TYPES: [&str; 14] = [
    "text", "character varying(20)", "character(30)", "smallint", "integer", "bigint", "numeric(20,4)", "real",
    "double precision", "uuid", "date", "timestamp with time zone", "jsonb", "text[]",
];
const RULES: [&str; 16] = [
    "{ null: true }", "{ template: \"x{other}\" }", "{ hash: true }", "{ fake: email }", "{ fake: name }",
    "{ fake: text }", "{ fake: iban }", "{ digits: true }", "{ shift: 30d, by: other }", "{ noise: 10% }",
    "{ truncate: 3 }", "{ replace: { regex: \"[a-z]\", with: \"$0$0\" } }", "{ json: { $: { hash: true } } }",
    "{ json: { \"$.a[*].b\": { fake: name }, $.*: { noise: 5% } } }", "{ each: { digits: true } }",
    "{ each: { fake: email } }",
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
    let (mut out, mut counts) = (Vec::new(), MaskCounts::default());
    if mask.mask_rows(data.1, &mut out, &mut counts).is_ok() {
        let ends = |rows: &[u8]| rows.iter().filter(|b| **b == b'\n').count();
        assert_eq!(ends(data.1), ends(&out), "a row was added or lost");
    }
});
