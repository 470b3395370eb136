SELECT pg_temp.extension('neon', 'public');
CREATE FUNCTION public.pg_cluster_size() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
ALTER EXTENSION neon ADD FUNCTION public.pg_cluster_size();
CREATE SCHEMA neon_auth AUTHORIZATION neon_service;
CREATE TABLE neon_auth.users_sync (raw_json jsonb NOT NULL, id text GENERATED ALWAYS AS (raw_json ->> 'id') STORED NOT NULL PRIMARY KEY);
ALTER TABLE neon_auth.users_sync OWNER TO neon_service;
INSERT INTO neon_auth.users_sync (raw_json) SELECT jsonb_build_object('id', i::text) FROM generate_series(1, 8) i;
GRANT USAGE ON SCHEMA neon_auth TO app_owner;
GRANT SELECT ON neon_auth.users_sync TO app_owner;
CREATE EXTENSION pg_trgm; -- contrib
GRANT SELECT ON shop.orders TO neon_superuser;
ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON SEQUENCES TO neon_superuser WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION;
CREATE PUBLICATION neon_to_warehouse FOR TABLE shop.customers;
ALTER PUBLICATION neon_to_warehouse OWNER TO app_owner;
CREATE FUNCTION shop.guard() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
ALTER FUNCTION shop.guard() OWNER TO app_owner;
CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION shop.guard();
