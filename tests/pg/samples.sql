-- Three applications of realistic shape in one database, with features of PostgreSQL 13: a film
-- rental with many foreign keys, an airline with partitions and ranges, a tracker with text
-- search, row security and rules.
CREATE SCHEMA rental;
CREATE SCHEMA air;
CREATE SCHEMA track;

-- rental ---------------------------------------------------------------------------------------
CREATE DOMAIN rental.year AS integer CHECK (VALUE BETWEEN 1901 AND 2155);
CREATE TYPE rental.rating AS ENUM ('G', 'PG', 'PG-13', 'R', 'NC-17');
CREATE TYPE rental.address AS (street text, city text, zip varchar(10));
CREATE TABLE rental.country (id smallserial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE rental.city (id serial PRIMARY KEY, name text NOT NULL, country_id smallint NOT NULL REFERENCES rental.country ON DELETE RESTRICT);
CREATE TABLE rental.staff (id serial PRIMARY KEY, name text NOT NULL, store_id integer, boss_id integer REFERENCES rental.staff, picture bytea, home rental.address);
CREATE TABLE rental.store (id serial PRIMARY KEY, manager_id integer NOT NULL UNIQUE REFERENCES rental.staff, city_id integer NOT NULL REFERENCES rental.city);
ALTER TABLE rental.staff ADD CONSTRAINT staff_store_fkey FOREIGN KEY (store_id) REFERENCES rental.store DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE rental.film (
  id integer GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 2) PRIMARY KEY, title text NOT NULL, description text, released rental.year,
  length smallint CHECK (length > 0), rate numeric(4,2) DEFAULT 4.99 NOT NULL, rating rental.rating DEFAULT 'G', features text[],
  fulltext tsvector, long boolean GENERATED ALWAYS AS (length > 120) STORED);
CREATE TABLE rental.actor (id serial PRIMARY KEY, first text NOT NULL, last text NOT NULL);
CREATE TABLE rental.film_actor (film_id integer REFERENCES rental.film ON UPDATE CASCADE, actor_id integer REFERENCES rental.actor ON UPDATE CASCADE, PRIMARY KEY (film_id, actor_id));
CREATE TABLE rental.inventory (id serial PRIMARY KEY, film_id integer NOT NULL REFERENCES rental.film, store_id integer NOT NULL REFERENCES rental.store);
CREATE TABLE rental.customer (id serial PRIMARY KEY, store_id integer NOT NULL REFERENCES rental.store, name text NOT NULL, email text, active boolean DEFAULT true NOT NULL, created date DEFAULT '2026-01-01' NOT NULL);
CREATE TABLE rental.rental (id bigserial PRIMARY KEY, during tstzrange NOT NULL, inventory_id integer NOT NULL REFERENCES rental.inventory, customer_id integer NOT NULL REFERENCES rental.customer);
CREATE TABLE rental.payment (id bigserial, customer_id integer NOT NULL REFERENCES rental.customer, rental_id bigint REFERENCES rental.rental ON DELETE SET NULL, amount numeric(8,2) NOT NULL, paid timestamptz NOT NULL, PRIMARY KEY (id, paid)) PARTITION BY RANGE (paid);
CREATE TABLE rental.payment_2026_01 PARTITION OF rental.payment FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00');
CREATE TABLE rental.payment_2026_02 PARTITION OF rental.payment FOR VALUES FROM ('2026-02-01 00:00+00') TO ('2026-03-01 00:00+00');
CREATE TABLE rental.payment_rest PARTITION OF rental.payment DEFAULT;
CREATE INDEX ON rental.payment (customer_id);
INSERT INTO rental.country (name) SELECT 'Country ' || i FROM generate_series(1, 50) i;
INSERT INTO rental.city (name, country_id) SELECT 'City ' || i, 1 + i % 50 FROM generate_series(1, 300) i;
INSERT INTO rental.staff (name, boss_id, picture, home) SELECT 'Staff ' || i, nullif(i / 3, 0), decode(md5(i::text), 'hex'), ROW('Street "' || i || '"', 'City, ' || i, NULL)::rental.address FROM generate_series(1, 20) i;
INSERT INTO rental.store (manager_id, city_id) SELECT i, i * 7 FROM generate_series(1, 10) i;
UPDATE rental.staff SET store_id = 1 + id % 10;
INSERT INTO rental.film (title, description, released, length, rating, features) SELECT 'Film ' || i, repeat('Epic drama of a robot and a ' || md5(i::text) || '. ', 1 + i % 5), 1990 + i % 30, 60 + i % 100, (enum_range(NULL::rental.rating))[1 + i % 5], CASE WHEN i % 3 = 0 THEN ARRAY['Trailers', 'Deleted "Scenes"', NULL] END FROM generate_series(1, 1000) i;
UPDATE rental.film SET fulltext = to_tsvector('english', title || ' ' || coalesce(description, ''));
INSERT INTO rental.actor (first, last) SELECT 'A' || i, 'Last' || i % 40 FROM generate_series(1, 200) i;
INSERT INTO rental.film_actor SELECT 98 + 2 * (1 + i % 1000), 1 + (i * 13) % 200 FROM generate_series(1, 1000) i ON CONFLICT DO NOTHING;
INSERT INTO rental.inventory (film_id, store_id) SELECT 98 + 2 * (1 + i % 1000), 1 + i % 10 FROM generate_series(1, 1000) i;
INSERT INTO rental.customer (store_id, name, email) SELECT 1 + i % 10, 'Customer ' || i, nullif('c' || i || '@example.com', 'c7@example.com') FROM generate_series(1, 600) i;
INSERT INTO rental.rental (during, inventory_id, customer_id) SELECT tstzrange(timestamptz '2026-01-01 00:00+00' + i * interval '28 minutes', CASE WHEN i % 10 > 0 THEN timestamptz '2026-01-03 00:00+00' + i * interval '28 minutes' END), 1 + i % 1000, 1 + i % 600 FROM generate_series(1, 2000) i;
INSERT INTO rental.payment (customer_id, rental_id, amount, paid) SELECT 1 + i % 600, i, (i % 1000) / 100.0, timestamptz '2026-01-02 00:00+00' + i * interval '44 minutes' FROM generate_series(1, 2000) i;
CREATE INDEX film_fulltext ON rental.film USING gist (fulltext);
CREATE INDEX film_title_lower ON rental.film (lower(title)) WHERE rating <> 'G';
CREATE INDEX customer_name ON rental.customer USING btree (name COLLATE "C" DESC NULLS LAST) INCLUDE (email);
CREATE STATISTICS rental.customer_stats (ndistinct, dependencies, mcv) ON store_id, active FROM rental.customer;
CREATE FUNCTION rental.last_day(timestamptz) RETURNS date LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT (date_trunc('month', $1 AT TIME ZONE 'UTC') + interval '1 month - 1 day')::date $$;
CREATE FUNCTION rental.stocked(p_film integer, OUT p_inventory integer) RETURNS SETOF integer LANGUAGE plpgsql STABLE AS $_$
BEGIN
  RETURN QUERY SELECT id FROM rental.inventory WHERE film_id = $1; -- a ; in a body, and a quote: '
