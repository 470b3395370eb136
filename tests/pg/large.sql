-- Tables that are large enough (1 MiB of rows) for the special handling of large tables: a first COPY by one session, keys created
-- from concurrently built indexes, autovacuum disabled meanwhile. One is large enough (4 MiB) for FREEZE.
CREATE TABLE keyed (id bigint PRIMARY KEY, "Odd ""col" int NOT NULL, a int, b text, c int, CONSTRAINT "K one" UNIQUE ("Odd ""col"), CONSTRAINT "two of" UNIQUE (a, b), UNIQUE (c) INCLUDE (b), CONSTRAINT later UNIQUE (a, c) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO keyed SELECT i, i, i % 1000, md5(i::text) || md5((i + 1)::text), i FROM generate_series(1, 16000) i;
CREATE INDEX ON keyed (b); CREATE INDEX ON keyed (lower(b), a);
COMMENT ON CONSTRAINT "two of" ON keyed IS 'of two columns';
ALTER TABLE keyed REPLICA IDENTITY USING INDEX "K one";
ALTER TABLE keyed CLUSTER ON keyed_pkey;
CREATE TABLE refers (id int PRIMARY KEY, keyed bigint REFERENCES keyed, note text) WITH (autovacuum_enabled = false, fillfactor = 70);
INSERT INTO refers SELECT i, i, repeat(md5(i::text), 3) FROM generate_series(1, 12000) i;
CREATE TABLE wide (t text); INSERT INTO wide SELECT repeat(md5(i::text), 56) FROM generate_series(1, 2600) i;
CREATE UNLOGGED TABLE unlogged (id int UNIQUE, t text); INSERT INTO unlogged SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 12000) i;
CREATE TABLE parted (id int, t text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part_a PARTITION OF parted FOR VALUES FROM (0) TO (12000); CREATE TABLE part_b PARTITION OF parted FOR VALUES FROM (12000) TO (24000);
INSERT INTO parted SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 23500) i;
CREATE TABLE heir (more int UNIQUE) INHERITS (keyed); INSERT INTO heir SELECT i, i, i, md5(i::text), i, i FROM generate_series(100000, 120000) i;
CREATE SCHEMA "S p"; CREATE TABLE "S p"."T ""x" (id int PRIMARY KEY, t text); INSERT INTO "S p"."T ""x" SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 12000) i;
CREATE FUNCTION no_more() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'tables are as they should be'; END $$;
CREATE EVENT TRIGGER no_more ON ddl_command_start WHEN TAG IN ('ALTER TABLE', 'CREATE INDEX') EXECUTE FUNCTION no_more();
