//! Masked copies of a shop with every kind of key: all joins find as many rows as before, unique columns stay unique, a part
//! of the customers comes with all that is theirs, and the key decides the copy.

use pgrestored::event::RestoreResult;

use crate::masking::{restored, rules};
use crate::support::{Cluster, is_full_campaign};

/// Each customer has three orders, and of these one or two have three lines, the others two.
const SOURCE: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.region (code char(4) PRIMARY KEY, name text);
    CREATE TABLE shop.product (sku varchar(40) PRIMARY KEY, code numeric(20,0) NOT NULL UNIQUE, shelf smallint UNIQUE);
    CREATE TABLE shop.customer (id bigint PRIMARY KEY, uid uuid NOT NULL UNIQUE, email text NOT NULL, handle text UNIQUE,
        card varchar(19) UNIQUE, iban varchar(34) UNIQUE, region char(4),
        parent bigint, name text, born date, score numeric(3,3));
    CREATE UNIQUE INDEX ON shop.customer (email);
    CREATE TABLE shop.orders (id int PRIMARY KEY, customer_id bigint NOT NULL, customer_uid uuid, email text, placed timestamp,
        total numeric(10,2), UNIQUE (id, customer_id));
    CREATE TABLE shop.line (order_id int, no smallint, customer_id bigint NOT NULL, sku text, code numeric, shelf smallint,
        PRIMARY KEY (order_id, no));
    INSERT INTO shop.region SELECT 'EU' || lpad(i::text, 2, '0'), 'Region ' || i FROM generate_series(1, 20) i;
    INSERT INTO shop.product SELECT 'sku-' || i, i * 12345678901234, i - 250 FROM generate_series(1, 500) i;
    INSERT INTO shop.customer SELECT i * 1000003::bigint, md5(i::text)::uuid, 'person' || i || '@corp.test', 'nick' || i,
            '4111 ' || to_char(i, 'FM0000 0000 0000'), CASE WHEN i % 10 > 0 THEN 'DE' || lpad(i::text, 20, '0') END,
            'EU' || lpad((1 + i % 20)::text, 2, '0'), CASE WHEN i > 1 THEN (i / 2) * 1000003::bigint END, 'Ada ' || i % 3000,
            date '1950-01-01' + i % 18000, (i % 1000) / 1000.0
        FROM generate_series(1, CUSTOMERS) i;
    INSERT INTO shop.orders SELECT o, c * 1000003::bigint, CASE WHEN o % 7 > 0 THEN md5(c::text)::uuid END,
            CASE WHEN o % 5 > 0 THEN 'person' || c || '@corp.test' END, timestamp '2020-01-01' + o * interval '37 minutes', o
        FROM (SELECT o, 1 + (o - 1) / 3 AS c FROM generate_series(1, 3 * CUSTOMERS) o) o;
    INSERT INTO shop.line SELECT o, no, (1 + (o - 1) / 3) * 1000003::bigint, 'sku-' || p, p * 12345678901234, p - 250
        FROM (SELECT o, no, 1 + (o * no) % 500 AS p FROM generate_series(1, 3 * CUSTOMERS) o, generate_series(1, 2 + o % 2) no) l;
    ALTER TABLE shop.customer ADD FOREIGN KEY (region) REFERENCES shop.region, ADD FOREIGN KEY (parent) REFERENCES shop.customer;
    ALTER TABLE shop.orders ADD FOREIGN KEY (customer_id) REFERENCES shop.customer,
        ADD FOREIGN KEY (customer_uid) REFERENCES shop.customer (uid), ADD FOREIGN KEY (email) REFERENCES shop.customer (email);
    ALTER TABLE shop.line ADD FOREIGN KEY (customer_id) REFERENCES shop.customer, ADD FOREIGN KEY (sku) REFERENCES shop.product,
        ADD FOREIGN KEY (code) REFERENCES shop.product (code), ADD FOREIGN KEY (shelf) REFERENCES shop.product (shelf),
        ADD FOREIGN KEY (order_id, customer_id) REFERENCES shop.orders (id, customer_id);";

