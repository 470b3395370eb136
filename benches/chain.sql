-- Forty tables of the same size, each with a foreign key to the one before it, a key and two indexes; :rows is the size of each.
SELECT set_config('bench.rows', :'rows', false);
DO $$
DECLARE n int; t text; prev text; rows int;
BEGIN
  rows := current_setting('bench.rows')::int;
  FOR n IN 0..39 LOOP
    t := format('link_%s', lpad(n::text, 2, '0'));
    EXECUTE format('CREATE TABLE %I (id int NOT NULL, parent_id int, created_at timestamptz NOT NULL, status text NOT NULL, amount numeric(12,2), title text)', t);
    EXECUTE format('INSERT INTO %I SELECT g, 1 + abs(hashint4(g + %s)) %% %s, timestamptz ''2023-01-01'' + (hashint4(g + 5) & 4194303) * interval ''1 s'', (ARRAY[''new'',''open'',''done'',''void''])[1 + (hashint4(g + 5) & 3)], (hashint4(g + 6) & 16777215)::numeric / 100, ''title '' || md5((g + %s)::text) FROM generate_series(1, %s) g',
      t, n, rows, n, rows);
    EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (id)', t);
    EXECUTE format('CREATE INDEX ON %I (parent_id)', t);
    EXECUTE format('CREATE INDEX ON %I (created_at, status)', t);
    IF prev IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (parent_id) REFERENCES %I (id)', t, prev);
    END IF;
    prev := t;
  END LOOP;
END $$;
