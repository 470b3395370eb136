//! What single extensions need around a restore. An extension that is not here needs only to be installed.

use WithoutLibrary::{Creates, Disconnects, Refuses};

/// A library that the server loads when it starts (`shared_preload_libraries`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preload {
    /// Name of the library, as in `shared_preload_libraries`.
    pub library: &'static str,
    /// What the names of its settings begin with. A server that has such settings has loaded it, however.
    pub settings: &'static str,
    /// What happens without it.
    pub without: WithoutLibrary,
}

/// What a server does about an extension whose library it has not loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutLibrary {
    /// Only what uses the extension fails.
    Creates,
    /// `CREATE EXTENSION` fails.
    Refuses,
    /// `CREATE EXTENSION` ends the connection.
    Disconnects,
}

impl Preload {
    /// Whether `CREATE EXTENSION` fails without the library.
    pub fn is_required(&self) -> bool {
        match self.without {
            WithoutLibrary::Creates => false,
            WithoutLibrary::Refuses | WithoutLibrary::Disconnects => true,
        }
    }
}

/// What one extension needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionHooks {
    /// Name of the extension.
    pub extension: &'static str,
    /// The library that the server has to load for it.
    pub preload: Option<Preload>,
    /// Settings of a throwaway server that has loaded it, as NAME=VALUE. `{database}` stands for the database that is
    /// restored. Nothing that the extension runs by itself may run there.
    pub sandbox_settings: &'static [&'static str],
    /// Functions of the extension that are called right after `CREATE EXTENSION`. They may change settings of the database,
    /// so other sessions are opened again.
    pub after_create: &'static [&'static str],
    /// The setting of a database by which the extension knows that it is being restored, until `after_load`.
    pub restoring: Option<&'static str>,
    /// Functions that are called once everything is loaded.
    pub after_load: &'static [&'static str],
    /// A function that a superuser calls in the same transaction: it stops what the extension runs by itself.
    pub stop: Option<&'static str>,
    /// A function that a superuser calls once the database is in use: it starts that again.
    pub start: Option<&'static str>,
}

const fn preloaded(
    extension: &'static str,
    settings: &'static str,
    without: WithoutLibrary,
) -> ExtensionHooks {
    ExtensionHooks {
        extension,
        preload: Some(Preload {
            library: extension,
            settings,
            without,
        }),
        sandbox_settings: &[],
        after_create: &[],
        restoring: None,
        after_load: &[],
        stop: None,
        start: None,
    }
}

/// Stands for the database that is restored.
const DATABASE: &str = "{database}";

/// The extensions that need more than being installed. Libraries are loaded in this order: Citus and TimescaleDB want to be
/// first.
pub const HOOKS: &[ExtensionHooks] = &[
    preloaded("citus", "citus", Refuses),
    // While a database is restored, TimescaleDB has to treat hypertables as ordinary tables. Its jobs, which may drop chunks,
    // start with the last call, and must not run before the database is in use. A swap ends the process that runs them, and
    // it does not come back by itself.
    ExtensionHooks {
        sandbox_settings: &[
            "timescaledb.max_background_workers=0",
            "timescaledb.telemetry_level=off",
        ],
        after_create: &["timescaledb_pre_restore"],
        restoring: Some("timescaledb.restoring"),
        after_load: &["timescaledb_post_restore"],
        stop: Some("stop_background_workers"),
        start: Some("start_background_workers"),
        ..preloaded("timescaledb", "timescaledb", Disconnects)
    },
    // It exists in one database of the server.
    ExtensionHooks {
        sandbox_settings: &[
            "cron.database_name={database}",
            "cron.launch_active_jobs=off",
            "cron.log_run=off",
        ],
        ..preloaded("pg_cron", "cron", Refuses)
    },
    preloaded("pgaudit", "pgaudit", Refuses),
    preloaded("pglogical", "pglogical", Refuses),
    // Its view fails without the library, also in a materialized view.
    preloaded("pg_stat_statements", "pg_stat_statements", Creates),
];

/// What this extension needs, if it is known to need anything.
pub fn hooks_of(extension: &str) -> Option<&'static ExtensionHooks> {
    HOOKS.iter().find(|h| h.extension == extension)
}

/// Whether a setting of a database says that it is being restored. Where a restore has left it, it is none of the
/// database's own.
pub fn says_restoring(setting: &str) -> bool {
    HOOKS.iter().any(|h| h.restoring == Some(setting))
}

impl ExtensionHooks {
    /// The library without which the extension cannot be created.
    pub fn required_library(&self) -> Option<Preload> {
        self.preload.filter(Preload::is_required)
    }

    /// Whether the extension exists in one database of a server, which a setting names.
    pub fn is_bound_to_database(&self) -> bool {
        self.sandbox_settings.iter().any(|s| s.contains(DATABASE))
    }

    /// The settings of a throwaway server, for this database.
    pub fn settings_for(&self, database: &str) -> Vec<String> {
        let settings = self.sandbox_settings.iter();
        settings.map(|s| s.replace(DATABASE, database)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extension_is_listed_once() {
        for (i, hooks) in HOOKS.iter().enumerate() {
            let first = HOOKS.iter().position(|h| h.extension == hooks.extension);
            assert_eq!(first, Some(i), "{}", hooks.extension);
        }
        assert_eq!(hooks_of("hstore"), None);
        assert!(says_restoring("timescaledb.restoring") && !says_restoring("work_mem"));
    }

    #[test]
    fn settings_name_the_restored_database() {
        let settings = hooks_of("pg_cron").unwrap().settings_for("shop");
        assert_eq!(
            settings,
            [
                "cron.database_name=shop",
                "cron.launch_active_jobs=off",
                "cron.log_run=off"
            ]
        );
    }
}
