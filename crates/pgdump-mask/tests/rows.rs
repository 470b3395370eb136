//! Rows through the crate's interface: what stays, what changes, what is left out and what is refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use pgdump_mask::{
    ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, Misfit, TableMask, TableShape, suggest,
};

fn key(name: &str) -> MaskKey {
    MaskKey::new(format!("{name} with sixteen bytes or more").into()).unwrap()
}

fn masking(yaml: &str, key_name: &str) -> Masking {
    let file = MaskFile::parse(&format!("version: 1\n{yaml}")).unwrap();
    Masking::new(file, Some(key(key_name))).unwrap()
}

/// A column as `name type`, followed by `!` if it is NOT NULL and unique.
fn column(text: &str) -> ColumnShape {
    let (text, is_key) = match text.strip_suffix('!') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (name, sql_type) = text.split_once(' ').unwrap();
    ColumnShape {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        not_null: is_key,
        unique: is_key,
        is_key,
        ..ColumnShape::default()
    }
}

fn shape(table: &str, columns: &[&str]) -> TableShape {
    let (schema, table) = table.split_once('.').unwrap();
    TableShape {
        schema: schema.to_owned(),
        table: table.to_owned(),
        columns: columns.iter().map(|c| column(c)).collect(),
        parents: Vec::new(),
    }
}

fn table(yaml: &str, key_name: &str, shape: &TableShape) -> TableMask {
    masking(yaml, key_name).table(shape).unwrap().unwrap()
}

fn misfits(yaml: &str, shape: &TableShape) -> Vec<Misfit> {
    masking(yaml, "a").table(shape).err().unwrap()
}

fn mask(mask: &TableMask, rows: &str) -> (String, MaskCounts) {
    let (mut out, mut counts) = (Vec::new(), MaskCounts::default());
    mask.mask_rows(rows.as_bytes(), &mut out, &mut counts)
        .unwrap();
    (String::from_utf8(out).unwrap(), counts)
}

#[test]
fn columns_change_by_their_rules_and_the_rest_stays_byte_for_byte() {
    let shape = shape(
        "s.t",
        &[
            "id integer!",
            "a text",
            "b text",
            "c text",
            "d text",
            "e text",
        ],
    );
    let yaml = "tables: { s.t: { columns: { b: { set: \"x\\ty\" }, c: { null: true }, d: { truncate: 2 } } } }";
    let table = table(yaml, "a", &shape);
    let (rows, counts) = mask(
        &table,
        "1\ta\\\\b\tsecret\tsecret\tx\\ty\tend\\n\n2\t\\N\t\\N\t\\N\t\\N\t\\N\n",
    );
    assert_eq!(
        rows,
        "1\ta\\\\b\tx\\ty\t\\N\tx\\t\tend\\n\n2\t\\N\tx\\ty\t\\N\t\\N\t\\N\n"
    );
    assert_eq!((counts.rows, counts.rows_kept), (2, 2));
    assert_eq!(table.column_names(), ["b", "c", "d"]);
    // A NULL stays NULL, except for a constant.
    assert_eq!(counts.changed, [2, 1, 1]);
    let rules = table.rule_names();
    assert_eq!(rules[0], ("b".to_owned(), "constant".to_owned()));
}

#[test]
fn values_that_stay_as_they_were_are_not_counted() {
    let shape = shape("s.t", &["a text", "b jsonb", "c text"]);
    let yaml = "tables: { s.t: { columns: { a: { replace: { regex: z, with: y } }, b: { json: { $.none: { null: true } } }, c: { set: x } } } }";
    let table = table(yaml, "a", &shape);
    let rows = "a\\\\b\t{\"k\": 1}\tx\n";
    let (masked, counts) = mask(&table, rows);
    assert_eq!(
        (masked.as_str(), &counts.changed[..]),
        (rows, &[0, 0, 0][..])
    );
    let mut values = ["a\\b", "{\"k\": 1}", "x"].map(|v| Some(v.as_bytes().to_vec()));
    let mut decoded = MaskCounts::default();
    assert!(table.mask_values(&mut values, &mut decoded).unwrap());
    assert_eq!(decoded, counts);
}

