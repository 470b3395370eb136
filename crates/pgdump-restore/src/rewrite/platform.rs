//! Rules of the managed service that a dump comes from. What belongs to its platform alone is left out, or belongs to the
//! restoring role. They are applied before preflight, which therefore asks for nothing of the platform.

use std::collections::{BTreeSet, HashSet};

use super::edits::{has_pair, name};
use super::rules::*;
use super::{Rewriter, data_of_missing_tables, lines};
use crate::choice::StatementChoice;
use crate::dependents::Dependents;
use crate::policy::{Owners, Profile};
use crate::profiles::{Recognized, Service, is_service, recognize, service_of};
use crate::roles::{Shortened, mentions, roles_of_defaults, without_listed};
use pgdump_archive::{Dialect, DumpId, EntryKind, TocEntry, Token, first_tokens, statements};

/// Tokens examined of a statement.
const LOOKED_AT: usize = 1 << 17;

/// A statement under the rules of a managed service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Unchanged,
    /// By a rule, to this statement.
    Changed(&'static str, String),
    /// By a rule.
    LeftOut(&'static str),
}

impl Rewriter {
    /// Chooses the profile and applies it to the entries: to a table of contents as it is restored, or to the entries that
    /// show what SQL text needs, whose statements follow one by one. Returns notes.
    pub fn use_profile(&self, entries: &mut Vec<TocEntry>, is_script: bool) -> Vec<String> {
        let (service, mut notes) = match self.policy.profile {
            Profile::Auto => match recognize(entries) {
                Some(Recognized { service, note }) => (service, vec![note]),
                None => return vec![],
            },
            chosen => match service_of(chosen) {
                Some(service) => (service, vec![]),
                None => return vec![],
            },
        };
        self.state().service = Some(service);
        if !is_script {
            notes.extend(self.apply_profile(service, entries));
            return notes;
        }
        let mut users = if self.policy.leave_out_platform_rows {
            users_schemas(service, entries)
        } else {
            vec![]
        };
        users.retain(|(schema, _)| self.may_leave_out_schema(service, schema));
        let schemas: Vec<&str> = users.iter().map(|(schema, _)| *schema).collect();
        self.state().platform = Some(self.platform_choice(service, &schemas));
        notes.extend(users.into_iter().map(|(_, note)| note));
        // The statements will report themselves.
        let used = std::mem::take(&mut self.state().used);
        self.apply_profile(service, entries);
        self.state().used = used;
        notes
    }

    fn apply_profile(&self, service: &Service, entries: &mut Vec<TocEntry>) -> Vec<String> {
        let notes = self.leave_out_platform(service, entries);
        let mut emptied = HashSet::new();
        let known: HashSet<DumpId> = entries.iter().map(|e| e.dump_id).collect();
        for e in entries.iter_mut() {
            self.release_owner(e);
            if self.is_foreign_privilege(e, &known) {
                self.used(PLATFORM_PRIVILEGE, e.name());
                emptied.insert(e.dump_id);
            } else if !self.keeps_statements(e) {
                emptied.insert(e.dump_id);
            }
        }
        // Such as the comment on a policy.
        Dependents::of(entries.iter()).add_to(&mut emptied);
        entries.retain(|e| e.dump_id == DumpId::NONE || !emptied.contains(&e.dump_id));
        notes
    }

    fn service(&self) -> Option<&'static Service> {
        self.state().service
    }

    /// Whether the server belongs to the same service as the dump, and so has its platform.
    fn is_at_home(&self, service: &Service) -> bool {
        is_service(service, &self.facts.roles)
    }

    /// Whether the policy says what is done about a role: it is replaced by another one, or created.
    fn is_provided(&self, role: &str) -> bool {
        let is_created = || self.makes_role(role) && self.facts.may_create_roles;
        self.role(role) != role || (!self.has_role(role) && is_created())
    }

    /// Whether objects of this role of the platform go to the restoring role.
    fn releases(&self, owner: &str) -> bool {
        let is_of_platform = self.service().is_some_and(|s| s.has_role(owner));
        is_of_platform && !self.is_provided(owner) && !self.may_act_for(owner)
    }

    fn may_act_for(&self, role: &str) -> bool {
        let facts = &self.facts;
        let may = facts.may_become.contains(role) || facts.may_grant_itself.contains(role);
        may || (self.has_role(role) && !facts.roles.contains(role))
    }

    /// Whether a role of the platform is missing for good.
    fn lacks(&self, role: &str) -> bool {
        let is_of_platform = self.service().is_some_and(|s| s.has_role(role));
        is_of_platform && !self.has_role(role) && !self.is_provided(role)
    }
}

