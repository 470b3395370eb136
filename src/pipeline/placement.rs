//! Under which name a database is loaded: under that of a staging database, which the swap exchanges
//! with the target, or under the target's own name from the beginning.

use crate::policy::InPlace;
use crate::postgres::ServerFacts;
use pgdump_archive::TocEntry;
use pgdump_restore::that_name_their_database;

/// Names that a note lists.
const LISTED: usize = 10;

/// Where a restore loads.
pub(super) struct Placement {
    pub(super) in_place: bool,
    /// Name of the database while it is loaded.
    pub(super) database: String,
}

impl Placement {
    /// In the staging database.
    pub(super) fn in_staging(staging: String) -> Self {
        Placement {
            in_place: false,
            database: staging,
        }
    }

    /// In the target, which exists and is filled.
    pub(super) fn in_target(target: &str) -> Self {
        Placement {
            in_place: true,
            database: target.to_owned(),
        }
    }

    /// Chooses for a dump with these entries. `target`: its name, and whether it exists. Returns notes
    /// for the result too.
    pub(super) fn choose(
        entries: &[TocEntry],
        asked: InPlace,
        (target, exists): (&str, bool),
        staging: String,
    ) -> (Self, Vec<String>) {
        let dependent = that_name_their_database(entries);
        let in_place = match asked {
            _ if exists => false,
            InPlace::Auto => !dependent.is_empty(),
            InPlace::Always => true,
            InPlace::Never => false,
        };
        let database = if in_place { target.to_owned() } else { staging };
        let shown = shown(&dependent);
        let note = match (in_place, dependent.is_empty(), exists) {
            (true, true, _) => Some(
                "restored in place: the database had its own name from the beginning".to_owned(),
            ),
            (true, false, _) => Some(format!(
                "restored in place: the database had its own name from the beginning, on which the backup depends ({shown})"
            )),
            (false, true, true) if asked == InPlace::Always => {
                Some(format!("not restored in place: {target} exists"))
            }
            (false, true, _) => None,
            (false, false, exists) => {
                let why = if exists {
                    format!("{target} exists")
                } else {
                    "restoring in place is off".into()
                };
                Some(format!(
                    "the backup depends on its database's name ({shown}); what was computed from it during the restore \
                     saw {database}, not {target}, because {why}: to avoid that, restore in place into a database that does not exist"
                ))
            }
        };
        let placement = Placement { in_place, database };
        (placement, note.into_iter().collect())
    }
}

fn shown(names: &[String]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let listed = names[..names.len() - more].join(", ");
    if more > 0 {
        format!("{listed} and {more} more")
    } else {
        listed
    }
}

/// The server's facts for a database of this name, without extensions that are bound to another database.
pub(super) fn facts_for_database(facts: ServerFacts, database: &str, target: &str) -> ServerFacts {
    let elsewhere = |bound: &String| bound.is_empty() || bound != database;
    let Some(bound) = facts.cron_database.clone().filter(elsewhere) else {
        return facts;
    };
    let why = match bound.as_str() {
        "" => "the server does not load it: add pg_cron to shared_preload_libraries, and restart the server"
            .to_owned(),
        bound if bound == target => format!(
            "the server has it in the database {bound} alone (cron.database_name), which exists and can only be \
             replaced under another name: rename or drop {bound}, and restore it as a new database"
        ),
        bound => format!(
            "the server has it in the database {bound} alone (cron.database_name): restore into a new database of that \
             name, or set cron.database_name"
        ),
    };
    let mut facts = facts;
    facts.extensions.remove("pg_cron");
    facts.unusable_extensions.insert("pg_cron".into(), why);
    facts
}

/// The extension that the server has in the target's database alone, so that nothing can be said about it elsewhere.
pub(super) fn bound_to_target(facts: &ServerFacts, target: &str) -> Option<&'static str> {
    let bound = facts.cron_database.as_deref();
    bound
        .is_some_and(|database| !database.is_empty() && database == target)
        .then_some("pg_cron")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_bound_to_one_database() {
        let facts = |cron_database: Option<&str>| ServerFacts {
            cron_database: cron_database.map(str::to_owned),
            ..ServerFacts::default()
        };
        assert_eq!(bound_to_target(&facts(Some("app")), "app"), Some("pg_cron"));
        for (database, target) in [(Some("app"), "other"), (Some(""), ""), (None, "app")] {
            assert_eq!(bound_to_target(&facts(database), target), None);
        }
    }
}
