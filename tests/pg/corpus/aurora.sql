CREATE SCHEMA apg_plan_mgmt AUTHORIZATION rdsadmin;
SELECT pg_temp.extension('apg_plan_mgmt', 'apg_plan_mgmt');
CREATE TABLE apg_plan_mgmt.plans (sql_hash int PRIMARY KEY, plan text);
ALTER EXTENSION apg_plan_mgmt ADD TABLE apg_plan_mgmt.plans;
SELECT pg_temp.configuration('apg_plan_mgmt', 'apg_plan_mgmt.plans');
INSERT INTO apg_plan_mgmt.plans VALUES (1, 'Seq Scan');
GRANT SELECT ON apg_plan_mgmt.plans TO apg_plan_mgmt;
CREATE SCHEMA aws_lambda AUTHORIZATION rdsadmin;
SELECT pg_temp.extension('aws_lambda', 'aws_lambda');
SELECT pg_temp.extension('aurora_stat_utils', 'public');
CREATE FUNCTION public.aurora_stat_statements() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER EXTENSION aurora_stat_utils ADD FUNCTION public.aurora_stat_statements();
CREATE VIEW shop.slow AS SELECT public.aurora_stat_statements() AS calls;
ALTER VIEW shop.slow OWNER TO app_owner;
-- Scheduled jobs.
CREATE SCHEMA cron AUTHORIZATION rdsadmin;
SELECT pg_temp.extension('pg_schedule', 'cron');
CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, command text);
ALTER EXTENSION pg_schedule ADD TABLE cron.job;
SELECT pg_temp.configuration('pg_schedule', 'cron.job');
INSERT INTO cron.job VALUES (1, '0 3 * * *', 'VACUUM');
GRANT USAGE ON SCHEMA cron TO rds_superuser, app_owner;
GRANT SELECT ON cron.job TO rds_superuser;
CREATE EXTENSION citext; -- contrib
CREATE TABLE shop.tags (tag citext PRIMARY KEY); INSERT INTO shop.tags VALUES ('Sale'); ALTER TABLE shop.tags OWNER TO app_owner; -- contrib
CREATE TABLE public.legacy (a int);
ALTER TABLE public.legacy OWNER TO rds_superuser;
INSERT INTO public.legacy VALUES (1), (2);
GRANT SELECT ON shop.orders TO rds_superuser WITH GRANT OPTION;
CREATE POLICY all_tenants ON shop.customers TO rds_superuser USING (true);