#[test]
fn values_that_differ_in_case_stay_equal_in_citext() {
    let shape = shape("s.t", &["a citext", "b public.citext", "c citext"]);
    let yaml = "tables: { s.t: { columns: { a: { hash: true }, b: { hash: true }, c: { fake: email } } } }";
    let table = table(yaml, "a", &shape);
    let (rows, _) = mask(&table, "A@x.org\ta@X.org\tA@x.org\nB\tb\ta@x.org\n");
    let rows: Vec<Vec<&str>> = rows.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows[0][0], rows[0][1]);
    assert_eq!(rows[1][0], rows[1][1]);
    assert_eq!(rows[0][2], rows[1][2]);
}

#[test]
fn a_file_that_keeps_everything_changes_nothing() {
    let masking = masking(
        "unlisted: refuse\ntables: { \"*.*\": { columns: { \"*\": keep } } }",
        "a",
    );
    let shape = shape("s.t", &["id integer!", "a text"]);
    assert!(masking.table(&shape).unwrap().is_none());
}

#[test]
fn decoded_values_and_copy_text_give_the_same() {
    let shape = shape("s.t", &["id integer!", "a text", "b text", "c jsonb"]);
    let yaml = "tables: { s.t: { columns: { a: { fake: name }, b: { template: \"{id}:{a}\" }, c: { json: { $.k: { hash: true } } } }, rows: { where: { id: { to: 2 } } } } }";
    let table = table(yaml, "a", &shape);
    let (rows, _) = mask(
        &table,
        "1\tAda\told\t{\"k\": \"v\"}\n2\t\\N\told\t\\N\n3\tX\tY\t{}\n",
    );
    let value = |text: &str| (text != "\\N").then(|| text.as_bytes().to_vec());
    let mut counts = MaskCounts::default();
    let mut decoded = Vec::new();
    for row in [
        ["1", "Ada", "old", "{\"k\": \"v\"}"],
        ["2", "\\N", "old", "\\N"],
        ["3", "X", "Y", "{}"],
    ] {
        let mut values = row.map(value);
        if table.mask_values(&mut values, &mut counts).unwrap() {
            let texts =
                values.map(|v| v.map_or("\\N".to_owned(), |v| String::from_utf8(v).unwrap()));
            decoded.push(texts.join("\t") + "\n");
        }
    }
    assert_eq!(rows, decoded.concat());
    assert_eq!(
        (counts.rows, counts.rows_kept, &counts.changed[..]),
        (3, 2, &[1, 2, 1][..])
    );
    let first: Vec<&str> = rows.lines().next().unwrap().split('\t').collect();
    assert_eq!(first[2], format!("1:{}", first[1]));
    assert!(rows.lines().nth(1).unwrap().starts_with("2\t\\N\t2:\t"));
}

#[test]
fn rows_are_left_out_by_share_values_and_entirely() {
    let customers = shape("shop.customer", &["id integer!", "region text"]);
    let orders = shape("shop.orders", &["id bigint!", "customer_id bigint"]);
    let yaml = "tables:\n  shop.customer: { rows: { share: 20, by: id } }\n  shop.orders: { rows: { share: 20, by: customer_id } }\n  shop.log: { rows: none }\n  shop.region: { rows: { where: { region: [eu, uk] } } }";
    let ids: String = (0..1000).map(|i| format!("{i}\teu\n")).collect();
    let (kept, counts) = mask(&table(yaml, "a", &customers), &ids);
    assert!((150..250).contains(&counts.rows_kept), "{counts:?}");
    let kept: HashSet<&str> = kept
        .lines()
        .map(|l| l.split('\t').next().unwrap())
        .collect();
    let references: String = (0..2000).map(|i| format!("{i}\t{}\n", i % 1000)).collect();
    let (rows, _) = mask(&table(yaml, "a", &orders), &references);
    let customers_of_orders: HashSet<&str> = rows
        .lines()
        .map(|l| l.split('\t').nth(1).unwrap())
        .collect();
    assert_eq!(kept, customers_of_orders);

    let log = table(yaml, "a", &shape("shop.log", &["id integer!"]));
    assert!(log.leaves_out_all_rows() && log.leaves_out_rows());
    let (rows, counts) = mask(&log, "1\n2\n");
    assert_eq!((rows.as_str(), counts.rows, counts.rows_kept), ("", 2, 0));

    let region = table(
        yaml,
        "a",
        &shape("shop.region", &["id integer!", "region text"]),
    );
    assert!(!region.leaves_out_all_rows() && region.leaves_out_rows());
    assert_eq!(
        mask(&region, "1\teu\n2\tus\n3\t\\N\n4\tuk\n").0,
        "1\teu\n4\tuk\n"
    );
}