const RULES: &str = r#"version: 1
unlisted: refuse
tables:
  shop.region: { columns: { code: { digits: true }, name: keep } }
  shop.product: { columns: { sku: { hash: true }, code: { hash: true }, shelf: { hash: true } } }
  shop.customer:
    columns:
      id: { hash: true }
      uid: { hash: true }
      email: { fake: email }
      handle: { template: "user-{id}" }
      card: { digits: true }
      iban: { fake: iban }
      region: { digits: true }
      parent: { hash: true }
      name: { fake: name }
      born: { shift: 30d, by: id }
      score: { digits: true }
  shop.orders:
    columns:
      id: { digits: true }
      customer_id: { hash: true }
      customer_uid: { hash: true }
      email: { fake: email }
      placed: { shift: 30d, by: customer_id }
      total: { noise: 10% }
  shop.line:
    columns:
      order_id: { digits: true }
      no: keep
      customer_id: { hash: true }
      sku: { hash: true }
      code: { hash: true }
      shelf: { hash: true }
"#;

const TABLES: [&str; 5] = ["region", "product", "customer", "orders", "line"];

const KEY: &str = "a key of at least sixteen bytes";

/// Statements that say, for each foreign key, how many rows have a value and how many rows the join finds.
const JOINS: &str = "SELECT format('SELECT %L || (SELECT count(*) FROM %s WHERE %s) || %L || count(*) FROM %s c JOIN %s p ON %s',
        conname || ' ', conrelid::regclass, has_value, ' ', conrelid::regclass, confrelid::regclass, matches)
    FROM pg_constraint, LATERAL (
        SELECT string_agg(format('%I IS NOT NULL', a.attname), ' AND ') AS has_value,
            string_agg(format('c.%I = p.%I', a.attname, b.attname), ' AND ') AS matches
        FROM unnest(conkey, confkey) AS k(of_child, of_parent)
        JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = of_child
        JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = of_parent) columns
    WHERE contype = 'f'";

/// Statements that say, for each column of a unique index, how many values and how many different ones it has.
const DISTINCT: &str = "SELECT format('SELECT %L || count(%I) || %L || count(DISTINCT %I) FROM %s',
        indexrelid::regclass || ' ' || attname || ' ', attname, ' ', attname, indrelid::regclass)
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indisunique AND indrelid::regclass::text LIKE 'shop.%'";

/// What else belongs together: orders per customer, and the time between a birth and an order.
const TOGETHER: &str = "SELECT (SELECT md5(string_agg(n::text, ',' ORDER BY n)) FROM (SELECT count(*) AS n FROM shop.line GROUP BY order_id) g)
        || ' ' || (SELECT sum(o.placed::date - c.born) FROM shop.orders o JOIN shop.customer c ON c.id = o.customer_id)
        || ' ' || (SELECT count(*) FROM shop.customer WHERE score IS NOT NULL)
        || ' ' || (SELECT count(DISTINCT name) <= 3000 FROM shop.customer)";

/// The answers to the statements that a query writes, in order.
fn answers(c: &Cluster, database: &str, query: &str) -> Vec<String> {
    let statements = c.psql(database, query);
    let all: Vec<&str> = statements.lines().collect();
    let asked = format!("{} ORDER BY 1", all.join(" UNION ALL "));
    let found = c.psql(database, &asked);
    found.lines().map(str::to_owned).collect()
}

/// A hash of the rows of each table, whatever order they are in.
fn rows(c: &Cluster, database: &str) -> Vec<String> {
    let hash = |table: &&str| {
        format!(
            "(SELECT md5(string_agg(t::text, ',' ORDER BY t::text COLLATE \"C\")) FROM shop.{table} t)"
        )
    };
    let all: Vec<String> = TABLES.iter().map(hash).collect();
    let found = c.psql(database, &format!("SELECT {}", all.join(", ")));
    found.split('|').map(str::to_owned).collect()
}

