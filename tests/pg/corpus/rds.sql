ALTER SCHEMA public OWNER TO rdsadmin;
GRANT ALL ON SCHEMA public TO rds_superuser;
CREATE SCHEMA aws_commons AUTHORIZATION rdsadmin;
CREATE SCHEMA aws_s3 AUTHORIZATION rdsadmin;
SELECT pg_temp.extension('aws_commons', 'aws_commons');
SELECT pg_temp.extension('aws_s3', 'aws_s3');
CREATE TYPE aws_commons._s3_uri_1 AS (bucket text, file_path text, region text);
ALTER EXTENSION aws_commons ADD TYPE aws_commons._s3_uri_1;
CREATE FUNCTION aws_s3.query_export_to_s3(query text, target aws_commons._s3_uri_1) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
ALTER EXTENSION aws_s3 ADD FUNCTION aws_s3.query_export_to_s3(text, aws_commons._s3_uri_1);
GRANT USAGE ON SCHEMA aws_s3 TO app_owner;
-- A function of the user's that takes the extension's type.
CREATE FUNCTION shop.export(target aws_commons._s3_uri_1) RETURNS bigint LANGUAGE sql AS $$ SELECT aws_s3.query_export_to_s3('SELECT 1', target) $$;
ALTER FUNCTION shop.export(aws_commons._s3_uri_1) OWNER TO app_owner;
-- Log files as foreign tables.
SELECT pg_temp.extension('log_fdw', 'public');
CREATE FOREIGN DATA WRAPPER log_fdw;
ALTER EXTENSION log_fdw ADD FOREIGN DATA WRAPPER log_fdw;
CREATE SERVER log_server FOREIGN DATA WRAPPER log_fdw;
CREATE FOREIGN TABLE public.postgres_log (line text) SERVER log_server;
CREATE EXTENSION hstore; -- contrib
-- Of the Database Migration Service.
CREATE TABLE public.awsdms_ddl_audit (c_key bigserial PRIMARY KEY, c_tag text);
ALTER TABLE public.awsdms_ddl_audit OWNER TO app_owner;
INSERT INTO public.awsdms_ddl_audit (c_tag) VALUES ('CREATE TABLE');
CREATE FUNCTION public.awsdms_intercept_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';
ALTER FUNCTION public.awsdms_intercept_ddl() OWNER TO app_owner;
CREATE EVENT TRIGGER awsdms_intercept_ddl ON ddl_command_end EXECUTE FUNCTION public.awsdms_intercept_ddl();
CREATE PUBLICATION dms FOR ALL TABLES;
GRANT SELECT ON shop.orders TO rds_superuser, rds_replication;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO rds_superuser;
ALTER DEFAULT PRIVILEGES FOR ROLE rdsadmin IN SCHEMA public GRANT SELECT ON TABLES TO app_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public GRANT SELECT ON TABLES TO rds_superuser;
