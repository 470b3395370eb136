//! libpq's password file: lines of `host:port:database:user:password`, the first that matches counts
//! (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The connection to find a password for.
pub(super) struct PasswordQuery<'a> {
    pub host: &'a str,
    pub port: &'a str,
    pub database: &'a str,
    pub user: &'a str,
}

/// A field of a line, without its escapes.
#[derive(Default)]
struct PgpassField {
    value: String,
    /// It is a lone `*`.
    is_any: bool,
}

impl PgpassField {
    fn matches(&self, wanted: &str) -> bool {
        self.is_any || self.value == wanted
    }
}

/// Directories of sockets that the password file calls `localhost`, as libpq does with its built-in one.
const DEFAULT_SOCKETS: [&str; 3] = ["/tmp", "/var/run/postgresql", "/run/postgresql"];

/// Splits a line at its colons; a backslash takes the next character as it is.
fn fields_of(line: &str) -> Vec<PgpassField> {
    let mut fields = vec![PgpassField::default()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == ':' {
            fields.push(PgpassField::default());
            continue;
        }
        let Some(field) = fields.last_mut() else {
            continue;
        };
        let taken = if c == '\\' { chars.next() } else { None };
        field.is_any = c == '*' && field.value.is_empty();
        field.value.push(taken.unwrap_or(c));
    }
    fields
}

/// The password of the first line that matches.
pub(super) fn find(text: &str, wanted: &PasswordQuery<'_>) -> Option<String> {
    let host = if DEFAULT_SOCKETS.contains(&wanted.host) {
        "localhost"
    } else {
        wanted.host
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields_of).find_map(|fields| {
        let [of_host, of_port, of_database, of_user, password, ..] = fields.as_slice() else {
            return None;
        };
        let is_match = of_host.matches(host)
            && of_port.matches(wanted.port)
            && of_database.matches(wanted.database)
            && of_user.matches(wanted.user);
        (is_match && !password.value.is_empty()).then(|| password.value.clone())
    })
}

/// The text of a password file; `None` if there is no such file.
///
/// # Errors
/// Why the file is ignored, as a warning for people: libpq ignores a file that others may read, too.
pub(super) fn read(path: &Path) -> Result<Option<String>, String> {
    let name = path.display();
    let unreadable = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
        kind => Err(format!(
            "the password file {name} is ignored: it cannot be read: {kind}"
        )),
    };
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(e) => return unreadable(e),
    };
    if !about.is_file() {
        return Err(format!(
            "the password file {name} is ignored: it is not a plain file"
        ));
    }
    if about.mode() & 0o077 != 0 {
        return Err(format!(
            "the password file {name} is ignored: its group or others may access it: run chmod 600 {name}"
        ));
    }
    std::fs::read_to_string(path).map(Some).or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn password(text: &str, host: &str, user: &str) -> Option<String> {
        let wanted = PasswordQuery {
            host,
            port: "5432",
            database: "postgres",
            user,
        };
        find(text, &wanted)
    }

    #[test]
    fn the_first_matching_line_counts() {
        let text = "# db:5432:postgres:me:comment\n\ntoo:few:fields\nother:5432:postgres:me:other\n\
                    db:5433:*:me:port\ndb:*:app:me:database\ndb:*:postgres:you:user\r\n\
                    db:*:*:me:first\n*:*:*:*:last\n";
        assert_eq!(password(text, "db", "me").unwrap(), "first");
        assert_eq!(password(text, "db", "you").unwrap(), "user");
        assert_eq!(password(text, "elsewhere", "me").unwrap(), "last");
        assert_eq!(password("db:5432:postgres:me:x", "db", "you"), None);
        assert_eq!(password("db:5432:postgres:me:", "db", "me"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let text = r"\:\:1:5432:postgres:a\\b:p\:q\\r:ignored";
        assert_eq!(password(text, "::1", r"a\b").unwrap(), r"p:q\r");
        // An escaped star, and one with other characters, match only themselves.
        let stars = "\\*:*:*:me:escaped\n*.db:*:*:me:part\n";
        assert_eq!(password(stars, "*", "me").unwrap(), "escaped");
        assert_eq!(password(stars, "*.db", "me").unwrap(), "part");
        assert_eq!(password(stars, "x.db", "me"), None);
        assert_eq!(password(r"*:*:*:*:end\", "db", "me").unwrap(), r"end\");
    }

    #[test]
    fn the_default_socket_is_localhost() {
        let text = "localhost:*:*:*:local\n/sockets:*:*:*:other\n";
        for (host, found) in [
            ("/var/run/postgresql", "local"),
            ("localhost", "local"),
            ("/sockets", "other"),
        ] {
            assert_eq!(password(text, host, "me").unwrap(), found);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored_with_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match read(&path) {
                Ok(text) => assert!(is_used && text.is_some(), "{mode:o}"),
                Err(warning) => assert!(
                    !is_used && warning.contains("chmod 600") && !warning.contains("secret"),
                    "{mode:o}: {warning}"
                ),
            }
        }
        assert!(
            read(folder.path())
                .unwrap_err()
                .contains("not a plain file")
        );
    }
}
