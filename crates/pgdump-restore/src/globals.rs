//! Roles from a `pg_dumpall --globals-only` file, and which of their attributes are used. Pure.

use std::collections::BTreeMap;

use crate::postgres::ident;
use pgdump_archive::{Dialect, Token, TokenKind, statements, tokens};

/// Statements that create each role of the file, always without SUPERUSER, REPLICATION, BYPASSRLS,
/// CREATEROLE and CREATEDB, and without the password unless `passwords` is set.
pub fn roles_of(text: &str, passwords: bool) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|l| !l.starts_with('\\'));
    let without_commands = lines.collect::<Vec<_>>().join("\n");
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for sql in statements(&without_commands, Dialect::default()) {
        match role_statement(&tokens(sql, Dialect::default()), passwords) {
            Some((role, None)) => drop(options.entry(role).or_default()),
            Some((role, Some(new))) => drop(options.insert(role, new)),
            None => {}
        }
    }
    options.retain(|role, _| !role.starts_with("pg_"));
    let create = |(role, options): (String, String)| {
        let sql = format!("CREATE ROLE {}{options};", ident(&role));
        (role, sql)
    };
    options.into_iter().map(create).collect()
}

/// The role that a statement creates (without options) or whose options it sets.
fn role_statement(t: &[Token<'_>], passwords: bool) -> Option<(String, Option<String>)> {
    let is = |i: usize, word: &str| t.get(i).is_some_and(|t| t.is(word));
    let role = t.get(2).and_then(Token::name).filter(|_| is(1, "role"))?;
    if is(0, "create") {
        Some((role, None))
    } else if is(0, "alter") && is(3, "with") {
        Some((role, Some(sanitize_role(&t[4..], passwords))))
    } else {
        None
    }
}

/// The options that a restore may give to a role.
fn sanitize_role(t: &[Token<'_>], passwords: bool) -> String {
    let mut out = String::new();
    let mut i = 0;
    while let Some(word) = t.get(i).and_then(Token::name) {
        let value = t.get(i + 1).filter(|v| is_constant(v)).map(|v| v.text);
        i += 1;
        match (word.as_str(), value) {
            ("login" | "nologin" | "inherit" | "noinherit", _) => {
                out.push_str(&format!(" {}", word.to_uppercase()));
                continue;
            }
            ("password", Some(secret)) if passwords => {
                out.push_str(&format!(" PASSWORD {secret}"));
            }
            ("password", Some(_)) => {}
            ("limit", Some(n)) => out.push_str(&format!(" CONNECTION LIMIT {n}")),
            ("until", Some(time)) => out.push_str(&format!(" VALID UNTIL {time}")),
            _ => continue,
        }
        i += 1;
    }
    out
}

fn is_constant(t: &Token<'_>) -> bool {
    matches!(t.kind, TokenKind::StringConstant | TokenKind::Number)
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