/// Objects of the platform.
impl Rewriter {
    fn is_of_platform(&self, service: &Service, e: &TocEntry) -> bool {
        let is_at_home = self.is_at_home(service);
        match e.kind {
            EntryKind::Extension => {
                service.has_extension(&e.tag) && !self.facts.extensions.contains(&e.tag)
            }
            EntryKind::Schema => {
                let is_named_so = service.has_schema(&e.tag);
                !is_at_home && is_named_so && !service.is_owned_by_user(&e.owner)
            }
            EntryKind::EventTrigger => {
                let has_own = is_at_home && self.facts.is_superuser;
                !has_own && service.has_event_trigger(&e.tag)
            }
            EntryKind::Publication => !is_at_home && service.has_publication(&e.tag),
            _ => false,
        }
    }

    /// Removes the platform's objects with what depends on them; returns notes on those that are kept because tables of
    /// the user depend on them.
    fn leave_out_platform(&self, service: &Service, entries: &mut Vec<TocEntry>) -> Vec<String> {
        let all: &[TocEntry] = entries;
        let dependents = Dependents::of(all);
        let (mut gone, mut notes) = (HashSet::new(), Vec::new());
        let of_platform = all.iter().filter(|e| self.is_of_platform(service, e));
        for root in of_platform {
            let mut found = HashSet::from([root.dump_id]);
            if root.kind == EntryKind::Schema {
                found.extend(in_schema(all, &root.tag));
            }
            dependents.add_to(&mut found);
            let kept = all
                .iter()
                .find(|e| found.contains(&e.dump_id) && self.must_be_kept(service, e));
            match kept {
                Some(kept) => notes.push(format!(
                    "{} belongs to the platform of {}, and is restored, because {} depends on it",
                    root.name(),
                    service.title,
                    kept.name()
                )),
                None => gone.extend(found),
            }
        }
        // SQL text has no ids: its entries are removed by what they are.
        gone.remove(&DumpId::NONE);
        let is_gone = |e: &&TocEntry| gone.contains(&e.dump_id);
        let extensions = all.iter().filter(is_gone);
        let extensions = extensions.filter(|e| e.kind == EntryKind::Extension);
        let extensions: Vec<String> = extensions.map(TocEntry::name).collect();
        if !extensions.is_empty() && self.policy.leave_out_platform_rows {
            let rows = data_of_missing_tables(all, &gone);
            gone.extend(rows);
        }
        for extension in extensions {
            self.used(PLATFORM_OBJECT, extension);
        }
        self.skip(entries, &gone, PLATFORM_OBJECT);
        entries.retain(|e| e.dump_id != DumpId::NONE || !self.is_of_platform(service, e));
        notes
    }

    /// Whether this is a table, or its rows, that no profile may leave out.
    fn must_be_kept(&self, service: &Service, e: &TocEntry) -> bool {
        let is_in_platform = e
            .namespace
            .as_deref()
            .is_some_and(|s| service.has_schema(s));
        match e.kind {
            EntryKind::Table => !is_in_platform || service.is_table_of_user(&e.owner),
            EntryKind::TableData => !(is_in_platform && self.policy.leave_out_platform_rows),
            _ => false,
        }
    }

    /// Whether schemas of SQL text are left out. Their rows go with them.
    fn leaves_out_schemas(&self, service: &Service) -> bool {
        !self.is_at_home(service) && self.policy.leave_out_platform_rows
    }

