-- Rows of 64 MB: incompressible text, stored as it is. :rows is the number of rows.
CREATE TABLE huge (id int PRIMARY KEY, body text);
ALTER TABLE huge ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO huge
SELECT g, repeat(block, 64)
FROM generate_series(1, :rows) g, LATERAL (SELECT string_agg(md5((g * 100000 + x)::text), '') AS block FROM generate_series(1, 32768) x) b;
