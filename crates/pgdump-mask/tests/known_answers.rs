//! What a key makes of a value, computed by another implementation (HMAC-SHA-256 and FF1 in Python): the same in every version, so
//! that copies of different nights can be compared.

use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableShape};

/// Column, type, rule, value and masked value.
const ANSWERS: [[&str; 5]; 14] = [
    [
        "hashed",
        "text",
        "{ hash: true }",
        "ada@example.org",
        "7679de2fa185a4994dcca8cf5bac3d1f",
    ],
    [
        "uid",
        "uuid",
        "{ hash: true }",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "d0e06d21-e202-4d5e-87f8-a97829eef0a0",
    ],
    ["small", "integer", "{ hash: true }", "42", "1337198801"],
    ["negative", "integer", "{ hash: true }", "-42", "-840377340"],
    ["same", "bigint", "{ hash: true }", "42", "1337198801"],
    [
        "big",
        "bigint",
        "{ hash: true }",
        "5000000000",
        "2192326080680325867",
    ],
    [
        "exact",
        "numeric(12,2)",
        "{ hash: true }",
        "12.50",
        "7306868885",
    ],
    [
        "ssn",
        "text",
        "{ digits: true }",
        "908-71-0042",
        "801-82-8031",
    ],
    [
        "long",
        "text",
        "{ digits: true }",
        "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "90912817270772524659458459180675830485209474930572434369947792892562195522601497",
    ],
    [
        "balance",
        "numeric(12,2)",
        "{ digits: true }",
        "-12345.67",
        "-19838.42",
    ],
    [
        "phone",
        "text",
        "{ fake: phone }",
        "+49 30 123",
        "+15555623469",
    ],
    [
        "iban",
        "text",
        "{ fake: iban }",
        "x1",
        "DE38106007424230413046",
    ],
    [
        "born",
        "date",
        "{ shift: 30d, by: id }",
        "1990-05-17",
        "1990-05-18",
    ],
    [
        "total",
        "numeric(12,2)",
        "{ noise: 10% }",
        "1234.10",
        "1340.91",
    ],
];

#[test]
fn values_become_what_another_implementation_computes() {
    let rules = ANSWERS.map(|[column, _, rule, ..]| format!("      {column}: {rule}\n"));
    let yaml = format!(
        "version: 1\ntables:\n  s.t:\n    columns:\n{}",
        rules.concat()
    );
    let key = MaskKey::new("a with sixteen bytes or more".to_owned().into()).unwrap();
    assert_eq!(key.id(), "866b5b00");
    let masking = Masking::new(MaskFile::parse(&yaml).unwrap(), Some(key)).unwrap();
    let id = [["id", "integer", "keep", "7", "7"]];
    let all = || id.iter().chain(&ANSWERS);
    let columns = all().map(|[name, sql_type, ..]| ColumnShape {
        name: (*name).to_owned(),
        sql_type: (*sql_type).to_owned(),
        ..ColumnShape::default()
    });
    let shape = TableShape {
        schema: "s".to_owned(),
        table: "t".to_owned(),
        columns: columns.collect(),
        parents: Vec::new(),
    };
    let mask = masking.table(&shape).unwrap().unwrap();
    let values: Vec<&str> = all().map(|[.., value, _]| *value).collect();
    let (mut out, mut counts) = (Vec::new(), MaskCounts::default());
    let row = format!("{}\n", values.join("\t"));
    mask.mask_rows(row.as_bytes(), &mut out, &mut counts)
        .unwrap();
    let masked = String::from_utf8(out).unwrap();
    for ([name, .., wanted], masked) in all().zip(masked.trim_end().split('\t')) {
        assert_eq!(masked, *wanted, "{name}");
    }
    assert_eq!(counts.changed, [1; 14]);
}