    /// The platform's extensions that the server does not offer.
    fn lacking_extensions(&self, service: &Service) -> impl Iterator<Item = &'static str> {
        let all = service.all_extensions();
        all.filter(move |e| !self.facts.extensions.contains(*e))
    }

    fn lacks_extension_of(&self, service: &Service, schema: &str) -> bool {
        let mut lacking = self.lacking_extensions(service);
        lacking.any(|extension| is_schema_of(extension, schema))
    }

    /// Whether a schema with this name, or the rows in it, would be left out of SQL text.
    fn may_leave_out_schema(&self, service: &Service, schema: &str) -> bool {
        self.leaves_out_schemas(service) || self.lacks_extension_of(service, schema)
    }

    /// Which statements of SQL text are about objects of the platform. `users`: schemas that have the names of the
    /// platform's, and are the user's.
    fn platform_choice(&self, service: &Service, users: &[&str]) -> StatementChoice {
        let (facts, is_at_home) = (&self.facts, self.is_at_home(service));
        let lacking = self.lacking_extensions(service);
        let mut skip: Vec<String> = lacking.map(|e| format!("EXTENSION {e}")).collect();
        if self.policy.leave_out_platform_rows {
            let own = service.schemas.iter();
            let own = own.filter(|schema| self.lacks_extension_of(service, schema));
            let own = own.filter(|schema| !users.contains(*schema));
            skip.extend(own.map(|schema| format!("TABLE DATA {schema}.*")));
        }
        let mut add = |kind: &str, names: &[&str]| {
            skip.extend(names.iter().map(|name| format!("{kind} {name}")));
        };
        if !is_at_home {
            add("PUBLICATION", service.publications);
        }
        if self.leaves_out_schemas(service) {
            let schemas = service.schemas.iter().copied();
            let schemas: Vec<&str> = schemas.filter(|s| !users.contains(s)).collect();
            add("SCHEMA", &schemas);
        }
        if !is_at_home || !facts.is_superuser {
            add("EVENT TRIGGER", service.event_triggers);
        }
        StatementChoice::keeping_tables(&skip)
    }
}

/// The schemas that have the names of the platform's, and are the user's or hold a table of the user, each with a note.
fn users_schemas(service: &Service, entries: &[TocEntry]) -> Vec<(&'static str, String)> {
    let with_note = |schema: &&'static str| {
        let sign = service.sign_of_user(entries, schema)?;
        let note = format!(
            "schema {schema} has the name of one that belongs to the platform of {}, and is restored, because {} belongs to {}",
            service.title,
            sign.name(),
            sign.owner
        );
        Some((*schema, note))
    };
    service.schemas.iter().filter_map(with_note).collect()
}

/// Whether tables of an extension of a service are in this schema: `vault` is that of `supabase_vault`.
fn is_schema_of(extension: &str, schema: &str) -> bool {
    let before = extension.strip_suffix(schema);
    before.is_some_and(|before| before.is_empty() || before.ends_with('_'))
}

fn in_schema<'a>(entries: &'a [TocEntry], schema: &'a str) -> impl Iterator<Item = DumpId> + 'a {
    let all = entries.iter();
    all.filter(move |e| e.namespace.as_deref() == Some(schema))
        .map(|e| e.dump_id)
}

/// Roles of the platform.
impl Rewriter {
    fn release_owner(&self, e: &mut TocEntry) {
        let is_owned = !e.drop_stmt.is_empty() || e.defn.contains("OWNER TO");
        let is_released = is_owned && self.policy.owners != Owners::None && self.releases(&e.owner);
        if is_released {
            self.used(PLATFORM_OWNER, e.owner.as_str());
            e.owner.clear();
        }
    }

    /// Whether an entry has privileges on something that the dump does not create, of the system or of an extension, and
    /// that only its owner may grant.
    fn is_foreign_privilege(&self, e: &TocEntry, known: &HashSet<DumpId>) -> bool {
        let is_of_object = e.kind == EntryKind::Acl
            && !["SCHEMA ", "LARGE OBJECT", "DATABASE "]
                .iter()
                .any(|kind| e.tag.starts_with(kind));
        let is_created = || e.dependencies.iter().any(|id| known.contains(id));
        is_of_object
            && !self.facts.is_superuser
            && self.policy.privileges
            && !e.dependencies.is_empty()
            && !is_created()
    }