END $_$;
CREATE AGGREGATE rental.group_concat(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
CREATE TRIGGER film_fulltext_trigger BEFORE INSERT OR UPDATE ON rental.film FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger('fulltext', 'pg_catalog.english', 'title', 'description');
CREATE VIEW rental.film_list WITH (security_barrier = true) AS SELECT f.id, f.title, rental.group_concat(a.first || ' ' || a.last || ';') AS actors FROM rental.film f LEFT JOIN rental.film_actor fa ON fa.film_id = f.id LEFT JOIN rental.actor a ON a.id = fa.actor_id GROUP BY f.id, f.title;
CREATE MATERIALIZED VIEW rental.sales AS SELECT c.store_id, sum(p.amount) AS total FROM rental.payment p JOIN rental.customer c ON c.id = p.customer_id GROUP BY 1;
CREATE UNIQUE INDEX sales_store ON rental.sales (store_id);
CREATE MATERIALIZED VIEW rental.sales_twice AS SELECT store_id, total * 2 AS total FROM rental.sales;
CREATE VIEW rental.cheap AS SELECT id, title, rate FROM rental.film WHERE rate < 5 WITH CASCADED CHECK OPTION;

-- air ------------------------------------------------------------------------------------------
CREATE TYPE air.span AS RANGE (subtype = time);
CREATE TABLE air.airport (code character(3) PRIMARY KEY, name jsonb NOT NULL, place point NOT NULL);
CREATE TABLE air.aircraft (code character(3) PRIMARY KEY, model jsonb NOT NULL, reach integer NOT NULL CONSTRAINT reach_positive CHECK (reach > 0));
CREATE TABLE air.seat (aircraft character(3) REFERENCES air.aircraft ON DELETE CASCADE, seat varchar(4), class text CHECK (class = ANY (ARRAY['Economy', 'Comfort', 'Business'])), PRIMARY KEY (aircraft, seat));
CREATE TABLE air.flight (id integer, no character(6) NOT NULL, leaves timestamptz NOT NULL, origin character(3) NOT NULL REFERENCES air.airport, status text NOT NULL, aircraft character(3) REFERENCES air.aircraft, CHECK (status <> '')) PARTITION BY LIST (status);
CREATE TABLE air.flight_done PARTITION OF air.flight FOR VALUES IN ('Arrived', 'Cancelled') PARTITION BY RANGE (leaves);
CREATE TABLE air.flight_done_2025 PARTITION OF air.flight_done FOR VALUES FROM (MINVALUE) TO ('2026-01-01 00:00+00');
CREATE TABLE air.flight_done_2026 PARTITION OF air.flight_done FOR VALUES FROM ('2026-01-01 00:00+00') TO (MAXVALUE) PARTITION BY HASH (id);
CREATE TABLE air.flight_done_2026_0 PARTITION OF air.flight_done_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE air.flight_done_2026_1 PARTITION OF air.flight_done_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE air.flight_open PARTITION OF air.flight DEFAULT;
CREATE INDEX flight_leaves ON air.flight (leaves, id);
ALTER TABLE air.flight ADD PRIMARY KEY (id, leaves, status);
CREATE TABLE air.gate (airport character(3) REFERENCES air.airport, during tstzrange NOT NULL, note text, EXCLUDE USING gist (during WITH &&) WHERE (note IS NOT NULL));
CREATE TABLE air.crew (name text NOT NULL, base character(3));
CREATE TABLE air.pilot (license text UNIQUE) INHERITS (air.crew);
CREATE TABLE air.captain (since date, CHECK (since > '1950-01-01')) INHERITS (air.pilot);
CREATE TABLE air.shift (hours air.span, days int4range[], rest interval DEFAULT '11:00');
INSERT INTO air.airport SELECT chr(65 + i / 26) || chr(65 + i % 26) || 'X', jsonb_build_object('en', 'Airport ' || i, 'ru', 'Аэропорт ' || i), point(i, -i / 7.0) FROM generate_series(0, 99) i;
INSERT INTO air.aircraft VALUES ('773', '{"en": "Boeing 777-300"}', 11100), ('SU9', '{"en": "Superjet"}', 3000), ('CN1', '{"en": "Caravan"}', 1200);
INSERT INTO air.seat SELECT a, r || s, CASE WHEN r < 4 THEN 'Business' ELSE 'Economy' END FROM unnest(ARRAY['773', 'SU9', 'CN1']) a, generate_series(1, 30) r, unnest(ARRAY['A', 'B', 'C', 'D']) s;
INSERT INTO air.flight SELECT i, 'PG' || lpad(i::text, 4, '0'), timestamptz '2025-06-01 00:00+00' + i * interval '12 hours', chr(65 + (i % 100) / 26) || chr(65 + (i % 100) % 26) || 'X', (ARRAY['Arrived', 'Cancelled', 'Scheduled', 'Delayed'])[1 + i % 4], (ARRAY['773', 'SU9', NULL])[1 + i % 3] FROM generate_series(1, 1000) i;
INSERT INTO air.gate SELECT 'AAX', tstzrange(timestamptz '2026-01-01 00:00+00' + i * interval '1 hour', timestamptz '2026-01-01 00:30+00' + i * interval '1 hour'), 'n' || i FROM generate_series(1, 200) i;
INSERT INTO air.crew SELECT 'Crew ' || i, 'AAX' FROM generate_series(1, 30) i;
INSERT INTO air.pilot SELECT 'Pilot ' || i, 'ABX', 'L' || i FROM generate_series(1, 30) i;
INSERT INTO air.captain SELECT 'Captain ' || i, 'ACX', 'C' || i, date '1990-01-01' + i FROM generate_series(1, 30) i;
INSERT INTO air.shift VALUES ('[08:00,16:00)', '{"[1,5]"}', '1 year 2 mons -3 days +04:05:06.789'), ('empty', '{}', NULL);
CREATE FUNCTION air.distance(point, point) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT sqrt(($1[0] - $2[0])^2 + ($1[1] - $2[1])^2)';
CREATE OPERATOR air.<~> (FUNCTION = air.distance, LEFTARG = point, RIGHTARG = point, COMMUTATOR = OPERATOR(air.<~>));
CREATE FUNCTION air.code_of(air.aircraft) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.code::text';
CREATE CAST (air.aircraft AS text) WITH FUNCTION air.code_of(air.aircraft) AS ASSIGNMENT;
CREATE PROCEDURE air.close(p integer) LANGUAGE plpgsql AS $$ BEGIN UPDATE air.flight SET status = 'Arrived' WHERE id = p; COMMIT; END $$;

-- track ----------------------------------------------------------------------------------------
CREATE COLLATION track.german (provider = libc, locale = 'C.UTF-8');
CREATE TEXT SEARCH CONFIGURATION track.plain (COPY = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY track.short (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
ALTER TEXT SEARCH CONFIGURATION track.plain ALTER MAPPING FOR asciiword WITH track.short, simple;
CREATE TABLE track.issue (id uuid PRIMARY KEY, title text COLLATE track.german NOT NULL, body text, state text DEFAULT 'open', author name DEFAULT CURRENT_USER, labels jsonb DEFAULT '[]', price money, bits bit varying(16), net inet, search tsvector);
CREATE TABLE track.event (id bigint GENERATED BY DEFAULT AS IDENTITY, issue_id uuid REFERENCES track.issue, at timestamp(3) with time zone, kind "char", "weird ""name""; --" text);
CREATE TABLE track.audit (id bigint, issue_id uuid, at timestamptz, kind "char", note text, op text);
CREATE UNLOGGED TABLE track.cache (k text PRIMARY KEY, v xml) WITH (fillfactor = 70, autovacuum_enabled = off);
INSERT INTO track.issue (id, title, body, labels, price, bits, net) SELECT md5(i::text)::uuid, E'Title\t' || i, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'line\n\\.\nline \\N' ELSE repeat('ü€😀 ', i % 50) END, jsonb_build_array(i, 'x' || i), (i / 100.0)::numeric::money, i::bit(8)::varbit, ('10.0.' || i % 250 || '.1/24')::inet FROM generate_series(1, 500) i;
INSERT INTO track.event (issue_id, at, kind, "weird ""name""; --") SELECT md5((1 + i % 500)::text)::uuid, timestamptz '2026-03-01 00:00+00' + i * interval '1.234 seconds', chr(97 + i % 20)::"char", 'x;y''z' || i FROM generate_series(1, 1250) i;
CREATE INDEX issue_search ON track.issue USING gin (to_tsvector('track.plain', coalesce(body, '')));
CREATE INDEX issue_labels ON track.issue USING gin (labels jsonb_path_ops);
CREATE INDEX event_at ON track.event USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX event_kind ON track.event USING hash (kind);
ALTER TABLE track.issue ENABLE ROW LEVEL SECURITY;
ALTER TABLE track.issue FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON track.issue AS RESTRICTIVE FOR UPDATE TO role_a, role_b USING (author = CURRENT_USER) WITH CHECK (state <> 'closed;');
CREATE POLICY see ON track.issue FOR SELECT USING (true);
CREATE RULE keep AS ON DELETE TO track.event DO INSTEAD (INSERT INTO track.audit VALUES (OLD.id, OLD.issue_id, now(), OLD.kind, 'a;b', 'D'); NOTIFY gone;);
CREATE FUNCTION track.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = track, pg_temp AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF title ON track.issue FOR EACH ROW WHEN (NEW.title IS NOT NULL) EXECUTE FUNCTION track.note();
CREATE CONSTRAINT TRIGGER later AFTER UPDATE ON track.event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION track.note();
ALTER TABLE track.event DISABLE TRIGGER later;
CREATE FUNCTION track.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION track.watch();
CREATE FOREIGN DATA WRAPPER nothing OPTIONS (debug 'true');
CREATE SERVER elsewhere TYPE 'x' VERSION '1' FOREIGN DATA WRAPPER nothing OPTIONS (host 'h''s');
CREATE USER MAPPING FOR role_a SERVER elsewhere OPTIONS ("user" 'u');
CREATE FOREIGN TABLE track.remote (id integer OPTIONS (column_name 'ID'), t text) SERVER elsewhere OPTIONS (table_name 'x');
CREATE PUBLICATION part_of FOR TABLE track.issue, track.event WITH (publish = 'insert, update');
CREATE PUBLICATION everything FOR ALL TABLES;
GRANT USAGE ON SCHEMA rental, air TO role_a;
GRANT SELECT, INSERT (id, title) ON track.issue TO role_a WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION rental.stocked(integer) TO role_b;
REVOKE ALL ON FUNCTION rental.last_day(timestamptz) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA track GRANT SELECT ON TABLES TO role_b;
ALTER TABLE rental.actor OWNER TO role_a;
ALTER FUNCTION rental.stocked(integer) OWNER TO role_b;
COMMENT ON TABLE rental.film IS 'films; with '' and "';
COMMENT ON COLUMN air.flight.no IS 'number';
COMMENT ON CONSTRAINT reach_positive ON air.aircraft IS 'c';
COMMENT ON INDEX rental.film_fulltext IS 'i';
SELECT lo_from_bytea(5001, decode(repeat('00ff', 20000), 'hex')), lo_from_bytea(5002, '');
COMMENT ON LARGE OBJECT 5001 IS 'l';
ALTER LARGE OBJECT 5001 OWNER TO role_b;
SELECT setval('rental.actor_id_seq', 500);
