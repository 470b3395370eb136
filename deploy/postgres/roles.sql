-- The roles of a worker that is not a superuser. Run once, as a superuser (or as the administrator of a hosted
-- server), in the maintenance database:  psql -d postgres -f roles.sql
-- Then give `pgrestored` a way to log in, and membership in the owner of every database that it may replace:
--   ALTER ROLE pgrestored PASSWORD '…';  GRANT app_owner TO pgrestored;

-- Creates, locks, renames and drops databases. No CREATEROLE: before 16 that is as good as superuser.
CREATE ROLE pgrestored LOGIN CREATEDB;

-- Load restricted restores (BACKUP_TRUST=restricted, ALLOWED_SOURCES). Each serves one restore at a time, so create
-- as many as RESTORE_MAX_CONCURRENT. They own nothing, and are members of nothing.
CREATE ROLE pgrestored_load_1 LOGIN;
CREATE ROLE pgrestored_load_2 LOGIN;
GRANT pgrestored_load_1, pgrestored_load_2 TO pgrestored;

-- Owns the result of a restricted restore if the owner of the replaced database is too powerful to own it, or if
-- nothing is replaced. Make applications members of this role, or grant them what they need.
CREATE ROLE pgrestored_owner NOLOGIN;
GRANT pgrestored_owner TO pgrestored;

-- Allows terminating other sessions on a database that is replaced (never a superuser's).
GRANT pg_signal_backend TO pgrestored;

-- The schema of the journal, and of what restores that resume need to know. A role with CREATE on this database would create
-- it itself. Its tables, also pgrestored.work, are created and used by this role alone: they need no grants, and no other role
-- may have any, since pgrestored.work holds the keys that show whether a record of work is genuine.
CREATE SCHEMA pgrestored AUTHORIZATION pgrestored;
