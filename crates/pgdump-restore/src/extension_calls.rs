//! Calls functions of extensions before, after and beyond a load, as [`HOOKS`] lists them.

use std::collections::BTreeSet;

use crate::error::DatabaseError;
use crate::extension_hooks::{ExtensionHooks, HOOKS, WithoutLibrary, hooks_of};
use crate::postgres::{Server, Session, literal, map_pg_error};

/// The same names mean the same objects, whatever the database's own search path.
const EMPTY_PATH: &str = "SET search_path = '';";

/// Who may call a function; for others, the call does nothing.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Any,
    Superuser,
}

/// A statement that calls a function of an extension, and nothing else of that name. It does nothing if the database does
/// not have the extension. A superuser calls only what belongs to a superuser: the owner of a trusted extension, such as the
/// role of a restricted restore, may add functions of its own to it. Of `DO LANGUAGE`, which runs statements of the dump,
/// messages would be dropped.
fn call(extension: &str, function: &str, caller: Caller) -> String {
    let (e, f) = (literal(extension), literal(function));
    let (is_skipped, is_safe) = match caller {
        Caller::Any => ("false", "true"),
        Caller::Superuser => (
            "NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)",
            "(SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid = p.proowner)",
        ),
    };
    format!(
        "DO $call$ DECLARE sql text; BEGIN \
         IF {is_skipped} OR NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = {e}) THEN RETURN; END IF; \
         SELECT pg_catalog.format('SELECT %I.%I()', n.nspname, p.proname) INTO sql \
         FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass \
         AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass \
         JOIN pg_catalog.pg_proc p ON p.oid = d.objid AND p.pronargs = 0 \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE e.extname = {e} AND p.proname = {f} AND {is_safe} ORDER BY n.nspname LIMIT 1; \
         IF sql IS NULL THEN RAISE EXCEPTION 'extension % has no function %()', {e}, {f} USING ERRCODE = '42883'; END IF; \
         EXECUTE sql; END $call$ LANGUAGE plpgsql;"
    )
}

fn calls(extension: &str, functions: &[&str]) -> String {
    let calls = functions.iter().map(|f| call(extension, f, Caller::Any));
    calls.collect::<Vec<_>>().join("\n")
}

/// `CREATE EXTENSION`, followed by what the extension wants to be called at once; `None` if that is nothing.
pub(crate) fn with_calls(extension: &str, create: &str) -> Option<String> {
    let functions = hooks_of(extension)?.after_create;
    let end = if create.trim_end().ends_with(';') {
        ""
    } else {
        ";"
    };
    (!functions.is_empty()).then(|| format!("{create}{end}\n{}", calls(extension, functions)))
}

/// A statement that is refused as others are, where the server would answer `CREATE EXTENSION` by ending the connection.
pub(crate) fn instead_of_disconnecting(extension: &str, why: &str) -> Option<String> {
    let library = hooks_of(extension)?.required_library()?;
    let message = literal(&format!(
        "extension \"{extension}\" cannot be created: {why}"
    ));
    (library.without == WithoutLibrary::Disconnects).then(|| {
        let stands_for = stands_for(extension);
        format!("{stands_for} DO LANGUAGE plpgsql $$ BEGIN RAISE EXCEPTION USING MESSAGE = {message}, ERRCODE = '55000'; END $$;")
    })
}

fn stands_for(extension: &str) -> String {
    format!("/* CREATE EXTENSION {extension} */")
}

/// The extension that such a statement would have created.
pub(crate) fn refused_extension(sql: &str) -> Option<&'static str> {
    let mut all = HOOKS.iter().map(|h| h.extension);
    all.find(|e| sql.starts_with(&stands_for(e)))
}

/// Whether statements contain such calls.
pub(crate) fn has_calls(sql: &str) -> bool {
    let with_calls = HOOKS.iter().filter(|h| !h.after_create.is_empty());
    let mut all = with_calls.map(|h| calls(h.extension, h.after_create));
    all.any(|calls| sql.contains(&calls))
}