fn kept(result: &RestoreResult, table: &str) -> u64 {
    let tables = &result.masking.as_ref().unwrap().tables;
    let found = tables.iter().find(|t| t.table == format!("shop.{table}"));
    found.unwrap().rows_kept
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_find_what_they_found() {
    let c = Cluster::start();
    let customers: u64 = if is_full_campaign() { 20_000 } else { 3_000 };
    c.create("src", &SOURCE.replace("CUSTOMERS", &customers.to_string()));
    let joins = answers(&c, "src", JOINS);
    let distinct = answers(&c, "src", DISTINCT);
    assert_eq!(
        (joins.len(), distinct.len()),
        (10, 15),
        "{joins:?} {distinct:?}"
    );
    let archive = c.dump_to_file("src", &["--compress=0"]);
    let text = c.dump_to_file("src", &["-Fp"]);
    let all = rules(&c, "all.yaml", RULES);
    restored(&c, &archive, "copy", (&all, KEY)).await;
    assert_eq!(answers(&c, "copy", JOINS), joins);
    assert_eq!(answers(&c, "copy", DISTINCT), distinct);
    assert_eq!(c.psql("copy", TOGETHER), c.psql("src", TOGETHER));
    let original = "SELECT count(*) FROM shop.customer WHERE email LIKE '%corp.test' OR handle LIKE 'nick%' OR name LIKE 'Ada %'";
    assert_eq!(c.psql("copy", original), "0");
    // The same key in another format, and another key: without the lines, which take the longest.
    let without_lines = format!("{RULES}    rows: none\n");
    let without_lines = rules(&c, "without_lines.yaml", &without_lines);
    let (copy, again) = if is_full_campaign() {
        (rows(&c, "copy"), &all)
    } else {
        let copy = rows(&c, "copy");
        (copy[..4].to_vec(), &without_lines)
    };
    restored(&c, &text, "again", (again, KEY)).await;
    assert_eq!(rows(&c, "again")[..copy.len()], copy);
    check_part(&c, &archive, customers).await;
    let key = "another key of sixteen bytes";
    restored(&c, &archive, "other", (&without_lines, key)).await;
    let (other, source) = (rows(&c, "other"), rows(&c, "src"));
    for (i, table) in TABLES.iter().enumerate().take(4) {
        assert!(other[i] != copy[i] && copy[i] != source[i], "{table}");
    }
}

/// Five per cent of the customers, with all of their orders and lines.
async fn check_part(c: &Cluster, archive: &std::path::Path, all: u64) {
    let mut text = RULES.replace("parent: { hash: true }", "parent: { null: true }");
    for (table, by) in [
        ("customer", "id"),
        ("orders", "customer_id"),
        ("line", "customer_id"),
    ] {
        let head = format!("  shop.{table}:\n");
        let with_rows = format!("{head}    rows: {{ share: 5, by: {by} }}\n");
        text = text.replace(&head, &with_rows);
    }
    let part = rules(c, "part.yaml", &text);
    let result = restored(c, archive, "part", (&part, KEY)).await;
    let customers = kept(&result, "customer");
    assert!((all / 25..all * 3 / 50).contains(&customers), "{customers}");
    assert_eq!(kept(&result, "orders"), 3 * customers);
    for join in answers(c, "part", JOINS) {
        let counts: Vec<&str> = join.split(' ').collect();
        assert_eq!(counts[1], counts[2], "{join}");
        assert_eq!(counts[1] == "0", counts[0].contains("parent"), "{join}");
    }
    let whole = "SELECT bool_and(orders = 3 AND lines IN (7, 8)) || ' ' || count(*) FROM (
        SELECT count(DISTINCT order_id) AS orders, count(*) AS lines FROM shop.line GROUP BY customer_id) l";
    assert_eq!(c.psql("part", whole), format!("true {customers}"));
    let valid = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated";
    assert_eq!(c.psql("part", valid), "10");
    // A part is a part of the whole: the same values of the same customers.
    for table in ["product", "region"] {
        let all =
            format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM shop.{table} t");
        assert_eq!(c.psql("part", &all), c.psql("copy", &all), "{table}");
    }
}
