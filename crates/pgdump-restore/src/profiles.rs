//! Managed services: which one a dump comes from, or a server belongs to, and what is theirs. Pure.

mod alloydb;
mod aurora;
mod azure;
mod cloudsql;
mod heroku;
mod neon;
mod rds;
mod service;
mod supabase;

use std::cmp::Reverse;
use std::collections::BTreeSet;

pub(crate) use self::service::Service;
use self::service::is_in;
use crate::policy::Profile;
use crate::roles::mentions;
use pgdump_archive::{Dialect, EntryKind, TocEntry, statements};

/// All services. Of two with equally strong evidence, the first one counts.
static SERVICES: [&Service; 8] = [
    &cloudsql::SERVICE,
    &alloydb::SERVICE,
    &heroku::SERVICE,
    &rds::SERVICE,
    &aurora::SERVICE,
    &azure::SERVICE,
    &supabase::SERVICE,
    &neon::SERVICE,
];

/// The service of a profile; `None` for `auto` and `none`.
pub(crate) fn service_of(profile: Profile) -> Option<&'static Service> {
    SERVICES.iter().copied().find(|s| s.profile == profile)
}

/// The service that a dump comes from, as far as it shows.
pub(crate) struct Recognized {
    pub service: &'static Service,
    /// How it was recognized, as a note.
    pub note: String,
}

/// What in a dump shows where it comes from.
type Evidence = BTreeSet<String>;

/// The service whose roles, extensions and schemas these entries name.
pub(crate) fn recognize(entries: &[TocEntry]) -> Option<Recognized> {
    let names = DumpNames::of(entries);
    let all = SERVICES.iter().map(|s| (*s, names.evidence_of(s)));
    let mut found: Vec<(&'static Service, Evidence)> =
        all.filter(|(_, evidence)| !evidence.is_empty()).collect();
    found.sort_by_key(|(_, evidence)| Reverse(evidence.len()));
    let &(service, ref evidence) = found.first()?;
    let others = found[1..].iter().filter_map(|(other, of_other)| {
        let further: Evidence = of_other.difference(evidence).cloned().collect();
        let title = other.title;
        (!further.is_empty()).then(|| format!("{title} by {}", listed(&further)))
    });
    let others: Vec<String> = others.collect();
    let weaker = if others.is_empty() {
        String::new()
    } else {
        format!("; weaker: {}", others.join(", "))
    };
    let note = format!(
        "the backup comes from {}, recognized by {}{weaker}: what belongs to its platform alone is left out, as the \
         rewrites say (--profile none restores it)",
        service.title,
        listed(evidence)
    );
    Some(Recognized { service, note })
}

/// The service that a server with these roles belongs to.
pub(crate) fn service_of_server(roles: &BTreeSet<String>) -> Option<&'static Service> {
    let has_one = |s: &&&Service| roles.iter().any(|role| is_in(s.roles, role));
    SERVICES.iter().find(has_one).copied()
}

/// Whether a server with these roles belongs to this service.
pub(crate) fn is_service(service: &Service, roles: &BTreeSet<String>) -> bool {
    roles.iter().any(|role| is_in(service.roles, role))
}

/// What of a service a dump may define.
impl Service {
    /// Whether an extension belongs to the platform.
    pub(crate) fn has_extension(&self, name: &str) -> bool {
        is_in(self.extensions, name) || is_in(self.common_extensions, name)
    }

    /// All of the platform's extensions.
    pub(crate) fn all_extensions(&self) -> impl Iterator<Item = &'static str> + use<> {
        let all = self.extensions.iter().chain(self.common_extensions);
        all.copied()
    }

    /// Whether a schema has the name of one of the platform.
    pub(crate) fn has_schema(&self, name: &str) -> bool {
        is_in(self.schemas, name)
    }

    /// Whether what this role owns is not the platform's. The owner may be unknown, and then it shows nothing.
    pub(crate) fn is_owned_by_user(&self, owner: &str) -> bool {
        !owner.is_empty() && !self.has_role(owner)
    }

    /// The same for a table. On a managed service `postgres` is the user's own role, too, and no table of the platform's
    /// machinery is worth one of the user.
    pub(crate) fn is_table_of_user(&self, owner: &str) -> bool {
        owner == "postgres" || self.is_owned_by_user(owner)
    }

    /// What shows that a schema with the name of one of the platform is the user's, or holds a table of the user.
    pub(crate) fn sign_of_user<'a>(
        &self,
        entries: &'a [TocEntry],
        schema: &str,
    ) -> Option<&'a TocEntry> {
        entries.iter().find(|e| match e.kind {
            EntryKind::Schema => e.tag == schema && self.is_owned_by_user(&e.owner),
            EntryKind::Table => {
                e.namespace.as_deref() == Some(schema) && self.is_table_of_user(&e.owner)
            }
            _ => false,
        })
    }

    /// Whether an event trigger belongs to the platform.
    pub(crate) fn has_event_trigger(&self, name: &str) -> bool {
        is_in(self.event_triggers, name)
    }

    /// Whether a publication belongs to the platform.
    pub(crate) fn has_publication(&self, name: &str) -> bool {
        is_in(self.publications, name)
    }
}

