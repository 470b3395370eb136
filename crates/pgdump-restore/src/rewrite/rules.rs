//! The table of rules: every way in which a restore may differ from the dump.
//!
//! To add a rule, such as one for a managed service:
//!
//! 1. Declare it in this file: a name and what it does, when.
//! 2. If it depends on something of the server that is not known yet, add that to `ServerFacts` and query it in
//!    `Session::facts` (`postgres/facts.rs`). What a restricted restore or the place of the database changes about it
//!    is in `facts_for_loader` (`src/database/confinement.rs`) and `facts_for_database` (`src/pipeline/placement.rs`). A rule
//!    that has to be asked for depends on `Policy` (`policy.rs`) instead.
//! 3. Write its code; which file depends on what the rule does:
//!    - **Leave out a statement**: `should_skip` in `skip.rs`.
//!    - **Change a statement**: `changed` in `statements.rs`; functions that edit text are in `edits.rs`.
//!    - **Change a field of an entry** (owner, tablespace, access method): `Rewriter::entry` in `rewrite.rs`.
//!    - **Leave out whole entries**, such as every event trigger: a method in `rewrite.rs` that `Rewriter::entries` calls
//!      before it rewrites what is left, with `skip_extensions` as the example. Collect the ids of the entries by their kind
//!      (`EntryKind`), add what depends on them with `add_dependents`, and give both to `skip` with the rule. An entry's
//!      comments, privileges and rows depend on it, and so do the entries that use it. Only rows of tables that an
//!      extension creates name no entry (`data_of_missing_tables`).
//! 4. An archive's entries reach `skip.rs` and `statements.rs` only if `has_rewritable_statements` (`rewrite.rs`) lists their
//!    kind. SQL text has no entries and no dependencies: every statement goes through these two files by itself, so a
//!    rule that leaves out entries needs its statements in `should_skip`, too, with those about the same object
//!    (`COMMENT ON`, `GRANT`, `ALTER`). Rows of SQL text are always sent.
//!    What the selection leaves out of SQL text by kind and name (`selected.rs`, `crate::choice`) is the exception: it follows
//!    the text, and so knows what belongs to what.
//!    Rules of a managed service (`platform.rs`) are applied before preflight; their names are data (`crate::profiles`).
//! 5. Preflight comes before the rules and would still refuse or warn: make the same exception in the file of `preflight/` that
//!    checks for it (`extensions.rs`, `owners.rs`, `definitions.rs` for kinds that only a superuser creates, `builds.rs`).
//! 6. Test it: a statement in the tests of `statements.rs`, entries in those of `rewrite.rs`, a real server in
//!    `tests/pg/servers.rs`.
//! 7. Write `docs/rules.md`: `UPDATE_GOLDEN=1 cargo nextest run -E 'test(every_rule_is_documented)'`.

/// Why a statement of a dump is rewritten or skipped.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Name in results and in `docs/rules.md`, such as `with-oids`.
    pub name: &'static str,
    /// What the rule does, and when.
    pub what: &'static str,
}

macro_rules! rules {
    ($($id:ident = $name:literal: $what:literal;)*) => {
        $(pub(super) const $id: &str = $name;)*
        /// Every way in which a restore may differ from the dump.
        pub const RULES: &[Rule] = &[$(Rule { name: $name, what: $what }),*];
    };
}

