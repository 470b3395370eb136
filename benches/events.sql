-- One dominating table, wide rows, four indexes. :rows is set by the bench; 3,000,000 rows are about 900 MB of COPY text.
CREATE TABLE events (id bigserial, ts timestamptz NOT NULL, user_id int NOT NULL, kind text NOT NULL, amount numeric(14,4), ip inet, payload jsonb, note text);
INSERT INTO events (ts, user_id, kind, amount, ip, payload, note)
SELECT timestamptz '2024-01-01' + g * interval '7.3 s', hashint4(g) & 1048575, (ARRAY['view','click','purchase','refund','login','logout','error'])[1 + (hashint4(g + 1) & 3) + (g % 4)],
  (hashint4(g + 2) & 1048575)::numeric / 100, ('10.' || (g % 200) || '.' || (hashint4(g + 3) & 255) || '.7')::inet,
  jsonb_build_object('sid', md5(g::text), 'v', hashint4(g) & 255, 'ok', g % 3 = 0),
  md5((g % 5003)::text) || ' ' || md5((g * 7 % 70001)::text) || ' some words that repeat from row to row ' || md5((g % 977)::text)
FROM generate_series(1, :rows) g;
ALTER TABLE events ADD PRIMARY KEY (id); CREATE INDEX ON events (ts); CREATE INDEX ON events (user_id, ts); CREATE INDEX ON events (kind, amount);
