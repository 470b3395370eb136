//! What `psql` and other programs with libpq would connect with: a service of `pg_service.conf`, the `PG*`
//! variables and the password file, in libpq's order
//! (<https://www.postgresql.org/docs/current/libpq-envars.html>). The command line takes these settings where
//! `DB_*` is not set; a worker does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::pgpass::{self, PasswordQuery};
use super::service_file;

/// Names of connection parameters in a service, and the variables with the same meaning.
const PARAMETERS: [(&str, &str); 10] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
];

/// Folders of the system's service file: `pg_config --sysconfdir` of Debian and of Red Hat.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// Reads a variable of the environment; an empty one is not set.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value, and where it comes from, for people.
#[derive(Clone)]
pub(super) struct LibpqSetting {
    pub value: String,
    pub origin: String,
}

/// The connection parameters that are set, by their names in a service.
pub(super) type LibpqSettings = BTreeMap<&'static str, LibpqSetting>;

/// Where settings of the target server come from that are not set by `DB_*`, and what was wrong there.
#[derive(Debug, Clone, Default)]
pub struct SettingOrigins {
    /// By variable: `DB_HOST` from `PGHOST`.
    pub(super) by_variable: BTreeMap<&'static str, String>,
    /// Each as `VARIABLE: what is wrong`.
    pub(super) errors: Vec<String>,
    /// Files that are ignored, and why.
    pub(super) warnings: Vec<String>,
}

impl SettingOrigins {
    /// What to call a setting: where it comes from, otherwise its variable.
    pub fn name_of<'a>(&'a self, variable: &'a str) -> &'a str {
        self.by_variable.get(variable).map_or(variable, |o| o)
    }

    /// Where a variable's value comes from, if not from the variable or its flag.
    pub fn of(&self, variable: &str) -> Option<&str> {
        self.by_variable.get(variable).map(String::as_str)
    }

    /// Variables, and where their values come from.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_variable
            .iter()
            .map(|(v, origin)| (*v, origin.as_str()))
    }

    /// Files that are ignored, and why, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn home(env: Environment<'_>) -> Option<PathBuf> {
    env("HOME").map(PathBuf::from)
}

/// The service that PGSERVICE names.
fn service(env: Environment<'_>) -> Result<LibpqSettings, String> {
    let Some(name) = env("PGSERVICE") else {
        return Ok(LibpqSettings::new());
    };
    let named = env("PGSERVICEFILE").map(PathBuf::from);
    let own = || home(env).map(|home| home.join(".pg_service.conf"));
    let folders = match env("PGSYSCONFDIR") {
        Some(folder) => vec![folder],
        None => SYSTEM_FOLDERS.map(str::to_owned).to_vec(),
    };
    let of_system = folders.iter().map(|f| Path::new(f).join("pg_service.conf"));
    let files = named.clone().or_else(own).into_iter().chain(of_system);
    for file in files {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            // Only a file that was named must exist.
            Err(_) if named.as_ref() != Some(&file) && !file.exists() => continue,
            Err(e) => {
                return Err(format!(
                    "PGSERVICE: {} cannot be read: {}",
                    file.display(),
                    e.kind()
                ));
            }
        };
        let found = service_file::parameters_of(&text, &name)
            .map_err(|what| format!("PGSERVICE: {}: {what}", file.display()))?;
        if let Some(mut found) = found {
            let origin = |parameter| format!("{parameter} of PGSERVICE in {}", file.display());
            let taken = PARAMETERS.iter().filter_map(|(parameter, _)| {
                let value = found.remove(*parameter).filter(|v| !v.is_empty())?;
                let origin = origin(parameter);
                Some((*parameter, LibpqSetting { value, origin }))
            });
            return Ok(taken.collect());
        }
    }
    Err("PGSERVICE: no service file has this service: add it to ~/.pg_service.conf, or set PGSERVICEFILE".into())
}

