//! What a server has.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::FutureExt;
use tokio_postgres::Row;

use super::errors::map_pg_error;
use super::membership::MEMBERSHIP_OPTIONS;
use super::session::Session;
use crate::error::DatabaseError;
use crate::extension_hooks::{HOOKS, Preload};

/// What a server provides that a dump may need.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// `server_version_num`, such as 150018.
    pub version: u32,
    /// CPU cores that the server may use; `None` if unknown.
    pub cores: Option<usize>,
    /// The role of the session.
    pub user: String,
    /// Whether this role is a superuser.
    pub is_superuser: bool,
    /// Whether this role has CREATEDB or is a superuser.
    pub may_create_databases: bool,
    /// Whether this role has CREATEROLE or is a superuser.
    pub may_create_roles: bool,
    /// All roles of the server.
    pub roles: BTreeSet<String>,
    /// Roles that this role can make owners of objects.
    pub may_become: BTreeSet<String>,
    /// Others that it can after it has granted itself membership in them.
    pub may_grant_itself: BTreeSet<String>,
    /// All tablespaces of the server, also `pg_default`.
    pub tablespaces: BTreeSet<String>,
    /// Extensions that can be created.
    pub extensions: BTreeSet<String>,
    /// Available extensions that this role may not create.
    pub untrusted_extensions: BTreeSet<String>,
    /// Available extensions that cannot be created in the database to be restored, and why.
    pub unusable_extensions: BTreeMap<String, String>,
    /// The database that pg_cron runs in; empty if the server does not load it, `None` if this role may not
    /// see the setting.
    pub cron_database: Option<String>,
    /// Table access methods.
    pub access_methods: BTreeSet<String>,
    /// Index access methods.
    pub index_methods: BTreeSet<String>,
    /// Whether the server is built with ICU.
    pub has_icu: bool,
    /// Whether the server is built with lz4 for column compression.
    pub has_lz4: bool,
    /// The operating system's locales, in lower case and without hyphens.
    pub locales: BTreeSet<String>,
}

/// Build options of a server. `initdb` adds ICU's own collations if the server has ICU.
const BUILT: &str = "SELECT 'index ' || amname FROM pg_am WHERE amtype = 'i'
    UNION ALL SELECT 'icu' WHERE EXISTS (SELECT FROM pg_collation WHERE collname LIKE '%-x-icu')
    UNION ALL SELECT 'lz4' FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)";

/// The view lacks settings that a role may not see.
const CRON_DATABASE: &str = "SELECT setting FROM pg_settings WHERE name = 'cron.database_name'
    UNION ALL SELECT '' WHERE pg_has_role('pg_read_all_settings', 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_settings WHERE name = 'cron.database_name')";

/// Settings of managed services that list the extensions that may be created; not every role may read them.
const ALLOWED_EXTENSIONS: &str = "SELECT s || '=' || current_setting(s, true)
    FROM unnest(ARRAY['azure.extensions', 'rds.allowed_extensions']) s WHERE current_setting(s, true) <> ''";
/// What the names of the server's settings begin with, which shows the libraries that it has loaded, and
/// `shared_preload_libraries` itself, if this role may see it.
const LOADED: &str = "SELECT split_part(name, '.', 1) FROM pg_settings WHERE name LIKE '%.%'
    UNION SELECT 'shared_preload_libraries = ' || setting FROM pg_settings WHERE name = 'shared_preload_libraries'";
const PRELOADED: &str = "shared_preload_libraries = ";

/// Normalizes a locale name: `en_US.UTF-8` and `en_US.utf8` are the same.
pub(crate) fn plain_locale(name: &str) -> String {
    name.to_lowercase().replace('-', "")
}

