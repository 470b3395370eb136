-- Large objects, a third of them of 4 to 304 kB, the others of 2 kB, and a table with bytea; mostly
-- incompressible. :rows is the number of large objects.
CREATE FUNCTION noise(size int, seed int) RETURNS bytea LANGUAGE sql AS
  $$ SELECT string_agg(sha256(int8send(seed::bigint << 32 | x)), ''::bytea) FROM generate_series(1, greatest(1, size / 32)) x $$;
CREATE TABLE files (id int PRIMARY KEY, name text, data bytea, lo oid);
INSERT INTO files
SELECT i, 'f' || i, CASE WHEN i % 2 = 0 THEN noise(n, i) END,
  lo_from_bytea(0, CASE WHEN i % 3 = 0 THEN convert_to(repeat(encode(noise(200, i), 'hex'), n / 400 + 1), 'UTF8') ELSE noise(n, -i) END)
FROM (SELECT i, 4096 + (hashint4(i) & 2147483647) % 300000 AS n FROM generate_series(1, :rows / 3) i) x;
SELECT count(lo_from_bytea(0, noise(2048, 1000000 + i))) FROM generate_series(1, :rows - :rows / 3) i;
DROP FUNCTION noise;
CREATE INDEX ON files (name);
