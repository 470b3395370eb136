ALTER SCHEMA public OWNER TO cloudsqlsuperuser;
GRANT ALL ON SCHEMA public TO PUBLIC;
CREATE SCHEMA google_vacuum_mgmt AUTHORIZATION cloudsqladmin;
SELECT pg_temp.extension('google_vacuum_mgmt', 'google_vacuum_mgmt');
CREATE FUNCTION google_vacuum_mgmt.get_vacuum_advice() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER EXTENSION google_vacuum_mgmt ADD FUNCTION google_vacuum_mgmt.get_vacuum_advice();
GRANT EXECUTE ON FUNCTION google_vacuum_mgmt.get_vacuum_advice() TO cloudsqlsuperuser;
CREATE EXTENSION pgcrypto; -- contrib
CREATE EXTENSION pg_stat_statements; -- contrib
CREATE TABLE public.audit (at timestamptz, what text);
ALTER TABLE public.audit OWNER TO cloudsqlsuperuser;
INSERT INTO public.audit SELECT '2026-01-01'::timestamptz + i * interval '1 hour', 'login ' || i FROM generate_series(1, 20) i;
-- A table of a person who logs in by IAM.
CREATE TABLE shop.notes (id int PRIMARY KEY, note text);
ALTER TABLE shop.notes OWNER TO "ana@example.com";
INSERT INTO shop.notes VALUES (1, 'call back');
CREATE INDEX notes_by_note ON shop.notes (note);
GRANT SELECT ON shop.customers TO cloudsqlsuperuser, cloudsqliamuser, app_reader;
GRANT SELECT ON public.audit TO cloudsqlimportexport;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO cloudsqlsuperuser;
GRANT SELECT ON TABLE pg_catalog.pg_shadow TO cloudsqlsuperuser;
ALTER DEFAULT PRIVILEGES FOR ROLE cloudsqlsuperuser IN SCHEMA public GRANT SELECT ON TABLES TO app_reader;
CREATE PUBLICATION datastream FOR TABLE shop.customers, public.settings;
ALTER PUBLICATION datastream OWNER TO app_owner;
SELECT lo_from_bytea(4001, 'scan of an invoice');
ALTER LARGE OBJECT 4001 OWNER TO app_owner;
GRANT SELECT ON LARGE OBJECT 4001 TO app_reader;
