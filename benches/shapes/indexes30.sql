-- One table with 30 indexes of one and two columns. :rows is the number of rows.
CREATE TABLE indexed (id bigint PRIMARY KEY, a int, b int, c int, d text, e text, f timestamptz, g numeric, h float8);
INSERT INTO indexed SELECT n, hashint8(n) & 65535, n % 1000, hashint8(n * 7) & 1023, substr(md5(n::text), 1, 10), 'group ' || n % 5000,
    timestamptz '2024-01-01' + n * interval '3 s', n * 1.37, hashint8(n * 3) / 1000.0 FROM generate_series(1, :rows) n;
DO $$
DECLARE names text[] := ARRAY['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
BEGIN
  FOR n IN 0..28 LOOP
    IF n < 8 THEN
      EXECUTE format('CREATE INDEX ON indexed (%I)', names[n + 1]);
    ELSE
      EXECUTE format('CREATE INDEX ON indexed (%I, %I)', names[1 + n % 8], names[1 + (n / 8 * 3 + n) % 8]);
    END IF;
  END LOOP;
END $$;