/// Customers and orders are masked by rules of their own, and the orders of each customer are found as before.
#[test]
fn joins_hold_across_tables_and_widths() {
    for (ty, reference, rule) in [
        ("integer", "bigint", "{ hash: true }"),
        ("uuid", "uuid", "{ hash: true }"),
        ("text", "character varying(64)", "{ hash: true }"),
        ("text", "character varying(64)", "{ fake: email }"),
        ("character varying(20)", "text", "{ digits: true }"),
    ] {
        let yaml = format!(
            "tables:\n  s.a: {{ columns: {{ id: {rule} }} }}\n  s.b: {{ columns: {{ a_id: {rule} }} }}"
        );
        let parents = shape("s.a", &[&format!("id {ty}!")]);
        let children = shape("s.b", &[&format!("a_id {reference}")]);
        let rows: String = (0..100).map(|i| format!("{i}\n")).collect();
        let (parents, _) = mask(&table(&yaml, "a", &parents), &rows);
        let (children, _) = mask(&table(&yaml, "a", &children), &rows);
        assert_eq!(parents, children, "{ty} {rule}");
        assert_ne!(parents, rows);
    }
}

#[test]
fn unique_columns_stay_unique_over_ten_thousand_values() {
    for (ty, rule) in [
        ("smallint", "{ hash: true }"),
        ("integer", "{ hash: true }"),
        ("bigint", "{ digits: true }"),
        ("uuid", "{ hash: true }"),
        ("numeric", "{ hash: true }"),
        ("character varying(16)", "{ hash: true }"),
        ("character varying(29)", "{ fake: email }"),
        ("text", "{ fake: iban }"),
        ("text", "{ digits: true }"),
    ] {
        let yaml = format!("tables: {{ s.t: {{ columns: {{ id: {rule} }} }} }}");
        let table = table(&yaml, "a", &shape("s.t", &[&format!("id {ty}!")]));
        let rows: String = (0..10_000).map(|i| format!("{i}\n")).collect();
        let (masked, _) = mask(&table, &rows);
        let distinct: HashSet<&str> = masked.lines().collect();
        assert_eq!(distinct.len(), 10_000, "{ty} {rule}");
    }
}

#[test]
fn the_key_decides_the_copy() {
    let shape = shape(
        "s.t",
        &[
            "id integer!",
            "name text",
            "born date",
            "pay numeric(10,2)",
            "tags text[]",
        ],
    );
    let yaml = "tables: { s.t: { columns: { id: { hash: true }, name: { fake: name }, born: { shift: 30d, by: id }, pay: { noise: 10% }, tags: { each: { hash: true } } } } }";
    let rows: String = (0..20)
        .map(|i| format!("{i}\tAda {i}\t1990-05-17\t{i}00.00\t{{a,{i}}}\n"))
        .collect();
    let copy = |key_name: &str| mask(&table(yaml, key_name, &shape), &rows).0;
    assert_eq!(copy("a"), copy("a"));
    assert_ne!(copy("a"), copy("b"));
    let columns = |text: &str| -> HashMap<usize, Vec<String>> {
        let mut found: HashMap<usize, Vec<String>> = HashMap::new();
        for line in text.lines() {
            for (at, field) in line.split('\t').enumerate() {
                found.entry(at).or_default().push(field.to_owned());
            }
        }
        found
    };
    let (a, b) = (columns(&copy("a")), columns(&copy("b")));
    assert!((0..5).all(|column| a[&column] != b[&column]));
}

/// Dates in arrays and in JSON move with those in columns.
#[test]
fn all_dates_of_an_entity_move_together() {
    let shape = shape(
        "s.t",
        &["id integer!", "born date", "seen date[]", "meta jsonb"],
    );
    let yaml = "tables: { s.t: { columns: { born: { shift: 30d, by: id }, seen: { each: { shift: 30d, by: id } }, meta: { json: { $.at: { shift: 30d, by: id }, $.x: keep } } } } }";
    let rows = "7\t1990-05-17\t{1990-05-17,NULL}\t{\"at\": \"1990-05-17\"}\n";
    let masked = mask(&table(yaml, "a", &shape), rows).0;
    let moved = masked.split('\t').nth(1).unwrap();
    assert_ne!(moved, "1990-05-17");
    assert_eq!(masked, rows.replace("1990-05-17", moved));
    let two = "tables: { s.t: { columns: { meta: { json: { $.a: { shift: 30d, by: id }, $.b: { shift: 30d, by: born } } } } } }";
    let found = misfits(two, &shape);
    assert!(found[0].why.contains("by born, and by id"), "{found:?}");
    let gone = "tables: { s.t: { columns: { seen: { each: { shift: 30d, by: gone } } } } }";
    let found = misfits(gone, &shape);
    assert!(found[0].why.contains("no column gone"), "{found:?}");
}