/// Reads the service and the variables. A service's value comes before a variable's.
///
/// # Errors
/// What cannot be followed, each as `VARIABLE: what is wrong`.
pub(super) fn read(env: Environment<'_>) -> Result<LibpqSettings, Vec<String>> {
    let mut settings = service(env).map_err(|e| vec![e])?;
    for (parameter, variable) in PARAMETERS {
        let of_variable = || {
            let (value, origin) = (env(variable)?, variable.to_owned());
            Some(LibpqSetting { value, origin })
        };
        if !settings.contains_key(parameter)
            && let Some(setting) = of_variable()
        {
            settings.insert(parameter, setting);
        }
    }
    // The default of libpq 16 and of this program: the system's certificates.
    if settings
        .get("sslrootcert")
        .is_some_and(|s| s.value == "system")
    {
        settings.remove("sslrootcert");
    }
    Ok(settings)
}

/// What libpq supports and this program does not: ignoring it would reach another server.
pub(super) fn unsupported(settings: &LibpqSettings) -> Option<String> {
    let several = settings.get("host").filter(|s| s.value.contains(','));
    if let Some(host) = several {
        let origin = &host.origin;
        return Some(format!(
            "{origin}: several hosts are not supported: set DB_HOST to one of them"
        ));
    }
    let address = settings.get("hostaddr")?;
    Some(format!(
        "{}: not supported: set DB_HOST to the server's name or address",
        address.origin
    ))
}

/// The password of the password file for a connection.
///
/// # Errors
/// Why the file is ignored, as a warning for people.
pub(super) fn password(
    env: Environment<'_>,
    settings: &LibpqSettings,
    wanted: &PasswordQuery<'_>,
) -> Result<Option<LibpqSetting>, String> {
    let named = settings.get("passfile").map(|s| PathBuf::from(&s.value));
    let Some(file) = named.or_else(|| home(env).map(|home| home.join(".pgpass"))) else {
        return Ok(None);
    };
    let found = pgpass::read(&file)?.and_then(|text| pgpass::find(&text, wanted));
    Ok(found.map(|value| LibpqSetting {
        value,
        origin: file.display().to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn shown(env: &[(&str, &str)]) -> Result<Vec<String>, Vec<String>> {
        let env: HashMap<&str, &str> = env.iter().copied().collect();
        let read = read(&|name| env.get(name).map(|v| (*v).to_owned()));
        Ok(read?
            .into_iter()
            .map(|(parameter, s)| format!("{parameter}={} ({})", s.value, s.origin))
            .collect())
    }

    #[test]
    fn a_service_comes_before_variables() {
        let folder = tempfile::tempdir().unwrap();
        let (file, home) = (
            folder.path().join("services"),
            folder.path().to_str().unwrap(),
        );
        std::fs::write(&file, "[app]\nhost=db\nuser=\ndbname=x\n").unwrap();
        let path = file.to_str().unwrap();
        let named = [
            ("PGSERVICE", "app"),
            ("PGSERVICEFILE", path),
            ("PGHOST", "other"),
            ("PGUSER", "me"),
            ("PGSSLROOTCERT", "system"),
        ];
        let of_service = |file: &str| {
            vec![
                format!("host=db (host of PGSERVICE in {file})"),
                "user=me (PGUSER)".to_owned(),
            ]
        };
        assert_eq!(shown(&named), Ok(of_service(path)));
        assert_eq!(
            shown(&named[2..4]),
            Ok(vec![
                "host=other (PGHOST)".to_owned(),
                "user=me (PGUSER)".to_owned()
            ])
        );
        // Without PGSERVICEFILE: the user's file, then the system's.
        for (variable, name) in [
            ("HOME", ".pg_service.conf"),
            ("PGSYSCONFDIR", "pg_service.conf"),
        ] {
            let found = folder.path().join(name);
            std::fs::copy(&file, &found).unwrap();
            let env = [("PGSERVICE", "app"), (variable, home), ("PGUSER", "me")];
            assert_eq!(shown(&env), Ok(of_service(found.to_str().unwrap())));
        }
    }

    #[test]
    fn a_service_that_cannot_be_found_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        for (env, expected) in [
            (
                [("PGSERVICE", "secret"), ("PGSYSCONFDIR", here)],
                "no service file has this service",
            ),
            (
                [("PGSERVICE", "secret"), ("PGSERVICEFILE", "/no/such/file")],
                "/no/such/file cannot be read",
            ),
        ] {
            let errors = shown(&env).unwrap_err();
            assert!(
                errors[0].contains(expected) && !errors[0].contains("secret"),
                "{errors:?}"
            );
        }
    }
}
