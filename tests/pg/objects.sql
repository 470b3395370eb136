-- Every kind of object that PostgreSQL 15 can create without extra libraries and that a table of contents can have.
CREATE EXTENSION hstore; CREATE EXTENSION pgcrypto; CREATE EXTENSION pg_trgm; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw;
CREATE SCHEMA s AUTHORIZATION role_a; COMMENT ON SCHEMA s IS 'schema s';
CREATE SCHEMA "Odd ""Schema""";
SET search_path = s, public;

CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD heap2 IS 'like heap';
CREATE TABLE other_heap (a int) USING heap2; INSERT INTO other_heap VALUES (1), (2);
CREATE TABLE in_space (a int PRIMARY KEY USING INDEX TABLESPACE space_a, b text) TABLESPACE space_a;
CREATE INDEX in_default_space ON in_space (b) TABLESPACE pg_default;
INSERT INTO in_space SELECT i, 'x' || i FROM generate_series(1, 50) i;

-- types
CREATE TYPE shell;
CREATE TYPE color AS ENUM ('red', 'it''s', 'grün'); COMMENT ON TYPE color IS 'colors';
CREATE TYPE pair AS (a int, b text COLLATE "C"); ALTER TYPE pair OWNER TO role_b;
CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = spans);
CREATE DOMAIN positive AS int DEFAULT 1 CONSTRAINT above_zero CHECK (VALUE > 0);
COMMENT ON CONSTRAINT above_zero ON DOMAIN positive IS 'more than nothing';
CREATE TYPE int_pair;
CREATE FUNCTION int_pair_in(cstring) RETURNS int_pair LANGUAGE internal IMMUTABLE STRICT AS 'int8in';
CREATE FUNCTION int_pair_out(int_pair) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
CREATE TYPE int_pair (INPUT = int_pair_in, OUTPUT = int_pair_out, LIKE = int8);