impl Session {
    /// Queries the facts of the whole server; any database will do.
    ///
    /// # Errors
    /// `target_unavailable`, or the server's error.
    pub async fn facts(&self) -> Result<ServerFacts, DatabaseError> {
        // Pipelined: none of these queries depends on another.
        let (me, cores, roles, may_become, may_grant_itself, tablespaces, extensions, access_methods, locales, cron, built, loaded, allowed) = tokio::try_join!(
            self.me(),
            self.cores().map(Ok),
            self.names("SELECT rolname::text FROM pg_roles"),
            self.names(self.may_become_sql()),
            self.names(self.may_grant_itself_sql()),
            self.names("SELECT spcname::text FROM pg_tablespace"),
            self.names("SELECT name::text FROM pg_available_extensions"),
            self.names("SELECT amname::text FROM pg_am WHERE amtype = 't'"),
            self.names("SELECT collcollate::text FROM pg_collation WHERE collprovider IN ('c', 'd') AND collcollate <> ''"),
            self.names(CRON_DATABASE),
            self.names(BUILT),
            self.names(LOADED),
            self.names(ALLOWED_EXTENSIONS).map(|lists| Ok(lists.unwrap_or_default())),
        )?;
        let mut facts = ServerFacts {
            version: self.version(),
            cores,
            user: me.get(0),
            is_superuser: me.get(1),
            may_create_roles: me.get(2),
            may_create_databases: me.get(3),
            roles,
            may_become,
            may_grant_itself,
            tablespaces,
            extensions,
            untrusted_extensions: BTreeSet::new(),
            unusable_extensions: BTreeMap::new(),
            cron_database: cron.into_iter().next(),
            access_methods,
            index_methods: index_methods(&built),
            has_icu: built.contains("icu"),
            has_lz4: built.contains("lz4"),
            locales: locales.iter().map(|l| plain_locale(l)).collect(),
        };
        if !facts.is_superuser {
            facts.keep_allowed(&allowed);
        }
        Ok(facts.without_unloaded(&loaded))
    }

    /// The extensions that can be created without a superuser. To know them, the server reads its folder of extensions once
    /// for each of them, which takes longer than all other facts together.
    ///
    /// # Errors
    /// `target_unavailable`, or the server's error.
    pub async fn trusted_extensions(&self) -> Result<BTreeSet<String>, DatabaseError> {
        self.names("SELECT DISTINCT name::text FROM pg_available_extension_versions WHERE trusted OR NOT superuser")
            .await
    }

    async fn me(&self) -> Result<Row, DatabaseError> {
        let sql = "SELECT current_user::text, rolsuper, rolsuper OR rolcreaterole, rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user";
        let row = self.client().query_one(sql, &[]).await;
        row.map_err(|e| map_pg_error(&e, "querying the server"))
    }

    /// Since 16, membership alone no longer allows assigning ownership.
    fn may_become_sql(&self) -> &'static str {
        if self.version() >= MEMBERSHIP_OPTIONS {
            "SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'SET')"
        } else {
            "SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')"
        }
    }

    /// Before 16, CREATEROLE can grant every role but superusers; since then, ADMIN is needed, which the creator of a role
    /// has. Predefined roles are left alone.
    fn may_grant_itself_sql(&self) -> &'static str {
        if self.version() >= MEMBERSHIP_OPTIONS {
            "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\\_%'
               AND pg_has_role(oid, 'MEMBER WITH ADMIN OPTION') AND NOT pg_has_role(oid, 'SET')"
        } else {
            "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\\_%'
               AND NOT pg_has_role(oid, 'MEMBER') AND (SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user)"
        }
    }

    /// The cores of a server on this machine are known; those of another are visible to privileged roles only.
    async fn cores(&self) -> Option<usize> {
        const LOCAL: &str = "SELECT coalesce(inet_server_addr() = inet_client_addr(), true)";
        const CPUS: &str = "SELECT count(*) FROM regexp_split_to_table(pg_read_file('/proc/cpuinfo'), E'\\n') l WHERE l LIKE 'processor%'";
        const QUOTA: &str = "SELECT ceil(q::numeric / p::numeric)::int8 FROM (SELECT split_part(c, ' ', 1) q, split_part(c, ' ', 2) p FROM pg_read_file('/sys/fs/cgroup/cpu.max', true) c) x WHERE q ~ '^[0-9]+$'";
        if self.client().query_one(LOCAL, &[]).await.ok()?.get(0) {
            return std::thread::available_parallelism().ok().map(usize::from);
        }
        let cpus: i64 = self.client().query_one(CPUS, &[]).await.ok()?.get(0);
        let quota = self.client().query_opt(QUOTA, &[]).await.ok().flatten();
        let quota = quota.map_or(cpus, |row| row.get(0));
        usize::try_from(quota.min(cpus)).ok().filter(|n| *n > 0)
    }

    async fn names(&self, sql: &str) -> Result<BTreeSet<String>, DatabaseError> {
        let rows = self.client().query(sql, &[]).await;
        let rows = rows.map_err(|e| map_pg_error(&e, "querying the server"))?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }
}

