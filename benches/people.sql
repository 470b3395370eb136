-- One wide table, 40 columns of the usual types, three indexes beside the primary key. Ten columns are personal (email to profile).
-- :rows is set by the bench; 500,000 rows are about 400 MB of COPY text.
CREATE TABLE people (
  id bigint NOT NULL,
  email text NOT NULL, name text NOT NULL, phone varchar(30), ssn text, token text NOT NULL, born date, login text, note text, bio text,
  profile jsonb,
  tenant_id int NOT NULL, status varchar(12) NOT NULL, plan varchar(12), country char(2), region text, language text, currency char(3),
  created_at timestamptz NOT NULL, updated_at timestamptz, last_seen timestamp, logins int, orders int, amount numeric(14,2),
  balance numeric(14,2), discount numeric(5,2), score double precision, rating real, is_active boolean, is_verified boolean,
  newsletter boolean, source text, campaign text, referrer bigint, tags text[], flags smallint, segment text, remarks text, settings jsonb,
  external_id uuid
);
INSERT INTO people SELECT g,
  'person' || g || '@corp.test',
  (ARRAY['Ada','Grace','Edsger','Barbara','Donald','Radia','Tony','Frances'])[1 + (hashint4(g) & 7)] || ' ' || initcap(substr(md5((g % 20011)::text), 1, 9)),
  '+49 30 ' || (10000000 + (hashint4(g + 1) & 16777215)),
  lpad((g % 1000)::text, 3, '0') || '-' || lpad((hashint4(g + 2) & 63)::text, 2, '0') || '-' || lpad((g / 1000 % 10000)::text, 4, '0'),
  md5('token' || g),
  date '1950-01-01' + (hashint4(g + 3) & 16383),
  'p' || g,
  CASE WHEN g % 3 = 0 THEN 'called on ' || (date '2024-01-01' + g % 300) || ', asked for person' || g END,
  'Writes from person' || g || '@corp.test about ' || md5((g % 5003)::text) || CASE WHEN g % 10 = 0 THEN E'\nand on a second line' ELSE ' and other things' END,
  jsonb_build_object('address', jsonb_build_object('street', (g % 900) || ' Corn Street', 'city', 'Town ' || g % 300, 'zip', lpad((g % 99999)::text, 5, '0')),
    'contacts', jsonb_build_array(jsonb_build_object('kind', 'home', 'phone', '+49 30 ' || (20000000 + g))), 'theme', 'dark'),
  1 + (hashint4(g + 4) & 1023), (ARRAY['new','open','done','void'])[1 + (hashint4(g + 5) & 3)], (ARRAY['free','pro'])[1 + g % 2],
  (ARRAY['DE','FR','UK','US'])[1 + g % 4], 'region ' || g % 40, (ARRAY['de','en','fr'])[1 + g % 3], (ARRAY['EUR','GBP','USD'])[1 + g % 3],
  timestamptz '2022-01-01' + g * interval '41 s', timestamptz '2024-01-01' + g * interval '7 s',
  timestamp '2025-01-01' + (hashint4(g + 6) & 1048575) * interval '1 s', hashint4(g + 7) & 1023, hashint4(g + 8) & 127,
  (hashint4(g + 9) & 16777215)::numeric / 100, (hashint4(g + 10) & 16777215)::numeric / 100, (g % 1000)::numeric / 10,
  (hashint4(g + 11) & 65535) / 7.0, ((g % 50) / 10.0)::real, g % 5 <> 0, g % 7 <> 0, g % 2 = 0,
  (ARRAY['web','app','shop','partner'])[1 + (hashint4(g + 12) & 3)], CASE WHEN g % 4 = 0 THEN 'spring ' || g % 20 END,
  CASE WHEN g % 6 = 0 THEN 1 + g / 2 END, CASE WHEN g % 3 = 0 THEN ARRAY['t' || g % 50, 'u' || g % 20] END, g % 256,
  'segment ' || g % 12, md5((g % 4999)::text) || ' remarks that say about the same as others do',
  jsonb_build_object('page', g % 100, 'wide', g % 2 = 0, 'key', md5((g / 3)::text)), md5('external' || g)::uuid
FROM generate_series(1, :rows) g;
ALTER TABLE people ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON people (email);
CREATE INDEX ON people (tenant_id, created_at);
CREATE INDEX ON people (name);
