-- Mostly numeric, of all lengths, also NaN, with two indexes. :rows is the number of rows.
CREATE TABLE ledger (id bigint PRIMARY KEY, amount numeric(18,4), rate numeric, total numeric(30,10), big numeric, share numeric(5,4), fee numeric(9,2));
INSERT INTO ledger SELECT g, (hashint8(g)::numeric * 1000003 % 100000000) / 10000, 1 / (1 + g % 97)::numeric, g * 1.0000000001,
    (hashint8(g)::numeric) ^ 2 * g, (g % 10000) / 10000.0, CASE WHEN g % 5000 = 0 THEN 'NaN' ELSE g % 1000000 / 7.0 END
  FROM generate_series(1, :rows) g;
CREATE INDEX ON ledger (amount);
CREATE INDEX ON ledger (rate, fee);
