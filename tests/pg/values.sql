-- Values with every escape, wide tables, tables without columns or rows.
CREATE TABLE bytes (i int PRIMARY KEY, c text, b bytea); INSERT INTO bytes SELECT i, chr(i), decode(lpad(to_hex(i), 2, '0'), 'hex') FROM generate_series(1, 255) i;
CREATE TABLE texts (i serial, t text);
INSERT INTO texts (t) VALUES (NULL), (''), ('\N'), (E'\\N'), ('\.'), (E'\\.'), (E'\\.\n'), (E'a\n\\.\nb'), (E'tab\tnl\ncr\rcrnl\r\n'), (E'\b\f\v\x01\x7f'), ('\x41'), ('\\'), (E'\\'), (''''), ('";--'), ('$$'), (repeat('long ', 200000)), (E'ends with backslash\\'), ('é☃🐘'), (' lead'), ('trail '), (E'\t'), (E'\n\n\n');
CREATE TABLE one_column (t text); INSERT INTO one_column VALUES ('\.'), (''), (NULL), ('\N'), ('x');
CREATE TABLE empty_table (a int); CREATE TABLE no_columns (); INSERT INTO no_columns SELECT FROM generate_series(1, 1000);
CREATE TABLE floats (f float8, r real, n numeric, i interval, d date, ts timestamptz); INSERT INTO floats VALUES ('NaN', 'Infinity', 'NaN', '-1 year 3 days 04:05:06.789', 'infinity', '-infinity'), (1e-300, 1e30, 123456789012345678901234567890.000000001, '1 us', '4713-01-01 BC', '294276-12-31'), (0.1::float8 + 0.2, 1/3.0, -0.0, '0', '2026-02-28', now());
DO $$ BEGIN EXECUTE 'CREATE TABLE wide (' || (SELECT string_agg('c' || i || ' smallint', ', ') FROM generate_series(1, 1600) i) || ')'; EXECUTE 'INSERT INTO wide (c1, c800, c1600) SELECT i, i, i FROM generate_series(1, 100) i'; END $$;
CREATE TABLE big_rows (i int, t text); INSERT INTO big_rows SELECT i, (SELECT string_agg(md5((i * 100000 + j)::text), E'\n') FROM generate_series(1, 20000) j) FROM generate_series(1, 2) i;
CREATE TABLE many_rows (i int PRIMARY KEY, a text, b text); INSERT INTO many_rows SELECT i, md5(i::text), E'tab\t' || md5((i * 7)::text) FROM generate_series(1, 15000) i; CREATE INDEX ON many_rows (a);
