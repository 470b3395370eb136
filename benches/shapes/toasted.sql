-- Values of 4 to 60 kB, all of them out of line: half compressible text, half incompressible bytes. :rows is the number of rows.
CREATE FUNCTION noise(size int, seed int) RETURNS bytea LANGUAGE sql AS
  $$ SELECT string_agg(sha256(int8send(seed::bigint << 32 | x)), ''::bytea) FROM generate_series(1, greatest(1, size / 32)) x $$;
CREATE FUNCTION words(size int, seed int) RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(md5((seed::bigint << 32 | x)::text) || ' lorem ipsum dolor sit amet, ', '') FROM generate_series(1, greatest(1, size / 61)) x $$;
CREATE TABLE toasted (id int PRIMARY KEY, kind text, body text, data bytea);
INSERT INTO toasted
SELECT g, 'kind ' || g % 20, CASE WHEN g % 2 = 0 THEN words(n, g) END, CASE WHEN g % 2 = 1 THEN noise(n, g) END
FROM (SELECT g, 4096 + (hashint4(g) & 2147483647) % 56000 AS n FROM generate_series(1, :rows) g) x;
DROP FUNCTION noise;
DROP FUNCTION words;
CREATE INDEX ON toasted (kind);
