-- Arrays of integers, text and floats, with a GIN index. :rows is the number of rows.
CREATE TABLE series (id bigint PRIMARY KEY, numbers int[], words text[], samples float8[]);
INSERT INTO series SELECT g,
    ARRAY(SELECT (hashint8(g + x) & 4095)::int FROM generate_series(1, 8) x),
    ARRAY(SELECT 'w' || (hashint8(g * x) & 511) FROM generate_series(1, 5) x),
    ARRAY(SELECT ((hashint8(g - x) & 1048575) / 997.0)::float8 FROM generate_series(1, 12) x)
  FROM generate_series(1, :rows) g;
CREATE INDEX ON series USING gin (numbers);
