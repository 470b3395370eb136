ALTER SCHEMA public OWNER TO azure_pg_admin;
GRANT ALL ON SCHEMA public TO azure_pg_admin;
SELECT pg_temp.extension('azure', 'pg_catalog');
SELECT pg_temp.extension('pgaadauth', 'pg_catalog');
CREATE SCHEMA azure_storage AUTHORIZATION azuresu;
SELECT pg_temp.extension('azure_storage', 'azure_storage');
CREATE TABLE azure_storage.accounts (account_name text PRIMARY KEY);
ALTER EXTENSION azure_storage ADD TABLE azure_storage.accounts;
SELECT pg_temp.configuration('azure_storage', 'azure_storage.accounts');
INSERT INTO azure_storage.accounts VALUES ('shop');
CREATE EXTENSION pg_trgm; -- contrib
CREATE EXTENSION pg_buffercache; -- contrib
CREATE INDEX emails ON shop.customers USING gin (email gin_trgm_ops); -- contrib
GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_create(text) TO azure_pg_admin;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_drop(text) TO azure_pg_admin;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_oid(text) TO azure_pg_admin;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset_shared(text) TO azure_pg_admin;
REVOKE SELECT ON TABLE pg_catalog.pg_largeobject_metadata FROM PUBLIC;
CREATE TABLE public.imported (id int PRIMARY KEY, what text);
ALTER TABLE public.imported OWNER TO azure_pg_admin;
INSERT INTO public.imported SELECT i, 'row ' || i FROM generate_series(1, 30) i;
GRANT SELECT, INSERT ON public.imported TO app_owner;
GRANT SELECT ON shop.customers TO azure_pg_admin;
CREATE PUBLICATION fabric FOR TABLE shop.orders;
ALTER PUBLICATION fabric OWNER TO app_owner;
CREATE VIEW shop.sessions AS SELECT pid FROM pg_catalog.pg_stat_activity;
ALTER VIEW shop.sessions OWNER TO azure_pg_admin;
