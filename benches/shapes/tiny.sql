-- Very many tables of ten rows each, with a key: those with the numbers :first to :last.
SELECT set_config('bench.first', :'first', false), set_config('bench.last', :'last', false);
DO $$
DECLARE t text;
BEGIN
  FOR n IN current_setting('bench.first')::int..current_setting('bench.last')::int LOOP
    t := 'tiny_' || lpad(n::text, 6, '0');
    EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, name text, at timestamptz DEFAULT now())', t);
    EXECUTE format('INSERT INTO %I (id, name, at) SELECT g, md5((g * %s)::text), timestamptz ''2024-01-01'' + g * interval ''1 h'' FROM generate_series(1, 10) g', t, n);
    -- One transaction for all would need more locks than there are.
    IF n % 100 = 0 THEN COMMIT; END IF;
  END LOOP;
END $$;
