-- One table of 60 columns of several types, with four indexes. :rows is the number of rows.
SELECT set_config('bench.rows', :'rows', false);
DO $$
DECLARE columns text; vals text;
BEGIN
  SELECT string_agg(format('c%s %s', n, (ARRAY['int', 'text', 'timestamptz', 'numeric(12,2)', 'boolean', 'date'])[1 + n % 6]), ', ' ORDER BY n)
    INTO columns FROM generate_series(1, 60) n;
  SELECT string_agg(format((ARRAY['hashint8(g + %1$s)', 'substr(md5((g * %1$s)::text), 1, 12)', 'timestamptz ''2024-01-01'' + (g + %1$s) * interval ''17 s''',
      '(hashint8(g * %1$s) & 1048575) / 100.0', 'g %% 3 = 0', 'date ''2020-01-01'' + (g + %1$s) %% 2000'])[1 + n % 6], n), ', ' ORDER BY n)
    INTO vals FROM generate_series(1, 60) n;
  EXECUTE format('CREATE TABLE wide (id bigint PRIMARY KEY, %s)', columns);
  EXECUTE format('INSERT INTO wide SELECT g, %s FROM generate_series(1, %s) g', vals, current_setting('bench.rows'));
END $$;
CREATE INDEX ON wide (c6);
CREATE INDEX ON wide (c2);
CREATE INDEX ON wide (c7);
CREATE INDEX ON wide (c3);