/// Tells these extensions that everything is loaded.
///
/// # Errors
/// The extension's own, with the extension.
pub(crate) async fn after_load(
    server: &Server,
    database: &str,
    extensions: &BTreeSet<&'static str>,
) -> Result<(), DatabaseError> {
    let due = HOOKS.iter().filter(|h| extensions.contains(h.extension));
    let due: Vec<&ExtensionHooks> = due.filter(|h| !h.after_load.is_empty()).collect();
    if due.is_empty() {
        return Ok(());
    }
    let session = server.connect(database, "extensions").await?;
    for hooks in due {
        let finish = calls(hooks.extension, hooks.after_load);
        let stop = hooks
            .stop
            .map(|f| call(hooks.extension, f, Caller::Superuser));
        // In one transaction: what the first calls start waits for its end, and is stopped before.
        let sql = format!("{EMPTY_PATH} {finish} {}", stop.unwrap_or_default());
        let called = session.run(&sql).await;
        called.map_err(|e| {
            let e = e.followed_by(
                "; the extension must have the same version on the server as in the backup",
            );
            e.context(&format!("EXTENSION {} after the load", hooks.extension))
        })?;
    }
    Ok(())
}

/// Starts what the extensions of a database run by themselves, and what a load has stopped, or a swap ended.
///
/// # Errors
/// The extension's own.
pub async fn resume_extensions(session: &Session) -> Result<(), DatabaseError> {
    const EXTENSIONS: &str = "SELECT extname::pg_catalog.text FROM pg_catalog.pg_extension";
    let rows = session.client().query(EXTENSIONS, &[]).await;
    let rows = rows.map_err(|e| map_pg_error(&e, "listing extensions"))?;
    let hooks = rows.iter().filter_map(|row| hooks_of(row.get(0)));
    let starts = hooks.filter_map(|h| Some(call(h.extension, h.start?, Caller::Superuser)));
    let starts: Vec<String> = starts.collect();
    if starts.is_empty() {
        return Ok(());
    }
    let sql = format!("{EMPTY_PATH} {}", starts.join(" "));
    session.run(&sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_extension_with_hooks_is_called() {
        let create = "CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;";
        let sent = with_calls("timescaledb", create).unwrap();
        assert!(
            sent.starts_with(create) && sent.contains("'timescaledb_pre_restore'"),
            "{sent}"
        );
        assert!(has_calls(&sent) && !has_calls(create));
        for other in ["pg_cron", "hstore"] {
            assert_eq!(with_calls(other, "CREATE EXTENSION x;"), None);
        }
    }

    #[test]
    fn a_superuser_calls_only_functions_of_superusers() {
        let is_safe = "rolsuper FROM pg_catalog.pg_roles WHERE oid = p.proowner";
        let of = |caller| call("timescaledb", "start_background_workers", caller);
        assert!(of(Caller::Superuser).contains(is_safe));
        assert!(!of(Caller::Any).contains(is_safe));
        assert!(!of(Caller::Any).contains("DO LANGUAGE"));
    }

    #[test]
    fn a_refusal_takes_the_place_of_a_lost_connection() {
        let sent = instead_of_disconnecting("timescaledb", "the server's library").unwrap();
        assert!(
            sent.contains("cannot be created: the server''s library'"),
            "{sent}"
        );
        assert_eq!(refused_extension(&sent), Some("timescaledb"));
        assert_eq!(refused_extension("CREATE EXTENSION timescaledb;"), None);
        assert_eq!(instead_of_disconnecting("pg_cron", "x"), None);
        assert_eq!(instead_of_disconnecting("hstore", "x"), None);
    }

    #[test]
    fn a_statement_without_an_end_gets_one() {
        let sent = with_calls("timescaledb", "CREATE EXTENSION timescaledb").unwrap();
        assert!(
            sent.starts_with("CREATE EXTENSION timescaledb;\nDO "),
            "{sent}"
        );
    }
}
