ALTER SCHEMA public OWNER TO alloydbsuperuser;
SELECT pg_temp.extension('google_columnar_engine', 'public');
CREATE FUNCTION public.google_columnar_engine_add(relation text) RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER EXTENSION google_columnar_engine ADD FUNCTION public.google_columnar_engine_add(text);
SELECT pg_temp.extension('google_db_advisor', 'public');
CREATE SCHEMA google_ml AUTHORIZATION alloydbadmin;
SELECT pg_temp.extension('google_ml_integration', 'google_ml');
CREATE TABLE google_ml.models (model_id text PRIMARY KEY);
ALTER EXTENSION google_ml_integration ADD TABLE google_ml.models;
SELECT pg_temp.configuration('google_ml_integration', 'google_ml.models');
INSERT INTO google_ml.models VALUES ('textembedding');
-- Indexes of ScaNN.
SELECT pg_temp.extension('alloydb_scann', 'public');
CREATE ACCESS METHOD scann TYPE INDEX HANDLER hashhandler;
CREATE OPERATOR FAMILY public.scann_ops USING scann;
CREATE OPERATOR CLASS public.cosine DEFAULT FOR TYPE int4 USING scann FAMILY public.scann_ops AS
    OPERATOR 1 =, FUNCTION 1 hashint4(int4);
ALTER EXTENSION alloydb_scann ADD ACCESS METHOD scann;
ALTER EXTENSION alloydb_scann ADD OPERATOR FAMILY public.scann_ops USING scann;
ALTER EXTENSION alloydb_scann ADD OPERATOR CLASS public.cosine USING scann;
CREATE INDEX nearest ON shop.customers USING scann (tenant);
COMMENT ON INDEX shop.nearest IS 'by similarity';
-- A type of an extension that the user chose.
SELECT pg_temp.extension('pg_bigm', 'public');
CREATE DOMAIN public.gram AS text;
ALTER EXTENSION pg_bigm ADD DOMAIN public.gram;
CREATE TABLE shop.titles (id int PRIMARY KEY, title public.gram);
ALTER TABLE shop.titles OWNER TO app_owner;
INSERT INTO shop.titles VALUES (1, 'a'), (2, 'b');
CREATE VIEW shop.title_list AS SELECT title FROM shop.titles;
ALTER VIEW shop.title_list OWNER TO app_owner;
GRANT SELECT ON shop.title_list TO app_reader;
CREATE TABLE public.jobs (id int PRIMARY KEY);
ALTER TABLE public.jobs OWNER TO alloydbsuperuser;
GRANT SELECT ON shop.orders TO alloydbsuperuser, alloydbiamuser;
