REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO u2m96f8s5m4e6c;
GRANT ALL ON SCHEMA public TO PUBLIC;
COMMENT ON SCHEMA public IS '';
CREATE SCHEMA heroku_ext AUTHORIZATION u2m96f8s5m4e6c;
CREATE EXTENSION pg_stat_statements SCHEMA heroku_ext; -- contrib
CREATE EXTENSION pgcrypto SCHEMA heroku_ext; -- contrib
CREATE SCHEMA _heroku AUTHORIZATION heroku_admin;
CREATE FUNCTION _heroku.create_ext() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';
CREATE FUNCTION _heroku.drop_ext() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';
CREATE FUNCTION _heroku.validate_extension() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN END';
ALTER FUNCTION _heroku.create_ext() OWNER TO heroku_admin;
ALTER FUNCTION _heroku.drop_ext() OWNER TO heroku_admin;
ALTER FUNCTION _heroku.validate_extension() OWNER TO heroku_admin;
CREATE EVENT TRIGGER log_create_ext ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION _heroku.create_ext();
CREATE EVENT TRIGGER log_drop_ext ON sql_drop WHEN TAG IN ('DROP EXTENSION') EXECUTE FUNCTION _heroku.drop_ext();
CREATE EVENT TRIGGER validate_extension ON ddl_command_end WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION _heroku.validate_extension();
ALTER ROLE rdsadmin SUPERUSER;
ALTER EVENT TRIGGER log_create_ext OWNER TO rdsadmin;
-- The credential of a colleague.
CREATE TABLE public.drafts (id int PRIMARY KEY, body text);
ALTER TABLE public.drafts OWNER TO uc001spkeri80k;
INSERT INTO public.drafts VALUES (1, 'hello');
GRANT SELECT ON shop.orders TO uc001spkeri80k;
GRANT SELECT ON public.drafts TO u2m96f8s5m4e6c;
-- An event trigger of the user's own.
CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
ALTER FUNCTION public.on_ddl() OWNER TO u2m96f8s5m4e6c;
CREATE EVENT TRIGGER hasura ON ddl_command_end EXECUTE FUNCTION public.on_ddl();
COMMENT ON EVENT TRIGGER hasura IS 'keeps metadata up to date';