/// At most a few of the signs.
fn listed(evidence: &Evidence) -> String {
    const LISTED: usize = 4;
    let first: Vec<&str> = evidence.iter().take(LISTED).map(String::as_str).collect();
    match evidence.len().saturating_sub(LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Names in a dump by which services are recognized.
#[derive(Default)]
struct DumpNames {
    roles: BTreeSet<String>,
    extensions: BTreeSet<String>,
    schemas: BTreeSet<String>,
}

impl DumpNames {
    fn of(entries: &[TocEntry]) -> Self {
        let mut names = DumpNames::default();
        for e in entries {
            if !e.owner.is_empty() {
                names.roles.insert(e.owner.clone());
            }
            match e.kind {
                EntryKind::Extension => drop(names.extensions.insert(e.tag.clone())),
                EntryKind::Schema => drop(names.schemas.insert(e.tag.clone())),
                EntryKind::Acl | EntryKind::DefaultAcl | EntryKind::Policy => {
                    let all = statements(&e.defn, Dialect::default()).into_iter();
                    names.roles.extend(all.flat_map(mentions).map(|m| m.role));
                }
                _ => {}
            }
        }
        names
    }

    fn evidence_of(&self, service: &Service) -> Evidence {
        let of = |kind: &str, names: &BTreeSet<String>, signs| -> Vec<String> {
            let found = names.iter().filter(|name| is_in(signs, name));
            found.map(|name| format!("{kind} {name}")).collect()
        };
        let roles = of("role", &self.roles, service.roles);
        let extensions = of("extension", &self.extensions, service.extensions);
        let schemas = of("schema", &self.schemas, service.kept_schemas);
        roles.into_iter().chain(extensions).chain(schemas).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(kind: &str, tag: &str, owner: &str) -> TocEntry {
        let mut e = TocEntry::bare(1, kind, tag);
        e.owner = owner.to_owned();
        e
    }

    fn granted(to: &str) -> TocEntry {
        let mut e = TocEntry::bare(1, "ACL", "TABLE t");
        e.defn = format!("GRANT SELECT ON TABLE public.t TO {to};\n");
        e
    }

    fn recognized(entries: &[TocEntry]) -> Option<(Profile, String)> {
        recognize(entries).map(|r| (r.service.profile, r.note))
    }

    #[test]
    fn each_service_is_recognized_by_what_only_it_has() {
        use Profile as P;
        for (entries, wanted) in [
            (vec![granted("cloudsqlsuperuser")], Some(P::Cloudsql)),
            (
                vec![owned("EXTENSION", "google_vacuum_mgmt", "")],
                Some(P::Cloudsql),
            ),
            (
                vec![owned("SCHEMA", "public", "alloydbsuperuser")],
                Some(P::Alloydb),
            ),
            (vec![owned("SCHEMA", "public", "rdsadmin")], Some(P::Rds)),
            (
                vec![
                    owned("SCHEMA", "public", "rdsadmin"),
                    owned("EXTENSION", "apg_plan_mgmt", ""),
                ],
                Some(P::Aurora),
            ),
            (
                vec![owned("ACL", "FUNCTION f()", "azuresu")],
                Some(P::Azure),
            ),
            (
                vec![owned("SCHEMA", "heroku_ext", "uc001spkeri80k")],
                Some(P::Heroku),
            ),
            (
                vec![
                    owned("SCHEMA", "_heroku", "heroku_admin"),
                    owned("ACL", "FUNCTION f()", "rdsadmin"),
                ],
                Some(P::Heroku),
            ),
            (
                vec![owned("TABLE", "users", "supabase_auth_admin")],
                Some(P::Supabase),
            ),
            (vec![granted("neon_superuser")], Some(P::Neon)),
            // What others have, too, shows nothing.
            (
                vec![
                    owned("TABLE", "t", "postgres"),
                    owned("SCHEMA", "auth", "app"),
                    owned("SCHEMA", "vault", "app"),
                    owned("EXTENSION", "pg_net", ""),
                    granted("anon, authenticated, service_role"),
                ],
                None,
            ),
        ] {
            let found = recognized(&entries);
            assert_eq!(found.as_ref().map(|(p, _)| *p), wanted, "{found:?}");
        }
    }

    #[test]
    fn of_two_services_the_stronger_evidence_counts_and_the_note_names_both() {
        let (profile, note) = recognized(&[
            owned("SCHEMA", "public", "neon_superuser"),
            owned("EXTENSION", "neon", ""),
            granted("azure_pg_admin"),
        ])
        .unwrap();
        assert_eq!(profile, Profile::Neon);
        assert!(
            note.contains("Neon, recognized by extension neon, role neon_superuser; weaker: Azure"),
            "{note}"
        );
        // What another service shares is no evidence for it.
        let (_, note) = recognized(&[owned("SCHEMA", "public", "rdsadmin")]).unwrap();
        assert!(!note.contains("weaker"), "{note}");
    }

    #[test]
    fn a_server_is_known_by_its_roles() {
        let of = |names: &[&str]| {
            let roles = names.iter().map(|n| (*n).to_owned()).collect();
            service_of_server(&roles).map(|s| s.title)
        };
        assert_eq!(of(&["postgres", "cloudsqladmin"]), Some("Cloud SQL"));
        assert_eq!(of(&["rdsadmin", "rds_superuser"]), Some("Amazon RDS"));
        assert_eq!(of(&["postgres", "anon"]), None);
    }

    #[test]
    fn every_profile_has_a_service_and_only_extensions_without_patterns() {
        for service in SERVICES {
            assert_eq!(service_of(service.profile).unwrap().title, service.title);
            assert!(service.all_extensions().all(|e| !e.contains(['*', '?'])));
        }
        assert!(service_of(Profile::Auto).is_none() && service_of(Profile::None).is_none());
    }
}
