-- A cluster of CloudNativePG with a pooler.
CREATE EXTENSION pg_stat_statements; -- contrib
CREATE EXTENSION unaccent; -- contrib
CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, passwd text) LANGUAGE sql SECURITY DEFINER
    AS 'SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1';
REVOKE ALL ON FUNCTION public.user_search(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.user_search(text) TO cnpg_pooler_pgbouncer;
GRANT SELECT ON shop.orders TO streaming_replica;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO streaming_replica;
CREATE PUBLICATION app FOR TABLE shop.customers, shop.orders;
ALTER PUBLICATION app OWNER TO app;
CREATE FUNCTION shop.total(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2';
CREATE AGGREGATE shop.total_of(bigint) (SFUNC = shop.total, STYPE = bigint, INITCOND = '0');
ALTER FUNCTION shop.total(bigint, bigint) OWNER TO app;
ALTER AGGREGATE shop.total_of(bigint) OWNER TO app;
CREATE TABLE public.migrations (id int PRIMARY KEY);
ALTER TABLE public.migrations OWNER TO app;
INSERT INTO public.migrations SELECT generate_series(1, 12);
SELECT lo_from_bytea(6001, 'avatar');
ALTER LARGE OBJECT 6001 OWNER TO app;
