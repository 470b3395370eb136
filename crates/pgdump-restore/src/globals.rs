//! Roles from a `pg_dumpall --globals-only` file, and which of their attributes are used. Pure.

use std::collections::BTreeMap;

use crate::postgres::ident;
use pgdump_archive::{Dialect, Token, TokenKind, statements, tokens};

/// Statements that create each role of the file, always without SUPERUSER, REPLICATION, BYPASSRLS,
/// CREATEROLE and CREATEDB, and without the password unless `passwords` is set.
pub fn roles_of(text: &str, passwords: bool) -> BTreeMap<String, String> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    let without_commands = text
        .lines()
        .filter(|l| !l.starts_with('\\'))
        .collect::<Vec<_>>()
        .join("\n");
    for sql in statements(&without_commands, Dialect::default()) {
        let t = tokens(sql, Dialect::default());
        let is = |i: usize, word: &str| t.get(i).is_some_and(|t| t.is(word));
        if !is(1, "role") {
            continue;
        }
        let Some(role) = t.get(2).and_then(Token::name) else {
            continue;
        };
        if is(0, "create") {
            options.entry(role).or_default();
        } else if is(0, "alter") && is(3, "with") {
            options.insert(role, sanitize_role(&t[4..], passwords));
        }
    }
    options
        .into_iter()
        .filter(|(role, _)| !role.starts_with("pg_"))
        .map(|(role, options)| {
            let create = format!("CREATE ROLE {}{options};", ident(&role));
            (role, create)
        })
        .collect()
}

/// The options that a restore may give to a role.
fn sanitize_role(t: &[Token<'_>], passwords: bool) -> String {
    let mut out = String::new();
    let mut i = 0;
    while let Some(word) = t.get(i).and_then(Token::name) {
        let value = t
            .get(i + 1)
            .filter(|v| matches!(v.kind, TokenKind::StringConstant | TokenKind::Number))
            .map(|v| v.text);
        match (word.as_str(), value) {
            ("login" | "nologin" | "inherit" | "noinherit", _) => {
                out.push_str(&format!(" {}", word.to_uppercase()))
            }
            ("password", Some(secret)) => {
                if passwords {
                    out.push_str(&format!(" PASSWORD {secret}"));
                }
                i += 1;
            }
            ("limit", Some(n)) => {
                out.push_str(&format!(" CONNECTION LIMIT {n}"));
                i += 1;
            }
            ("until", Some(time)) => {
                out.push_str(&format!(" VALID UNTIL {time}"));
                i += 1;
            }
            _ => {}
        }
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "--\n-- PostgreSQL database cluster dump\n--\n\\restrict abc\nSET default_transaction_read_only = off;
CREATE ROLE app;
ALTER ROLE app WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:x;y' VALID UNTIL '2030-01-01 00:00:00+00';
CREATE ROLE \"Odd \"\"one\"\"\";
ALTER ROLE \"Odd \"\"one\"\"\" WITH NOSUPERUSER NOINHERIT NOLOGIN;
ALTER ROLE app SET search_path TO 'x';
CREATE ROLE pg_evil;
GRANT app TO \"Odd \"\"one\"\"\";\n";

    #[test]
    fn roles_get_no_dangerous_attributes_and_no_password() {
        let roles = roles_of(FILE, false);
        assert_eq!(
            roles["app"],
            "CREATE ROLE \"app\" INHERIT LOGIN CONNECTION LIMIT 5 VALID UNTIL '2030-01-01 00:00:00+00';"
        );
        assert_eq!(
            roles["Odd \"one\""],
            "CREATE ROLE \"Odd \"\"one\"\"\" NOINHERIT NOLOGIN;"
        );
        assert_eq!(roles.len(), 2);
        assert!(roles_of(FILE, true)["app"].contains("PASSWORD 'SCRAM-SHA-256$4096:x;y'"));
    }
}