#[test]
fn what_does_not_fit_is_refused_by_name_before_rows_move() {
    let shape = shape(
        "s.t",
        &[
            "id integer!",
            "name character varying(4)",
            "at date",
            "code text!",
        ],
    );
    let found = misfits(
        "tables: { s.t: { columns: { id: { set: 1 }, name: { fake: email }, at: { shift: 30d, by: idd }, code: { template: \"{name}\" }, gone: keep }, rows: { share: 5, by: no } } }",
        &shape,
    );
    let texts: Vec<String> = found.iter().map(Misfit::to_string).collect();
    for expected in [
        "s.t, column gone: the rows have no such column",
        "s.t, column id: constant cannot keep a unique column unique",
        "s.t, column name: fake email needs 18 characters",
        "s.t, column at: the rows have no column idd",
        "s.t, column code: template cannot keep a unique column unique",
        "s.t: rows: the rows have no column no",
    ] {
        assert!(
            texts.iter().any(|t| t.starts_with(expected)),
            "{expected}: {texts:#?}"
        );
    }
    assert_eq!(texts.len(), 6, "{texts:#?}");
}

#[test]
fn templates_on_unique_columns_keep_rows_apart() {
    let shape = shape(
        "s.t",
        &["id integer!", "code text!", "name text", "email text!"],
    );
    let misfits_of = |template: &str| {
        let columns = format!("columns: {{ email: {{ template: \"{template}\" }} }}");
        let masking = masking(&format!("tables: {{ s.t: {{ {columns} }} }}"), "a");
        masking.table(&shape).err().unwrap_or_default().len()
    };
    for (template, misfits) in [
        ("{code}@example.org", 0),
        ("{name}.{id}@example.org", 0),
        // (1, 23) and (12, 3), ("a", "b.c") and ("a.b", "c")
        ("{id}{name}", 1),
        ("{code}.{name}", 1),
        ("{name}", 1),
    ] {
        assert_eq!(misfits_of(template), misfits, "{template}");
    }
}

#[test]
fn unlisted_columns_are_refused_by_name() {
    let yaml =
        "unlisted: refuse\ntables: { s.t: { columns: { id: keep } }, s.empty: { rows: none } }";
    let found = misfits(yaml, &shape("s.t", &["id integer!", "new_one text"]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].column.as_deref(), Some("new_one"));
    assert!(found[0].why.contains("unlisted: refuse"));
    // A table that no pattern names, and one whose rows stay out.
    assert_eq!(
        misfits(yaml, &shape("s.other", &["a text", "b text"])).len(),
        2
    );
    assert!(
        masking(yaml, "a")
            .table(&shape("s.empty", &["a text"]))
            .unwrap()
            .is_some()
    );
}

#[test]
fn rules_of_anonymizer_apply_where_the_file_has_none() {
    let mut shape = shape("s.t", &["a text", "b text", "c text"]);
    shape.columns[0].label = Some("MASKED WITH FUNCTION anon.fake_email()".to_owned());
    shape.columns[1].label = Some("MASKED WITH VALUE NULL".to_owned());
    let (rows, _) = mask(
        &table(
            "tables: { s.t: { columns: { b: { set: x } } } }",
            "a",
            &shape,
        ),
        "a\tb\tc\n",
    );
    assert!(rows.contains("@example.com\tx\tc"), "{rows}");
    shape.columns[2].label = Some("MASKED WITH FUNCTION anon.partial(c, 1, '*', 1)".to_owned());
    let found = misfits("tables: {}", &shape);
    assert_eq!(found[0].column.as_deref(), Some("c"));
    assert!(found[0].why.contains("anon.partial"), "{}", found[0].why);
}

#[test]
fn partitions_follow_the_rules_of_their_parent() {
    let mut partition = shape("s.orders_2024", &["id integer", "note text"]);
    partition.parents = vec![("s".to_owned(), "orders".to_owned())];
    let yaml = "tables: { s.orders: { columns: { note: { set: x } } }, \"s.*\": { columns: { note: keep } } }";
    assert_eq!(
        mask(&table(yaml, "a", &partition), "1\tsecret\n").0,
        "1\tx\n"
    );
}

