-- 60 tables, each with two foreign keys to earlier ones, and an index for each. :rows is the number of rows of each table.
SELECT set_config('bench.rows', :'rows', false);
DO $$
DECLARE n_rows int := current_setting('bench.rows'); ref1 int; ref2 int;
BEGIN
  CREATE TABLE web_0 (id int PRIMARY KEY, name text);
  INSERT INTO web_0 SELECT g, md5(g::text) FROM generate_series(1, n_rows) g;
  FOR n IN 1..59 LOOP
    ref1 := (hashint4(n) & 2147483647) % n;
    ref2 := (hashint4(n * 31) & 2147483647) % n;
    EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, first_id int, second_id int, name text, at timestamptz)', 'web_' || n);
    EXECUTE format('INSERT INTO %I SELECT g, 1 + (hashint4(g) & 2147483647) %% %s, 1 + (hashint4(g * %s) & 2147483647) %% %s, md5((g + %s)::text), '
      'timestamptz ''2024-01-01'' + g * interval ''1 min'' FROM generate_series(1, %s) g', 'web_' || n, n_rows, n, n_rows, n, n_rows);
    EXECUTE format('CREATE INDEX ON %I (first_id)', 'web_' || n);
    EXECUTE format('CREATE INDEX ON %I (second_id)', 'web_' || n);
    EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (first_id) REFERENCES %I, ADD FOREIGN KEY (second_id) REFERENCES %I',
      'web_' || n, 'web_' || ref1, 'web_' || ref2);
  END LOOP;
END $$;
