//! The table of rules: everything that may be done otherwise than a dump says.

/// Why a dump is not restored to the letter.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub name: &'static str,
    pub what: &'static str,
}

macro_rules! rules {
    ($($id:ident = $name:literal: $what:literal;)*) => {
        $(pub(super) const $id: &str = $name;)*
        /// Everything that may be done otherwise than a dump says.
        pub const RULES: &[Rule] = &[$(Rule { name: $name, what: $what }),*];
    };
}

rules! {
    UNKNOWN_SETTING = "unknown-setting": "SET of a parameter that the server's version does not know is left out: transaction_timeout before 17, default_toast_compression before 14";
    WITH_OIDS = "with-oids": "WITH OIDS is gone since 12: tables are made without, and the oid column of COPY data is left out";
    CLEAN = "clean": "what pg_dump --clean drops first is left out: a restore always begins empty";
    SCHEMA_PUBLIC = "schema-public": "CREATE SCHEMA public is left out: a new database has it";
    DATABASE = "database": "CREATE DATABASE, and owner, privileges, settings and comment of the database itself, are left out, as by pg_restore into a named database; encoding and locale are used";
    MAINTENANCE = "maintenance": "VACUUM and CHECKPOINT in SQL text are left out: the tables are analysed when all is there";
    PLPGSQL = "plpgsql": "CREATE LANGUAGE plpgsql is left out: every database has it";
    COMMENT_ON_EXTENSION = "comment-on-extension": "COMMENT ON EXTENSION is left out where the restoring role is no superuser: it belongs to the extension's owner";
    MAINTAIN = "maintain-privilege": "the privilege MAINTAIN is left out before 17";
    ACCESS_METHOD = "access-method": "a table access method that the server does not have becomes heap";
    TABLESPACE = "tablespace": "a tablespace that the server does not have becomes the default one";
    COMPRESSION = "column-compression": "ALTER COLUMN … SET COMPRESSION is left out before 14, and with lz4 where the server is built without it";
    COLUMN_VERSION = "column-version": "the column option pg_attver, which a server keeps for itself (15.20 and other releases of November 2026) and a pg_dump that is older prints, is left out";
    MULTIRANGE = "multirange-name": "the name of a range type's multirange is left out before 14, which has none";
    STATISTICS = "statistics-data": "the dump's statistics are left out before 18; the tables are analysed instead";
    EXTENSION_GONE = "extension-gone": "adminpack and old_snapshot are left out since 17, which has them no more";
    EXTENSION_SKIPPED = "extension-skipped": "with --extensions skip-missing: an extension that the server does not have is left out, with everything that depends on it";
    OWNER_LEFT_OUT = "owner-left-out": "with --owners none: objects belong to the restoring role";
    ROLE_MAPPED = "role-mapped": "with --owners map: another role takes this one's place as owner and in privileges";
    PRIVILEGES_LEFT_OUT = "privileges-left-out": "with --no-privileges: GRANT, REVOKE and default privileges are left out";
    ROLE_CREATED = "role-created": "with --create-roles or a globals file: a role that the server does not have is created, without login or with what the globals file says";
    ARRAY_AGGREGATE = "array-aggregate": "an aggregate over array_append, array_prepend or array_cat takes anycompatible instead of anyelement since 14, as those functions do";
}
