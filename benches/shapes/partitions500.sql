-- One table with 500 partitions, with a key and two indexes on each. :rows is the number of rows of all of them.
CREATE TABLE readings (id bigint, at timestamptz NOT NULL, sensor int, val float8, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
DO $$
BEGIN
  FOR n IN 0..499 LOOP
    EXECUTE format('CREATE TABLE %I PARTITION OF readings FOR VALUES FROM (%L) TO (%L)', 'readings_' || n,
      timestamptz '2024-01-01 UTC' + n * interval '1 day', timestamptz '2024-01-01 UTC' + (n + 1) * interval '1 day');
  END LOOP;
END $$;
INSERT INTO readings SELECT g, timestamptz '2024-01-01 UTC' + (g % 500) * interval '1 day' + (g / 500 % 86400) * interval '1 s', g % 300,
    hashint8(g) / 1000.0 FROM generate_series(1, :rows) g;
CREATE INDEX ON readings (sensor);
CREATE INDEX ON readings (at);