    /// Rewrites the statements that name roles; whether any is left.
    fn keeps_statements(&self, e: &mut TocEntry) -> bool {
        let names_roles = matches!(
            e.kind,
            EntryKind::Acl | EntryKind::DefaultAcl | EntryKind::Policy | EntryKind::UserMapping
        );
        if !names_roles || e.defn.is_empty() {
            return true;
        }
        let (mut kept, mut is_changed) = (Vec::new(), false);
        for sql in statements(&e.defn, Dialect::default()) {
            match self.without_platform(sql) {
                Platform::Unchanged => kept.push(sql.to_owned()),
                Platform::Changed(rule, sql) => {
                    self.used(rule, e.name());
                    is_changed = true;
                    kept.push(sql);
                }
                Platform::LeftOut(rule) => {
                    self.used(rule, e.name());
                    is_changed = true;
                }
            }
        }
        if is_changed {
            e.defn = lines(kept);
        }
        !e.defn.is_empty()
    }

    /// A statement without roles of the platform that the server lacks.
    pub(super) fn without_platform(&self, sql: &str) -> Platform {
        if self.service().is_none() {
            return Platform::Unchanged;
        }
        let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
        match (name(&t, 0).as_str(), name(&t, 1).as_str()) {
            ("grant" | "revoke", _) if self.policy.privileges => self.privileges(&t, sql),
            ("alter", "default") if self.policy.privileges => self.default_privileges(sql),
            ("alter", _) if has_pair(&t, "owner", "to") => self.new_owner(sql),
            ("create", "policy") => self.shortened(sql, PLATFORM_POLICY),
            ("create", "user") => self.user_mapping(sql),
            ("set", "session") => self.session_role(sql),
            _ => Platform::Unchanged,
        }
    }

    /// After a statement of SQL text was left out: what belongs to what it would have created goes, too.
    pub(super) fn leave_out_created(&self, sql: &str) {
        if let Some(choice) = self.state().platform.as_mut() {
            choice.leave_out_created(sql);
        }
    }

    fn shortened(&self, sql: &str, rule: &'static str) -> Platform {
        match without_listed(sql, |role| self.lacks(role)) {
            Shortened::Unchanged => Platform::Unchanged,
            Shortened::To(sql) => Platform::Changed(rule, sql),
            Shortened::Nothing => Platform::LeftOut(rule),
        }
    }

