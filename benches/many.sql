-- Many small tables, 20 to 1,000 rows each, a serial key and one index. :rows is the number of tables.
SELECT set_config('bench.rows', :'rows', false);
DO $$
DECLARE n int; t text;
BEGIN
  FOR n IN 0..current_setting('bench.rows')::int - 1 LOOP
    t := format('s%s_tab_%s', n % 20, lpad(n::text, 4, '0'));
    EXECUTE format('CREATE TABLE %I (id serial PRIMARY KEY, name text NOT NULL, val numeric, at timestamptz DEFAULT now(), ref int)', t);
    EXECUTE format('INSERT INTO %I (name, val, at, ref) SELECT md5(g::text), g * 1.37, timestamptz ''2024-01-01'' + g * interval ''1 h'', g %% 50 FROM generate_series(1, %s) g',
      t, (ARRAY[20, 50, 100, 200, 500, 1000])[1 + (hashint4(n) & 1023) % 6]);
    EXECUTE format('CREATE INDEX ON %I (name)', t);
    -- One transaction a table would need more locks than there are.
    IF n % 100 = 99 THEN COMMIT; END IF;
  END LOOP;
END $$;