#[test]
fn errors_of_rows_name_the_place_and_no_value() {
    let shape = shape("s.t", &["id integer!", "born date"]);
    let table = table(
        "tables: { s.t: { columns: { born: { shift: 30d, by: id } } } }",
        "a",
        &shape,
    );
    let (mut out, mut counts) = (Vec::new(), MaskCounts::default());
    let error = table
        .mask_rows(b"1\t1990-05-17\n2\tsecret\n", &mut out, &mut counts)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 2 of s.t, column born cannot be masked: not a date in ISO form"
    );
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    let error = table
        .mask_rows(b"1\n", &mut Vec::new(), &mut counts)
        .unwrap_err();
    assert!(error.to_string().contains("as many fields"), "{error}");
    for rows in ["1\n", "1\t1990-05-17\tsecret\n"] {
        let error = table.mask_rows(rows.as_bytes(), &mut Vec::new(), &mut counts);
        assert!(error.is_err(), "{rows}");
    }
    assert!(table.mask_values(&mut [None], &mut counts).is_err());
}

#[test]
fn a_file_that_needs_a_key_does_not_go_without() {
    let file = |yaml: &str| MaskFile::parse(yaml).unwrap();
    let hashed = file("version: 1\ntables: { s.t: { columns: { a: { hash: true } } } }");
    let error = Masking::new(hashed, None).err().unwrap().to_string();
    assert!(
        error.contains("s.t, column a") && error.contains("MASK_KEY_FILE"),
        "{error}"
    );
    let shared = file("version: 1\ntables: { s.t: { rows: { share: 5, by: id } } }");
    assert!(Masking::new(shared, None).is_err());
    let plain = file(
        "version: 1\ntables: { s.t: { columns: { a: { null: true } } }, x.y: { rows: none } }",
    );
    let masking = Masking::new(plain, None).unwrap();
    assert_eq!(masking.key_id(), None);
    assert_eq!(
        masking.unmatched(&[("s".to_owned(), "t".to_owned())]),
        ["x.y"]
    );
}

#[test]
fn suggestions_are_a_file_that_fits() {
    let shape = shape(
        "shop.customer",
        &[
            "id integer!",
            "email text!",
            "first_name character varying(30)",
            "dob date",
            "plain text",
        ],
    );
    let mut yaml = String::from("version: 1\ntables:\n  shop.customer:\n    columns:\n");
    let suggestions = suggest(&shape, &[]);
    assert_eq!(suggestions.len(), 3);
    for suggestion in suggestions {
        yaml.push_str(&format!(
            "      {}: {}\n",
            suggestion.column, suggestion.rule
        ));
    }
    let masking = Masking::new(MaskFile::parse(&yaml).unwrap(), Some(key("a"))).unwrap();
    assert!(masking.table(&shape).unwrap().is_some());
}

/// Both where nothing is compiled and where every value is read: the text of a dump stays as it is.
#[test]
fn rules_that_change_nothing_keep_every_byte_of_a_dump() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for name in ["v15.plain.sql", "v16.plain.sql", "v18.plain.sql"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let blocks: Vec<&str> = text.split("\nCOPY ").skip(1).collect();
        assert!(!blocks.is_empty(), "{name}");
        for block in blocks {
            let (head, after) = block.split_once(" FROM stdin;\n").unwrap();
            // The mark stands on a line of its own: a row may end as it does.
            let end = format!("\n{after}").find("\n\\.\n").unwrap();
            let rows = &after[..end];
            let columns = head.split(", ").count();
            let columns: Vec<String> = (0..columns).map(|i| format!("c{i} text")).collect();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            let shape = shape("s.t", &columns);
            let with =
                |rule: &str| format!("tables: {{ s.t: {{ columns: {{ \"*\": {rule} }} }} }}");
            assert!(masking(&with("keep"), "a").table(&shape).unwrap().is_none());
            let rule = "{ replace: { regex: \"no such text\", with: x } }";
            let (masked, counts) = mask(&table(&with(rule), "a", &shape), rows);
            assert!(masked == rows, "{name}: {head}");
            assert!(counts.changed.iter().all(|n| *n == 0) && counts.rows == counts.rows_kept);
        }
    }
}