    fn privileges(&self, t: &[Token<'_>], sql: &str) -> Platform {
        if !self.facts.is_superuser && is_on_system(t) {
            return Platform::LeftOut(PLATFORM_PRIVILEGE);
        }
        self.shortened(sql, PLATFORM_PRIVILEGE)
    }

    fn default_privileges(&self, sql: &str) -> Platform {
        let owners: BTreeSet<String> = roles_of_defaults(sql).into_iter().collect();
        let is_elsewhere = |role: &String| {
            let is_missing = !self.has_role(role) && !self.is_provided(role);
            is_missing || self.releases(role)
        };
        if owners.iter().any(is_elsewhere) {
            return Platform::LeftOut(PLATFORM_DEFAULTS);
        }
        self.shortened(sql, PLATFORM_DEFAULTS)
    }

    fn new_owner(&self, sql: &str) -> Platform {
        let is_released = |role: &str| self.policy.owners != Owners::None && self.releases(role);
        if mentions(sql).iter().any(|m| is_released(&m.role)) {
            return Platform::LeftOut(PLATFORM_OWNER);
        }
        Platform::Unchanged
    }

    fn user_mapping(&self, sql: &str) -> Platform {
        if mentions(sql).iter().any(|m| self.lacks(&m.role)) {
            return Platform::LeftOut(PLATFORM_PRIVILEGE);
        }
        Platform::Unchanged
    }

    /// What follows `SET SESSION AUTHORIZATION` is done by the restoring role.
    fn session_role(&self, sql: &str) -> Platform {
        if mentions(sql).iter().any(|m| self.releases(&m.role)) {
            let sql = "SET SESSION AUTHORIZATION DEFAULT;".to_owned();
            return Platform::Changed(PLATFORM_OWNER, sql);
        }
        Platform::Unchanged
    }
}

/// `GRANT … ON FUNCTION pg_catalog.f() TO …`
fn is_on_system(t: &[Token<'_>]) -> bool {
    let Some(on) = t.iter().position(|w| w.is("on")) else {
        return false;
    };
    let object = &t[on..];
    let dot = object.iter().position(|w| w.is_symbol(b'.'));
    dot.is_some_and(|dot| name(object, dot - 1) == "pg_catalog")
}

#[cfg(test)]
mod tests {
    use super::super::RewrittenStatement;
    use super::super::tests::rewriter;
    use super::*;

    /// A role that is no superuser, on a server without anything of a platform.
    fn ordinary(profile: Profile) -> Rewriter {
        let mut f = rewriter(160000, |p| p.profile = profile);
        f.facts.is_superuser = false;
        f.facts.may_create_roles = false;
        f
    }

    fn entry(id: i32, kind: &str, schema: Option<&str>, tag: &str, needs: &[i32]) -> TocEntry {
        let mut e = TocEntry::bare(id, kind, tag);
        e.namespace = schema.map(str::to_owned);
        e.dependencies = needs.iter().copied().map(DumpId).collect();
        e.drop_stmt = format!("DROP {kind} {tag};\n");
        e
    }

    fn ids(entries: &[TocEntry]) -> Vec<i32> {
        entries.iter().map(|e| e.dump_id.0).collect()
    }

    fn rules(f: &Rewriter) -> Vec<String> {
        f.report().into_iter().map(|r| r.rule).collect()
    }

    #[test]
    fn objects_of_the_platform_go_with_what_depends_on_them_but_no_table_of_the_user() {
        let entries = || {
            vec![
                entry(1, "SCHEMA", None, "vault", &[]),
                entry(2, "EXTENSION", None, "supabase_vault", &[1]),
                entry(3, "TABLE DATA", Some("vault"), "secrets", &[90]),
                entry(4, "EXTENSION", None, "pg_net", &[]),
                entry(5, "FUNCTION", Some("public"), "call()", &[4]),
                entry(6, "TABLE", Some("public"), "t", &[]),
                entry(7, "TRIGGER", Some("public"), "t tr", &[5, 6]),
                entry(8, "TABLE DATA", Some("public"), "t", &[6]),
                entry(9, "EVENT TRIGGER", None, "pgrst_ddl_watch", &[]),
                entry(10, "EVENT TRIGGER", None, "mine", &[]),
                entry(11, "PUBLICATION", None, "supabase_realtime", &[]),
                entry(
                    12,
                    "PUBLICATION TABLE",
                    Some("public"),
                    "supabase_realtime t",
                    &[6, 11],
                ),
                entry(13, "SCHEMA", None, "auth", &[]),
                entry(14, "TABLE", Some("auth"), "users", &[13]),
                entry(15, "TABLE DATA", Some("auth"), "users", &[14]),
            ]
        };
        let mut left = entries();
        let f = ordinary(Profile::Supabase);
        assert_eq!(f.use_profile(&mut left, false), Vec::<String>::new());
        assert_eq!(ids(&left), [6, 8, 10, 13, 14, 15]);
        let used = &f.report()[0];
        assert_eq!((used.rule.as_str(), used.count), (PLATFORM_OBJECT, 9));
        assert!(
            used.examples
                .contains(&"TABLE DATA vault.secrets".to_owned()),
            "{used:?}"
        );

        // A verification leaves out no rows.
        let mut f = ordinary(Profile::Supabase);
        f.policy.leave_out_platform_rows = false;
        let mut left = entries();
        let notes = f.use_profile(&mut left, false);
        assert!(ids(&left).starts_with(&[1, 3, 6]), "{:?}", ids(&left));
        assert!(
            notes[0].contains("TABLE DATA vault.secrets depends on it"),
            "{notes:?}"
        );

        // A table needs the extension, whether it has rows or not.
        let mut left = entries();
        left[5].dependencies.push(DumpId(4));
        let mut without_rows = left.clone();
        without_rows.remove(7);
        let f = ordinary(Profile::Supabase);
        let notes = f.use_profile(&mut left, false);
        assert!(ids(&left).starts_with(&[4, 5, 6, 7, 8]), "{:?}", ids(&left));
        assert!(
            notes[0].contains("EXTENSION pg_net belongs to the platform"),
            "{notes:?}"
        );
        let f = ordinary(Profile::Supabase);
        let notes = f.use_profile(&mut without_rows, false);
        let kept = ids(&without_rows);
        assert!(kept.starts_with(&[4, 5, 6, 7, 10]), "{kept:?}");
        assert!(
            notes[0].contains("because TABLE public.t depends on it"),
            "{notes:?}"
        );

        // At home, and where the extension is available, nothing is left out.
        let mut f = ordinary(Profile::Supabase);
        f.facts.is_superuser = true;
        f.facts.roles.insert("supabase_admin".into());
        for extension in ["pg_net", "supabase_vault"] {
            f.facts.extensions.insert(extension.into());
        }
        let mut left = entries();
        f.use_profile(&mut left, false);
        assert_eq!(left.len(), 15);
        // Without a profile, neither.
        let f = ordinary(Profile::None);
        f.use_profile(&mut left, false);
        assert_eq!((left.len(), rules(&f).len()), (15, 0));
    }

    /// Recognized by a role that is named like the platform's.
    fn of_user(is_script: bool) -> Vec<TocEntry> {
        let owned = |id: i32, kind: &str, schema: Option<&str>, tag: &str, owner: &str| {
            let mut e = entry(if is_script { 0 } else { id }, kind, schema, tag, &[]);
            owner.clone_into(&mut e.owner);
            e
        };
        let mut entries = vec![
            owned(1, "SCHEMA", None, "net", "app"),
            owned(2, "VIEW", Some("net"), "hosts", "app"),
            owned(3, "SCHEMA", None, "graphql", "supabase_reports"),
            owned(4, "FUNCTION", Some("graphql"), "f()", "supabase_reports"),
            owned(5, "SCHEMA", None, "vault", "postgres"),
            owned(6, "TABLE", Some("vault"), "coins", "postgres"),
            owned(7, "TABLE DATA", Some("vault"), "coins", "postgres"),
        ];
        entries[6].dependencies = entries[5..6].iter().map(|e| e.dump_id).collect();
        entries
    }

    #[test]
    fn a_schema_of_the_user_with_the_name_of_the_platforms_is_kept() {
        let f = ordinary(Profile::Auto);
        let mut entries = of_user(false);
        let notes = f.use_profile(&mut entries, false);
        assert!(notes[0].contains("comes from Supabase"), "{notes:?}");
        assert!(notes[1].contains("TABLE vault.coins"), "{notes:?}");
        assert_eq!(ids(&entries), [1, 2, 5, 6, 7]);

        let f = ordinary(Profile::Auto);
        let notes = f.use_profile(&mut of_user(true), true);
        for (note, sign) in [
            (&notes[1], "SCHEMA net belongs to app"),
            (&notes[2], "TABLE vault.coins belongs to postgres"),
        ] {
            assert!(note.contains(sign), "{notes:?}");
        }
        for (sql, is_out) in [
            ("CREATE SCHEMA net;", false),
            ("CREATE VIEW net.hosts AS SELECT 1;", false),
            ("CREATE SCHEMA graphql;", true),
            ("CREATE SCHEMA vault;", false),
            ("CREATE TABLE vault.coins (a integer);", false),
        ] {
            assert_eq!(f.leaves_out(sql), is_out, "{sql}");
        }
    }

    /// Also on the service itself, if it lacks the extension that has such a schema.
    #[test]
    fn rows_in_a_schema_of_the_user_are_kept_on_the_service_itself() {
        let mut f = ordinary(Profile::Auto);
        f.facts.roles.insert("supabase_admin".into());
        let notes = f.use_profile(&mut of_user(true), true);
        let is_noted = notes.iter().any(|n| n.contains("TABLE vault.coins"));
        assert!(is_noted, "{notes:?}");
        let mut rows = TocEntry::bare(1, "TABLE DATA", "vault.coins");
        rows.copy_stmt = "COPY vault.coins FROM stdin;".to_owned();
        assert!(!f.leaves_out_rows(&rows));
    }

    #[test]
    fn roles_of_the_platform_own_nothing_and_are_granted_nothing() {
        let privileges = |id: i32, tag: &str, needs: &[i32], sql: &str| {
            let mut e = entry(id, "ACL", None, tag, needs);
            (e.defn, e.drop_stmt) = (format!("{sql}\n"), String::new());
            e
        };
        let mut schema = entry(1, "SCHEMA", None, "public", &[]);
        schema.owner = "cloudsqlsuperuser".into();
        let mut table = entry(2, "TABLE", Some("public"), "t", &[]);
        table.owner = "there".into();
        let mut policy = entry(6, "POLICY", Some("public"), "t p", &[2]);
        policy.defn = "CREATE POLICY p ON public.t TO cloudsqlsuperuser;\n".into();
        let defaults = |id: i32, role: &str, to: &str| {
            let mut e = entry(
                id,
                "DEFAULT ACL",
                None,
                "DEFAULT PRIVILEGES FOR TABLES",
                &[],
            );
            e.defn = format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO {to};\n"
            );
            e
        };
        let mapping = |id: i32, role: &str| {
            let tag = format!("USER MAPPING {role} SERVER s");
            let mut e = entry(id, "USER MAPPING", None, &tag, &[]);
            e.defn = format!("CREATE USER MAPPING FOR {role} SERVER s OPTIONS (\n    a 'b'\n);\n");
            e
        };
        let mut entries = vec![
            schema,
            table,
            privileges(
                3,
                "SCHEMA public",
                &[1],
                "GRANT ALL ON SCHEMA public TO cloudsqlsuperuser;\nGRANT ALL ON SCHEMA public TO PUBLIC;",
            ),
            privileges(
                4,
                "TABLE t",
                &[2],
                "GRANT SELECT ON TABLE public.t TO cloudsqlsuperuser, there;",
            ),
            privileges(
                5,
                "FUNCTION pg_reload_conf()",
                &[91],
                "GRANT ALL ON FUNCTION pg_catalog.pg_reload_conf() TO there;",
            ),
            policy,
            entry(7, "COMMENT", Some("public"), "POLICY p ON t", &[6]),
            defaults(8, "cloudsqlsuperuser", "there"),
            defaults(9, "gone", "there"),
            defaults(10, "there", "there, cloudsqlsuperuser"),
            mapping(11, "cloudsqlsuperuser"),
            mapping(12, "there"),
        ];
        let f = ordinary(Profile::Auto);
        let notes = f.use_profile(&mut entries, false);
        assert!(notes[0].contains("comes from Cloud SQL"), "{notes:?}");
        assert_eq!(ids(&entries), [1, 2, 3, 4, 10, 12]);
        assert_eq!(
            (entries[0].owner.as_str(), entries[1].owner.as_str()),
            ("", "there")
        );
        assert_eq!(entries[2].defn, "GRANT ALL ON SCHEMA public TO PUBLIC;\n");
        assert_eq!(
            entries[3].defn,
            "GRANT SELECT ON TABLE public.t TO there;\n"
        );
        assert!(
            entries[4].defn.ends_with("TO there;\n"),
            "{}",
            entries[4].defn
        );
        let all = [
            PLATFORM_DEFAULTS,
            PLATFORM_OWNER,
            PLATFORM_POLICY,
            PLATFORM_PRIVILEGE,
        ];
        assert_eq!(rules(&f), all);
    }

    #[test]
    fn statements_of_text_follow_the_profile() {
        let f = ordinary(Profile::Rds);
        let mut none = vec![];
        f.use_profile(&mut none, true);
        for (sql, wanted, rule) in [
            (
                "ALTER TABLE public.t OWNER TO rdsadmin;",
                None,
                PLATFORM_OWNER,
            ),
            (
                "SET SESSION AUTHORIZATION 'rdsadmin';",
                Some("SET SESSION AUTHORIZATION DEFAULT;"),
                PLATFORM_OWNER,
            ),
            (
                "GRANT SELECT ON TABLE public.t TO rds_superuser, there;",
                Some("GRANT SELECT ON TABLE public.t TO there;"),
                PLATFORM_PRIVILEGE,
            ),
            (
                "GRANT ALL ON FUNCTION pg_catalog.pg_reload_conf() TO there;",
                None,
                PLATFORM_PRIVILEGE,
            ),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE rdsadmin GRANT SELECT ON TABLES TO there;",
                None,
                PLATFORM_DEFAULTS,
            ),
            (
                "CREATE POLICY p ON public.t TO rds_superuser USING (true);",
                None,
                PLATFORM_POLICY,
            ),
            (
                "CREATE USER MAPPING FOR rds_superuser SERVER s;",
                None,
                PLATFORM_PRIVILEGE,
            ),
            (
                "CREATE USER MAPPING FOR there SERVER s;",
                Some("CREATE USER MAPPING FOR there SERVER s;"),
                PLATFORM_PRIVILEGE,
            ),
        ] {
            let sent = f.statement(sql, false).unwrap();
            let sent = sent.map(RewrittenStatement::joined);
            assert_eq!(sent.as_deref(), wanted, "{sql}");
            assert!(rules(&f).iter().any(|r| r == rule), "{sql}: {rule}");
        }
        for (sql, is_out) in [
            (
                "CREATE EXTENSION IF NOT EXISTS aws_s3 WITH SCHEMA public CASCADE;",
                true,
            ),
            ("COMMENT ON EXTENSION aws_s3 IS 'x';", true),
            ("COMMENT ON POLICY p ON public.t IS 'x';", true),
            ("CREATE EXTENSION hstore;", false),
            ("CREATE TABLE public.t (a integer);", false),
        ] {
            assert_eq!(f.leaves_out(sql), is_out, "{sql}");
        }
    }

