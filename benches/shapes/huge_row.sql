-- One row of :rows MB, stored as it is: close to 1 GB, which is the most that PostgreSQL allows for a row in a dump.
CREATE TABLE huge (id int PRIMARY KEY, body text);
ALTER TABLE huge ALTER COLUMN body SET STORAGE EXTERNAL;
-- The text repeats itself within the window of zlib: what is measured is the length of the row, not decompression.
INSERT INTO huge
SELECT 1, repeat(block, :rows * 40)
FROM (SELECT left(string_agg('request ' || x || ' of ' || md5(x::text) || '; ', ''), 25000) AS block FROM generate_series(1, 1000) x) b;
