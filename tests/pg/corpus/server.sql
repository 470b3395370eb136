-- A server of one's own: what only its superuser may create.
CREATE TABLE shop.archive (id int PRIMARY KEY, body text) TABLESPACE space_c;
ALTER TABLE shop.archive OWNER TO app_owner;
INSERT INTO shop.archive SELECT i, md5(i::text) FROM generate_series(1, 20) i;
CREATE INDEX archive_by_body ON shop.archive (body) TABLESPACE space_c;
CREATE FUNCTION shop.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER audit_ddl ON ddl_command_start EXECUTE FUNCTION shop.on_ddl();
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE SUBSCRIPTION from_branch CONNECTION 'dbname=branch' PUBLICATION everything WITH (connect = false);
CREATE FUNCTION shop.magnitude(int) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'int4abs';
CREATE TABLE shop.measures (id int PRIMARY KEY, size int DEFAULT shop.magnitude(-1));
INSERT INTO shop.measures VALUES (1, 2);
CREATE VIEW shop.sizes AS SELECT shop.magnitude(size) AS size FROM shop.measures;
CREATE FUNCTION shop.logged() RETURNS int LANGUAGE sql SET log_statement = 'all' AS 'SELECT 1';
CREATE FOREIGN DATA WRAPPER ledger;
CREATE SERVER branch FOREIGN DATA WRAPPER ledger OPTIONS (host 'branch');
CREATE USER MAPPING FOR reporting SERVER branch OPTIONS (user 'r');
CREATE FOREIGN TABLE shop.remote (id int) SERVER branch;
CREATE TYPE shop.colour AS ENUM ('red', 'blue');
CREATE CAST (shop.colour AS int) WITH INOUT;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE shop.columnar (a int) USING heap2;
ALTER TABLE shop.columnar OWNER TO app_owner;
INSERT INTO shop.columnar VALUES (1), (2), (3);
CREATE COLLATION shop.plain (provider = libc, locale = 'C');
CREATE TEXT SEARCH CONFIGURATION shop.words (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION shop.words OWNER TO app_owner;
SELECT pg_temp.label('shop.customers', 'anon', 'MASKED');
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO reporting, app_reader;
GRANT USAGE ON LANGUAGE plpgsql TO reporting;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO reporting;
ALTER DEFAULT PRIVILEGES FOR ROLE reporting GRANT SELECT ON TABLES TO app_reader;
CREATE EXTENSION pageinspect; -- contrib
CREATE VIEW public.pages AS SELECT get_raw_page('shop.archive', 0) AS page; -- contrib
CREATE EXTENSION hstore; -- contrib
COMMENT ON EXTENSION hstore IS 'attributes of products'; -- contrib
CREATE TABLE shop.products (id int PRIMARY KEY, attributes hstore); INSERT INTO shop.products VALUES (1, 'a=>1'); -- contrib
SELECT lo_from_bytea(5001, 'one');
ALTER LARGE OBJECT 5001 OWNER TO reporting;
COMMENT ON LARGE OBJECT 5001 IS 'a scan';