    /// Also on the service itself: another instance of it may lack the extension.
    #[test]
    fn rows_of_an_extension_that_is_left_out_go_with_it() {
        let mut f = ordinary(Profile::Aurora);
        f.facts.roles.insert("rds_superuser".into());
        f.use_profile(&mut vec![], true);
        let leaves_out = |table: &str| {
            let mut rows = TocEntry::bare(1, "TABLE DATA", table);
            rows.copy_stmt = format!("COPY {table} FROM stdin;");
            f.leaves_out_rows(&rows)
        };
        assert!(leaves_out("apg_plan_mgmt.plans"));
        assert!(!leaves_out("public.t"));
    }

    #[test]
    fn what_the_policy_says_of_a_role_counts_before_the_profile() {
        let sql = "ALTER TABLE public.t OWNER TO rdsadmin;";
        let sent = |change: fn(&mut Rewriter)| {
            let mut f = ordinary(Profile::Rds);
            change(&mut f);
            f.use_profile(&mut vec![], true);
            f.statement(sql, false)
                .unwrap()
                .map(RewrittenStatement::joined)
        };
        let mapped = sent(|f| {
            f.policy.owners = Owners::Map;
            f.policy.role_map.insert("rdsadmin".into(), "there".into());
        });
        assert_eq!(mapped.unwrap(), "ALTER TABLE public.t OWNER TO \"there\";");
        let created = sent(|f| {
            f.policy.create_roles = true;
            f.facts.may_create_roles = true;
        });
        let created = created.unwrap();
        assert!(created.contains("CREATE ROLE \"rdsadmin\""), "{created}");
        assert!(
            created.contains("GRANT \"rdsadmin\" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;")
        );
        let member = sent(|f| {
            f.facts.roles.insert("rdsadmin".into());
            f.facts.may_become.insert("rdsadmin".into());
        });
        assert_eq!(member.unwrap(), sql);
        let may_join = sent(|f| {
            f.facts.roles.insert("rdsadmin".into());
            f.facts.may_grant_itself.insert("rdsadmin".into());
        });
        let may_join = may_join.unwrap();
        assert!(
            may_join.starts_with("GRANT \"rdsadmin\" TO CURRENT_USER") && may_join.ends_with(sql)
        );
    }
}
