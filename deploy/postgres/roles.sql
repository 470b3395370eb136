-- The roles of a worker that is no superuser. Run once, as a superuser (or the administrator of a hosted
-- server), in the maintenance database:  psql -d postgres -f roles.sql
-- Then give `pgrestored` a way to log in, and membership in the owner of every database that it may replace:
--   ALTER ROLE pgrestored PASSWORD '…';  GRANT app_owner TO pgrestored;

-- Makes, locks, renames and drops databases. Not CREATEROLE: before 16 that is as good as superuser.
CREATE ROLE pgrestored LOGIN CREATEDB;

-- They load restricted restores (BACKUP_TRUST=restricted, ALLOWED_SOURCES), one a restore at a time: as many
-- as RESTORE_MAX_CONCURRENT. They own nothing, and are members of nothing.
CREATE ROLE pgrestored_load_1 LOGIN;
CREATE ROLE pgrestored_load_2 LOGIN;
GRANT pgrestored_load_1, pgrestored_load_2 TO pgrestored;

-- Owns what a restricted restore puts in place where the replaced database's owner is too powerful to, or
-- where nothing is replaced. Applications become members of it, or are given what they need.
CREATE ROLE pgrestored_owner NOLOGIN;
GRANT pgrestored_owner TO pgrestored;

-- Ends the sessions of others on a database that is replaced (never a superuser's).
GRANT pg_signal_backend TO pgrestored;

-- The bookkeeping: who may make it, makes it.
CREATE SCHEMA pgrestored AUTHORIZATION pgrestored;