impl ServerFacts {
    /// Takes off the extensions that a managed service does not allow. `lists`: `setting=name,name`.
    fn keep_allowed(&mut self, lists: &BTreeSet<String>) {
        for (setting, names) in lists.iter().filter_map(|list| list.split_once('=')) {
            let names = names.split(',').map(|name| name.trim().trim_matches('"'));
            let allowed: BTreeSet<String> = names.map(str::to_lowercase).collect();
            let is_allowed = |extension: &String| {
                allowed.contains("*")
                    || extension == "plpgsql"
                    || allowed.contains(&extension.to_lowercase())
            };
            let all = std::mem::take(&mut self.extensions).into_iter();
            let (kept, refused): (BTreeSet<String>, BTreeSet<String>) = all.partition(is_allowed);
            self.extensions = kept;
            let why = format!("{setting} of the server does not list it: add it there");
            let refused = refused.into_iter().map(|e| (e, why.clone()));
            self.unusable_extensions.extend(refused);
        }
    }

    /// The same without the extensions that cannot be created because the server has not loaded their library, if this role
    /// may know that.
    fn without_unloaded(mut self, loaded: &BTreeSet<String>) -> Self {
        let Some(preloaded) = loaded.iter().find_map(|l| l.strip_prefix(PRELOADED)) else {
            return self;
        };
        let is_loaded = |p: &Preload| {
            loaded.contains(p.settings) || preloaded.split(',').any(|l| library(l) == p.library)
        };
        for hooks in HOOKS {
            let Some(lacking) = hooks.required_library().filter(|p| !is_loaded(p)) else {
                continue;
            };
            if self.extensions.remove(hooks.extension) {
                let why = format!(
                    "the server does not load it: add {} to shared_preload_libraries, and restart the server",
                    lacking.library
                );
                self.unusable_extensions
                    .insert(hooks.extension.to_owned(), why);
            }
        }
        self
    }
}

/// The name of a library in a list, such as `"$libdir/pg_cron.so"`.
fn library(listed: &str) -> &str {
    let name = listed.trim().trim_matches('"');
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_suffix(".so").unwrap_or(name)
}

fn index_methods(built: &BTreeSet<String>) -> BTreeSet<String> {
    let methods = built.iter().filter_map(|b| b.strip_prefix("index "));
    methods.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_that_a_service_does_not_list_cannot_be_created() {
        let set = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|n| (*n).to_owned()).collect()
        };
        let facts = |lists: &[&str]| {
            let mut facts = ServerFacts {
                extensions: set(&["plpgsql", "hstore", "uuid-ossp", "postgis"]),
                ..ServerFacts::default()
            };
            facts.keep_allowed(&set(lists));
            facts
        };
        let azure = facts(&["azure.extensions=HSTORE, \"uuid-ossp\""]);
        assert_eq!(azure.extensions, set(&["plpgsql", "hstore", "uuid-ossp"]));
        let why = &azure.unusable_extensions["postgis"];
        assert!(why.starts_with("azure.extensions of the server"), "{why}");
        assert_eq!(facts(&["rds.allowed_extensions=*"]).extensions.len(), 4);
        assert_eq!(facts(&[]).extensions.len(), 4);
    }

    fn facts(loaded: &[&str]) -> ServerFacts {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let facts = ServerFacts {
            extensions: set(&["timescaledb", "pg_stat_statements", "hstore"]),
            ..ServerFacts::default()
        };
        facts.without_unloaded(&set(loaded))
    }

    #[test]
    fn an_extension_whose_library_is_not_loaded_cannot_be_created() {
        let lacking = facts(&["plpgsql", "shared_preload_libraries = pg_cron"]);
        assert!(!lacking.extensions.contains("timescaledb"));
        let why = &lacking.unusable_extensions["timescaledb"];
        assert!(
            why.contains("add timescaledb to shared_preload_libraries"),
            "{why}"
        );
        // It can be created, and then does nothing.
        assert!(lacking.extensions.contains("pg_stat_statements"));
        for loaded in [
            &["shared_preload_libraries = pg_cron, \"$libdir/timescaledb.so\""][..],
            // The provider may load it in another way.
            &["shared_preload_libraries = ", "timescaledb"][..],
            // This role may not know.
            &["plpgsql"][..],
        ] {
            assert!(
                facts(loaded).extensions.contains("timescaledb"),
                "{loaded:?}"
            );
        }
    }
}
