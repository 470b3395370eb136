-- One table in 150 partitions by week, with a key and two indexes; :rows is the number of rows of all partitions.
SELECT set_config('bench.rows', :'rows', false);
CREATE TABLE readings (id bigint NOT NULL, at timestamptz NOT NULL, device int NOT NULL, kind text NOT NULL, value double precision, note text) PARTITION BY RANGE (at);
DO $$
DECLARE n int; per int; t text; first timestamptz;
BEGIN
  per := greatest(1, current_setting('bench.rows')::int / 150);
  FOR n IN 0..149 LOOP
    t := format('readings_%s', lpad(n::text, 3, '0'));
    first := timestamptz '2022-01-03 00:00+00' + n * interval '7 days';
    EXECUTE format('CREATE TABLE %I PARTITION OF readings FOR VALUES FROM (%L) TO (%L)', t, first, first + interval '7 days');
    EXECUTE format('INSERT INTO %I SELECT g + %s, %L::timestamptz + (g %% 10080) * interval ''1 min'', hashint4(g + %s) & 4095, (ARRAY[''temperature'',''humidity'',''pressure'',''door''])[1 + (hashint4(g + 3) & 3)], (hashint4(g * 7) & 16777215) / 1000.0, CASE WHEN g %% 5 = 0 THEN ''note '' || md5((g %% 997)::text) END FROM generate_series(1, %s) g',
      t, n * per, first, n, per);
    -- One transaction would need more locks than there are by default.
    IF n % 50 = 49 THEN COMMIT; END IF;
  END LOOP;
END $$;
ALTER TABLE readings ADD PRIMARY KEY (id, at);
CREATE INDEX ON readings (device, at);
CREATE INDEX ON readings (kind);