-- functions
CREATE FUNCTION add(int, int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE COST 7 AS $$ SELECT $1 + $2; /* ; */ $$;
ALTER FUNCTION add(int, int) OWNER TO role_a; COMMENT ON FUNCTION add(int, int) IS 'adds';
CREATE FUNCTION body_in_sql(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + 1; SELECT a + 2; END;
CREATE FUNCTION rows_of(n int) RETURNS TABLE (i int, t text) LANGUAGE plpgsql SET search_path = s, pg_temp AS $f$ BEGIN RETURN QUERY SELECT g, g::text FROM generate_series(1, n) g; END $f$;
CREATE FUNCTION late() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE PROCEDURE nothing(INOUT x int) LANGUAGE plpgsql AS $$ BEGIN x := x; END $$; ALTER PROCEDURE nothing(int) OWNER TO role_b;
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0'); COMMENT ON AGGREGATE total(int) IS 'sum'; ALTER AGGREGATE total(int) OWNER TO role_a;
CREATE AGGREGATE count_all(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = $2 $$;
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same, COMMUTATOR = ===); ALTER OPERATOR === (int, int) OWNER TO role_a;
COMMENT ON OPERATOR === (int, int) IS 'same';
CREATE OPERATOR FAMILY fam USING btree;
CREATE OPERATOR CLASS reversed FOR TYPE int USING btree FAMILY fam AS OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
COMMENT ON OPERATOR CLASS reversed USING btree IS 'backwards'; ALTER OPERATOR FAMILY fam USING btree OWNER TO role_b;
CREATE FUNCTION pair_to_int(pair) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1.a $$;
CREATE CAST (pair AS int) WITH FUNCTION pair_to_int(pair) AS ASSIGNMENT; COMMENT ON CAST (pair AS int) IS 'first';
CREATE CONVERSION conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; ALTER CONVERSION conv OWNER TO role_a;
CREATE COLLATION coll (provider = icu, locale = 'de-x-icu'); CREATE COLLATION copied FROM "C"; COMMENT ON COLLATION copied IS 'C';
CREATE FUNCTION plx_call() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE TRUSTED LANGUAGE plx HANDLER plx_call;
ALTER LANGUAGE plx OWNER TO role_a; GRANT USAGE ON LANGUAGE plx TO role_b; COMMENT ON LANGUAGE plx IS 'pl';
CREATE TRANSFORM FOR hstore LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
COMMENT ON TRANSFORM FOR hstore LANGUAGE sql IS 'transform';
CREATE TEXT SEARCH PARSER prs (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE tmpl (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = tmpl, STOPWORDS = english); ALTER TEXT SEARCH DICTIONARY dict OWNER TO role_a;
CREATE TEXT SEARCH CONFIGURATION conf (PARSER = prs); ALTER TEXT SEARCH CONFIGURATION conf ADD MAPPING FOR word WITH dict;
COMMENT ON TEXT SEARCH CONFIGURATION conf IS 'conf'; COMMENT ON TEXT SEARCH DICTIONARY dict IS 'dict';

-- tables
CREATE SEQUENCE seq AS int START 5 INCREMENT -3 MINVALUE -100 MAXVALUE 100 CACHE 4 CYCLE; SELECT nextval('seq'), nextval('seq');
COMMENT ON SEQUENCE seq IS 'down'; ALTER SEQUENCE seq OWNER TO role_b; GRANT USAGE ON SEQUENCE seq TO role_a;
CREATE SEQUENCE never_used; CREATE TABLE serials (id smallserial, b bigserial PRIMARY KEY); INSERT INTO serials DEFAULT VALUES;
CREATE TABLE t (
  id int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 2) PRIMARY KEY,
  by_default bigint GENERATED BY DEFAULT AS IDENTITY,
  c color DEFAULT 'red', p pair, sp span, pos positive, h hstore DEFAULT 'a=>1', n numeric(12,4) DEFAULT 1.5,
  txt text COLLATE "C" NOT NULL DEFAULT 'x', twice int GENERATED ALWAYS AS (pos * 2) STORED,
  from_seq int DEFAULT nextval('seq'), arr int[][], j jsonb, x xml, b bytea, u uuid, r tstzrange, ip inet, bits bit varying(7), m money,
  CONSTRAINT txt_short CHECK (length(txt) < 1000), EXCLUDE USING gist (sp WITH &&) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, autovacuum_enabled = off);
ALTER TABLE t ALTER txt SET STORAGE EXTERNAL, ALTER txt SET STATISTICS 500, ALTER n SET (n_distinct = 7);
ALTER TABLE t ALTER b SET COMPRESSION pglz, REPLICA IDENTITY FULL, CLUSTER ON t_pkey; ALTER TABLE t OWNER TO role_a;
COMMENT ON TABLE t IS 'table t'; COMMENT ON COLUMN t.txt IS 'column'; COMMENT ON CONSTRAINT txt_short ON t IS 'short';
INSERT INTO t (p, sp, pos, txt, j, x, b, arr) SELECT (i, 'p' || i)::pair, span(i, i + 1), i, 'row ' || i, jsonb_build_object('i', i), xmlparse(content '<a>' || i || '</a>'), decode(md5(i::text), 'hex'), ARRAY[[i, 1], [2, 3]] FROM generate_series(1, 300) i;
ALTER TABLE t DROP COLUMN u; ALTER TABLE t ADD COLUMN added int DEFAULT 42;
CREATE TABLE typed OF pair (PRIMARY KEY (a), b WITH OPTIONS DEFAULT 'z');
CREATE UNLOGGED TABLE unlogged (a int); INSERT INTO unlogged VALUES (9);
CREATE TABLE parent (a int, b text, CHECK (a > 0)); CREATE TABLE child (c int) INHERITS (parent); ALTER TABLE child ALTER b SET DEFAULT 'child';
INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c', 3);
CREATE TABLE part (id int, k text, at date, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE part_a PARTITION OF part FOR VALUES IN ('a') PARTITION BY RANGE (id);
CREATE TABLE part_a1 PARTITION OF part_a FOR VALUES FROM (0) TO (100); CREATE TABLE part_a2 PARTITION OF part_a FOR VALUES FROM (100) TO (MAXVALUE);
CREATE TABLE part_b (k text NOT NULL, id int NOT NULL, at date); ALTER TABLE part ATTACH PARTITION part_b FOR VALUES IN ('b', NULL);
CREATE TABLE part_other PARTITION OF part DEFAULT;
INSERT INTO part SELECT i, (ARRAY['a', 'b', 'c'])[1 + i % 3], date '2026-01-01' + i FROM generate_series(1, 400) i;
CREATE INDEX part_at ON part (at); CREATE INDEX only_here ON part_b (at, id);
CREATE TABLE refers (id int PRIMARY KEY, part_id int, part_k text, t_id int, self int REFERENCES refers DEFERRABLE,
  FOREIGN KEY (part_id, part_k) REFERENCES part ON DELETE CASCADE, CONSTRAINT to_t FOREIGN KEY (t_id) REFERENCES t (id) MATCH FULL ON UPDATE SET NULL);
INSERT INTO refers SELECT i, i, (ARRAY['a', 'b', 'c'])[1 + i % 3], 10 + 2 * i, NULLIF(i - 1, 0) FROM generate_series(1, 100) i;
ALTER TABLE refers ADD CONSTRAINT later CHECK (id < 50) NOT VALID; ALTER TABLE refers ADD CONSTRAINT fk_later FOREIGN KEY (t_id) REFERENCES t (id) NOT VALID;
CREATE TABLE part_refers (id int, t_id int REFERENCES t (id)) PARTITION BY HASH (id);
CREATE TABLE part_refers_0 PARTITION OF part_refers FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE part_refers_1 PARTITION OF part_refers FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO part_refers SELECT i, 10 + 2 * i FROM generate_series(1, 200) i;
CREATE TABLE cycle_a (id int PRIMARY KEY, b int); CREATE TABLE cycle_b (id int PRIMARY KEY, a int REFERENCES cycle_a); ALTER TABLE cycle_a ADD FOREIGN KEY (b) REFERENCES cycle_b;

-- indexes and statistics
CREATE INDEX ON t USING gin (j jsonb_path_ops); CREATE INDEX lowered ON t (lower(txt), id DESC NULLS LAST) INCLUDE (n) WHERE id > 20;
CREATE INDEX trgm ON t USING gin (txt gin_trgm_ops); CREATE UNIQUE INDEX nulls ON t (n, id) NULLS NOT DISTINCT; CREATE INDEX ON t USING hash (txt); CREATE INDEX ON t USING brin (id) WITH (pages_per_range = 4);
ALTER INDEX lowered ALTER COLUMN 1 SET STATISTICS 10; COMMENT ON INDEX trgm IS 'trigrams'; CREATE INDEX rev ON t (added reversed);
ALTER TABLE t ADD CONSTRAINT uniq UNIQUE (id, txt) INCLUDE (n) DEFERRABLE; ALTER TABLE refers REPLICA IDENTITY USING INDEX refers_pkey;
CREATE STATISTICS st (ndistinct, dependencies, mcv) ON id, txt FROM t; CREATE STATISTICS st_expr ON (id + 1), (lower(txt)) FROM t; ALTER STATISTICS st OWNER TO role_b; COMMENT ON STATISTICS st IS 'stats'; ALTER STATISTICS st SET STATISTICS 77;

-- views, rules, triggers, policies
CREATE VIEW v WITH (security_barrier) AS SELECT id, txt FROM t WHERE id > 0 WITH LOCAL CHECK OPTION; COMMENT ON VIEW v IS 'view'; ALTER VIEW v OWNER TO role_b; ALTER VIEW v ALTER txt SET DEFAULT 'dv';
CREATE VIEW v_of_v AS SELECT v.*, add(id) FROM v; CREATE RECURSIVE VIEW nums (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM nums WHERE n < 5;
CREATE VIEW grouped AS SELECT id, txt, count(*) FROM t GROUP BY id;
CREATE MATERIALIZED VIEW mv AS SELECT k, count(*) AS n FROM part GROUP BY k; CREATE UNIQUE INDEX ON mv (k); CREATE MATERIALIZED VIEW mv2 AS SELECT sum(n) FROM mv; CREATE MATERIALIZED VIEW mv_empty AS SELECT 1 AS one WITH NO DATA; COMMENT ON MATERIALIZED VIEW mv IS 'mat'; ALTER MATERIALIZED VIEW mv OWNER TO role_a;
CREATE RULE no_delete AS ON DELETE TO parent DO INSTEAD NOTHING; COMMENT ON RULE no_delete ON parent IS 'rule'; CREATE RULE vi AS ON INSERT TO v_of_v DO INSTEAD INSERT INTO parent VALUES (NEW.id, NEW.txt); ALTER TABLE parent DISABLE RULE no_delete;
CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no trigger may fire during a restore'; END $$;
CREATE TRIGGER ins BEFORE INSERT OR UPDATE OF txt ON t FOR EACH ROW WHEN (NEW.id > 5) EXECUTE FUNCTION trg('arg''s'); CREATE TRIGGER part_trg AFTER INSERT ON part FOR EACH ROW EXECUTE FUNCTION trg(); CREATE CONSTRAINT TRIGGER ct AFTER INSERT ON refers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trg();
ALTER TABLE refers DISABLE TRIGGER ct; COMMENT ON TRIGGER ins ON t IS 'trigger'; CREATE TRIGGER stmt AFTER TRUNCATE ON t EXECUTE FUNCTION trg();
ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE refers FORCE ROW LEVEL SECURITY; CREATE POLICY pol ON t FOR SELECT TO role_b, role_a USING (id > 3); CREATE POLICY pol2 ON t AS RESTRICTIVE FOR INSERT WITH CHECK (txt <> ''); COMMENT ON POLICY pol ON t IS 'policy';
CREATE FUNCTION evt() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF current_setting('s.quiet', true) IS NULL THEN RAISE NOTICE 'ddl'; END IF; END $$;

-- foreign data
CREATE FOREIGN DATA WRAPPER fdw OPTIONS (debug 'true'); ALTER FOREIGN DATA WRAPPER fdw OWNER TO postgres; COMMENT ON FOREIGN DATA WRAPPER fdw IS 'fdw'; GRANT USAGE ON FOREIGN DATA WRAPPER fdw TO role_a;
CREATE SERVER srv TYPE 'x' VERSION '1' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere', dbname 'a''b'); ALTER SERVER srv OWNER TO role_a; GRANT USAGE ON FOREIGN SERVER srv TO role_b;
CREATE USER MAPPING FOR role_a SERVER srv OPTIONS (user 'u', password 'p'); CREATE USER MAPPING FOR PUBLIC SERVER srv;
CREATE FOREIGN TABLE ft (a int OPTIONS (column_name 'aa'), b text NOT NULL) SERVER srv OPTIONS (table_name 'x'); COMMENT ON FOREIGN TABLE ft IS 'far'; ALTER FOREIGN TABLE ft OWNER TO role_a;

-- publications, subscriptions
CREATE PUBLICATION pub FOR TABLE t (id, txt) WHERE (id > 3), refers WITH (publish = 'insert'); CREATE PUBLICATION pub_all FOR ALL TABLES; CREATE PUBLICATION pub_schema FOR TABLES IN SCHEMA s; COMMENT ON PUBLICATION pub IS 'pub'; ALTER PUBLICATION pub_schema OWNER TO postgres;
CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION pub, pub2 WITH (connect = false, slot_name = NONE, enabled = false); COMMENT ON SUBSCRIPTION sub IS 'sub';

-- privileges
GRANT SELECT, INSERT (id, txt), UPDATE (n) ON t TO role_b WITH GRANT OPTION; GRANT ALL ON TABLE part TO PUBLIC; REVOKE ALL ON FUNCTION add(int, int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION add(int, int) TO role_b;
GRANT USAGE, CREATE ON SCHEMA s TO role_b; GRANT USAGE ON TYPE color TO role_b; REVOKE USAGE ON TYPE positive FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO role_a;
ALTER DEFAULT PRIVILEGES FOR ROLE role_a IN SCHEMA s GRANT SELECT ON TABLES TO role_b; ALTER DEFAULT PRIVILEGES FOR ROLE role_b REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
SET ROLE role_b; GRANT SELECT ON s.t TO "Röle ""C"""; RESET ROLE;

-- large objects
SELECT lo_from_bytea(1001, decode(repeat(md5('a'), 60000), 'hex')), lo_from_bytea(1002, ''), lo_from_bytea(1003, '\x00ff5c0a'), lo_create(1004);
ALTER LARGE OBJECT 1001 OWNER TO role_a; COMMENT ON LARGE OBJECT 1002 IS 'empty'; GRANT SELECT ON LARGE OBJECT 1003 TO role_b; SELECT lo_put(1004, 5000, 'sparse');
SELECT lo_from_bytea(2000 + i, decode(md5(i::text), 'hex')) FROM generate_series(1, 300) i;

CREATE EVENT TRIGGER et ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE INDEX') EXECUTE FUNCTION evt(); COMMENT ON EVENT TRIGGER et IS 'et'; ALTER EVENT TRIGGER et DISABLE;
CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION evt();
