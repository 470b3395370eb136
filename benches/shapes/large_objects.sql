-- Very many large objects of 200 to 900 bytes, and a table that refers to them. :rows is the number of large objects.
SELECT set_config('bench.rows', :'rows', false);
CREATE TABLE attachments (id int PRIMARY KEY, object oid NOT NULL);
DO $$
DECLARE total int := current_setting('bench.rows'); n int := 0;
BEGIN
  WHILE n < total LOOP
    INSERT INTO attachments SELECT g, lo_from_bytea(0, convert_to(repeat(md5(g::text), 6 + g % 22), 'UTF8'))
      FROM generate_series(n + 1, least(n + 1000, total)) g;
    -- A million objects shall not be one transaction.
    COMMIT;
    n := n + 1000;
  END LOOP;
END $$;
