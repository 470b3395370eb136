#![no_main]
//! Any file of rules over any rows: refused, or the same masked rows each time, never a panic or a hang.

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableShape, suggest};

/// Columns `a`, `b`, … of these types; the first one is a key.
const TYPES: [&str; 12] = [
    "bigint",
    "text",
    "character varying(20)",
    "character(9)",
    "smallint",
    "numeric(4,4)",
    "double precision",
    "uuid",
    "date",
    "timestamp with time zone",
    "jsonb",
    "text[]",
];

/// One for all inputs: its tables of short strings of digits are made once.
static KEY: LazyLock<MaskKey> =
    LazyLock::new(|| MaskKey::new("sixteen bytes or more".to_owned().into()).expect("a key"));

static SHAPE: LazyLock<TableShape> = LazyLock::new(|| {
    let columns = TYPES.iter().zip('a'..).enumerate();
    TableShape {
        schema: "s".to_owned(),
        table: "t".to_owned(),
        columns: columns
            .map(|(at, (sql_type, name))| ColumnShape {
                name: name.to_string(),
                sql_type: (*sql_type).to_owned(),
                not_null: at == 0,
                unique: at == 0,
                is_key: at == 0,
                ..ColumnShape::default()
            })
            .collect(),
        parents: vec![("s".to_owned(), "parent".to_owned())],
    }
});

// The file, a byte 0, and the rows.
fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let rows = data.get(end + 1..).unwrap_or_default();
    let Ok(yaml) = std::str::from_utf8(&data[..end]) else {
        return;
    };
    let masking = MaskFile::parse(yaml).and_then(|file| Masking::new(file, Some(KEY.clone())));
    let Ok(masking) = masking else {
        return;
    };
    let Ok(Some(mask)) = masking.table(&SHAPE) else {
        return;
    };
    let (mut out, mut again) = (Vec::new(), Vec::new());
    let done = mask.mask_rows(rows, &mut out, &mut MaskCounts::default());
    assert_eq!(
        done,
        mask.mask_rows(rows, &mut again, &mut MaskCounts::default())
    );
    assert!(out == again, "the same rows became others");
    let ends = |rows: &[u8]| rows.iter().filter(|b| **b == b'\n').count();
    if done.is_ok() && !mask.leaves_out_rows() {
        assert_eq!(ends(rows), ends(&out), "a row was added or lost");
    }
    let values = rows.split(|b| *b == b'\n').map(|row| {
        let fields = row.split(|b| *b == b'\t');
        fields.map(|field| Some(field.to_vec())).collect::<Vec<_>>()
    });
    let _ = suggest(&SHAPE, &values.take(20).collect::<Vec<_>>());
});