rules! {
    UNKNOWN_SETTING = "unknown-setting": "SET of a parameter that the server's version does not know is skipped: transaction_timeout before 17, default_toast_compression before 14, escape_string_warning from 19 on";
    WITH_OIDS = "with-oids": "WITH OIDS was removed in 12: tables are created without it, and the oid column of COPY data is dropped";
    CLEAN = "clean": "the DROP statements of pg_dump --clean are skipped: a restore always starts with an empty database";
    SCHEMA_PUBLIC = "schema-public": "CREATE SCHEMA public is skipped: a new database has it";
    DATABASE = "database": "CREATE DATABASE, and owner, privileges, settings and comment of the database itself, are skipped, as by pg_restore into a named database; encoding and locale are used";
    MAINTENANCE = "maintenance": "VACUUM and CHECKPOINT in SQL text are skipped: the tables are analyzed after the load";
    PLPGSQL = "plpgsql": "CREATE LANGUAGE plpgsql is skipped, and so is its owner: every database has it";
    COMMENT_ON_EXTENSION = "comment-on-extension": "COMMENT ON EXTENSION is skipped if the restoring role is not a superuser: it belongs to the extension's owner";
    MAINTAIN = "maintain-privilege": "the privilege MAINTAIN is removed before 17";
    ACCESS_METHOD = "access-method": "a table access method that the server lacks is replaced by heap";
    TABLESPACE = "tablespace": "a tablespace that the server lacks is replaced by the default one";
    COMPRESSION = "column-compression": "ALTER COLUMN … SET COMPRESSION is skipped before 14, and with lz4 if the server is built without it";
    COLUMN_VERSION = "column-version": "the column option pg_attver is removed; it is internal to a server (15.20 and other releases of November 2026), but an older pg_dump prints it";
    MULTIRANGE = "multirange-name": "the name of a range type's multirange is removed before 14, which has no multiranges";
    STATISTICS = "statistics-data": "the dump's statistics are skipped before 18; the tables are analyzed instead";
    EXTENSION_GONE = "extension-gone": "adminpack and old_snapshot are skipped from 17 on, which no longer has them";
    EXTENSION_SKIPPED = "extension-skipped": "with --extensions skip-missing: an extension that the server lacks is skipped, with everything that depends on it";
    EXTENSION_CALLS = "extension-calls": "timescaledb_pre_restore() of TimescaleDB is called after CREATE EXTENSION, and timescaledb_post_restore() after the load";
    OWNER_LEFT_OUT = "owner-left-out": "with --owners none: objects belong to the restoring role";
    ROLE_MAPPED = "role-mapped": "with --owners map: another role replaces this one as owner and in privileges";
    PRIVILEGES_LEFT_OUT = "privileges-left-out": "with --no-privileges: GRANT, REVOKE and default privileges are skipped";
    ROLE_CREATED = "role-created": "with --create-roles or a globals file: a role that the server lacks is created, without login or as the globals file defines it";
    ROLE_GRANTED = "role-granted": "an owner that the restoring role is no member of, but may make itself a member of (CREATEROLE before 16, ADMIN from 16 on), is granted to it, and stays so";
    PLATFORM_OWNER = "platform-owner": "with a profile: objects of a role of the managed service that the server lacks, or that the restoring role may not act for, belong to the restoring role";
    PLATFORM_PRIVILEGE = "platform-privilege": "with a profile: privileges of roles of the managed service that the server lacks are skipped, and without superuser those on objects of the system or of an extension";
    PLATFORM_DEFAULTS = "platform-default-privileges": "with a profile: default privileges are skipped if the role whose objects they are for is not on the server, or belongs to the managed service and the restoring role may not act for it";
    PLATFORM_POLICY = "platform-policy": "with a profile: roles of the managed service that the server lacks are removed from policies, and a policy for no other role is skipped: row security stays on, and without a policy only the table's owner sees its rows";
    PLATFORM_OBJECT = "platform-object": "with a profile: extensions (if the server lacks them), schemas, event triggers and publications of the managed service's platform are skipped, with everything that depends on them, unless that is a table of the user";
    STANDARD_STRINGS = "standard-strings": "from 19 on, which no longer has standard_conforming_strings = off: the setting is left out, also that of a function (with its escape_string_warning), and constants with backslashes are marked as E'…', which has the same value, also in bodies of functions in SQL and PL/pgSQL";
    NOT_SELECTED = "not-selected": "with --skip or --only-kinds, of SQL text: a statement of another kind or name is skipped, with what belongs to it or names it; entries of other formats are in the notes";
    ARRAY_AGGREGATE = "array-aggregate": "from 14 on, an aggregate over array_append, array_prepend or array_cat takes anycompatible instead of anyelement, as those functions do";
}
