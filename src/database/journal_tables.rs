//! The tables of the journal, and who may use them.

use crate::postgres::ident;

/// Creates the journal.
pub(super) const INSTALL: &str = "
SELECT pg_advisory_xact_lock(hashtextextended('pgrestored:install', 7));
-- CREATE SCHEMA IF NOT EXISTS needs CREATE on the database even if the schema exists.
DO $$ BEGIN
  IF to_regnamespace('pgrestored') IS NULL THEN CREATE SCHEMA pgrestored; END IF;
END $$;
CREATE TABLE IF NOT EXISTS pgrestored.request (
  request_id text PRIMARY KEY,
  digest text NOT NULL,
  target text NOT NULL,
  sequence bigint NOT NULL,
  attempt uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('running', 'done')),
  outcome jsonb,
  created timestamptz NOT NULL DEFAULT now(),
  updated timestamptz NOT NULL DEFAULT now(),
  -- attempts that began and were never heard of again
  starts integer NOT NULL DEFAULT 0,
  -- the target is what this request made of it, or was
  applied boolean NOT NULL DEFAULT false
);
ALTER TABLE pgrestored.request ADD COLUMN IF NOT EXISTS starts integer NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS applied boolean NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS request_applied ON pgrestored.request (target, sequence) WHERE applied;
CREATE TABLE IF NOT EXISTS pgrestored.owned_database (
  name text PRIMARY KEY,
  kind text NOT NULL,
  request_id text NOT NULL,
  target text NOT NULL,
  created timestamptz NOT NULL DEFAULT now(),
  keep_until timestamptz
);
ALTER TABLE pgrestored.owned_database DROP CONSTRAINT IF EXISTS owned_database_kind_check,
  ADD CONSTRAINT owned_database_kind_check CHECK (kind IN ('staging', 'verification', 'previous'));";

/// The table of databases that are kept for the next attempt of their restore, and what is counted of the attempts. A journal
/// that another role created may lack them, and works without them.
pub(super) const INSTALL_WORK: &str = "
SELECT pg_advisory_xact_lock(hashtextextended('pgrestored:install', 7));
CREATE TABLE IF NOT EXISTS pgrestored.work (
  -- of the database: that of the staging database, or the target's own
  name text PRIMARY KEY,
  request_id text NOT NULL,
  target text NOT NULL,
  database_oid oid NOT NULL,
  -- under which each row of the record has a code
  key bytea NOT NULL,
  -- kept for a person, and not for a redelivery
  by_command boolean NOT NULL,
  pins text NOT NULL,
  state text NOT NULL CHECK (state IN ('loading', 'waiting', 'sealed')),
  attempt integer NOT NULL,
  seconds float8 NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  rows bigint NOT NULL DEFAULT 0,
  share float8 NOT NULL DEFAULT 0,
  -- sealed: what the result says of the load
  draft jsonb,
  began timestamptz NOT NULL DEFAULT now(),
  -- the last sign of life
  updated timestamptz NOT NULL DEFAULT now()
);
-- attempts that failed, and were not merely interrupted
ALTER TABLE pgrestored.request ADD COLUMN IF NOT EXISTS failures integer NOT NULL DEFAULT 0;";

/// Whether the journal exists in its current form, whether this role may use it, and whether the database's encoding is
/// UTF-8; its role; whether all of [`INSTALL_WORK`] exists, and whether the table of work may be used. Names of the schema's tables would be errors for a
/// role without USAGE.
pub(super) const INSTALLED: &str = "WITH tables AS (
    SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pgrestored' AND c.relname IN ('request', 'owned_database')),
  work AS (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pgrestored' AND c.relname = 'work')
  SELECT (SELECT count(*) = 2 FROM tables) AND EXISTS (SELECT FROM pg_attribute a JOIN tables t ON a.attrelid = t.oid
      WHERE t.relname = 'request' AND a.attname = 'applied'),
    coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'pgrestored'), true)
      AND NOT EXISTS (SELECT FROM tables, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed(privilege)
        WHERE NOT has_table_privilege(tables.oid, needed.privilege)),
    getdatabaseencoding() = 'UTF8', current_user::text, EXISTS (SELECT FROM work) AND EXISTS (SELECT FROM pg_attribute a
      JOIN tables t ON a.attrelid = t.oid WHERE t.relname = 'request' AND a.attname = 'failures'),
    coalesce((SELECT bool_and(has_table_privilege(work.oid, needed.privilege))
      FROM work, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed(privilege)), false)";

/// The statements that let a role use an existing journal.
pub(super) fn grants_to(role: &str) -> String {
    let role = ident(role);
    format!(
        "GRANT USAGE ON SCHEMA pgrestored TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgrestored TO {role}"
    )
}
