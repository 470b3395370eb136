//! Role names in statements: owners, grantees, and the roles of policies.

use crate::postgres::ident;
use pgdump_archive::{Dialect, Token, TokenKind, first_tokens};

/// Tokens examined of a statement: roles are among them.
const LOOKED_AT: usize = 1 << 17;

/// Names that do not refer to a role of the dump.
const NO_ROLES: [&str; 5] = [
    "public",
    "current_user",
    "current_role",
    "session_user",
    "none",
];

/// A role named in a statement: its position in bytes, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoleRef {
    at: usize,
    len: usize,
    pub role: String,
}

/// The roles that a statement names.
pub(super) fn mentions(sql: &str) -> Vec<RoleRef> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let mut found = Vec::new();
    let Some(first) = t.first().and_then(Token::name) else {
        return found;
    };
    let is = |i: usize, word: &str| t.get(i).is_some_and(|t| t.is(word));
    match first.as_str() {
        "grant" | "revoke" => privileges(&t, &mut found),
        "alter" if is(1, "default") => privileges(&t, &mut found),
        "alter" => push(new_owner(&t), &mut found),
        "create" if is(1, "policy") => list(policy_roles(&t), &mut found),
        "create" if is(1, "user") && is(2, "mapping") => push(after(&t, "for"), &mut found),
        "create" if is(1, "schema") => push(after(&t, "authorization"), &mut found),
        "set" if is(1, "session") && is(2, "authorization") && !is(3, "default") => {
            push(t.get(3), &mut found);
        }
        _ => {}
    }
    found
}

/// What is left of a statement without some of the roles that it lists: grantees, or the roles of a policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shortened {
    /// None of them is listed.
    Unchanged,
    /// Others are left.
    To(String),
    /// No role is left, and so the statement has no effect.
    Nothing,
}

/// Removes roles from the list of a statement's grantees, or of a policy's roles.
pub(super) fn without_listed(sql: &str, is_gone: impl Fn(&str) -> bool) -> Shortened {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let listed = listed_roles(&t);
    let kept: Vec<&RoleRef> = listed.iter().filter(|r| !is_gone(&r.role)).collect();
    let (Some(first), Some(last)) = (listed.first(), listed.last()) else {
        return Shortened::Unchanged;
    };
    if kept.len() == listed.len() {
        return Shortened::Unchanged;
    }
    if kept.is_empty() {
        return Shortened::Nothing;
    }
    let kept: Vec<&str> = kept.iter().map(|r| &sql[r.at..r.at + r.len]).collect();
    let (before, after) = (&sql[..first.at], &sql[last.at + last.len..]);
    Shortened::To(format!("{before}{}{after}", kept.join(", ")))
}

/// The list itself, also with PUBLIC and the like.
fn listed_roles(t: &[Token<'_>]) -> Vec<RoleRef> {
    let is = |i: usize, word: &str| t.get(i).is_some_and(|t| t.is(word));
    let mut rest = if is(0, "create") && is(1, "policy") {
        policy_roles(t)
    } else {
        grantees(t)
    };
    let mut found = Vec::new();
    loop {
        if rest.first().is_some_and(|w| w.is("group")) {
            rest = &rest[1..];
        }
        let Some(token) = rest.first() else {
            return found;
        };
        let Some(role) = token.name() else {
            return found;
        };
        found.push(RoleRef {
            at: token.at,
            len: token.text.len(),
            role,
        });
        match rest.get(1) {
            Some(comma) if comma.is_symbol(b',') => rest = &rest[2..],
            _ => return found,
        }
    }
}

/// The roles whose default privileges a statement sets.
pub(super) fn roles_of_defaults(sql: &str) -> Vec<String> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let mut found = Vec::new();
    list(owners_of_defaults(&t), &mut found);
    found.into_iter().map(|r| r.role).collect()
}

/// The token after a key word.
fn after<'a, 'b>(t: &'b [Token<'a>], word: &str) -> Option<&'b Token<'a>> {
    t.get(t.iter().position(|w| w.is(word))? + 1)
}

fn new_owner<'a, 'b>(t: &'b [Token<'a>]) -> Option<&'b Token<'a>> {
    let is_owner = |w: &[Token<'_>]| w[0].is("owner") && w[1].is("to");
    t.get(t.windows(2).rposition(is_owner)? + 2)
}

/// What follows `TO` outside of parentheses; nothing if there is no `TO`.
fn policy_roles<'a, 'b>(t: &'b [Token<'a>]) -> &'b [Token<'a>] {
    let to = depths(t).find(|(i, depth)| *depth == 0 && t[*i].is("to"));
    to.map_or(&[], |(i, _)| &t[i + 1..])
}

/// Each token with its depth of parentheses.
fn depths<'a>(t: &'a [Token<'_>]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut depth = 0usize;
    t.iter().enumerate().map(move |(i, t)| {
        match t.kind {
            TokenKind::Symbol(b'(') => depth += 1,
            TokenKind::Symbol(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        (i, depth)
    })
}

/// `GRANT … TO a, b GRANTED BY c`, `REVOKE … FROM a`, `ALTER DEFAULT PRIVILEGES FOR ROLE d …`.
fn privileges(t: &[Token<'_>], found: &mut Vec<RoleRef>) {
    list(owners_of_defaults(t), found);
    list(grantees(t), found);
    if let Some(by) = t
        .windows(2)
        .position(|w| w[0].is("granted") && w[1].is("by"))
    {
        push(t.get(by + 2), found);
    }
}

/// What follows `FOR ROLE`.
fn owners_of_defaults<'a, 'b>(t: &'b [Token<'a>]) -> &'b [Token<'a>] {
    let is_for = |w: &[Token<'_>]| w[0].is("for") && (w[1].is("role") || w[1].is("user"));
    let by = t.windows(2).position(is_for);
    by.map_or(&[], |by| &t[by + 2..])
}

/// What follows the last `TO` or `FROM` outside of parentheses.
fn grantees<'a, 'b>(t: &'b [Token<'a>]) -> &'b [Token<'a>] {
    let is_before =
        |(i, depth): &(usize, usize)| *depth == 0 && (t[*i].is("to") || t[*i].is("from"));
    let by = depths(t).filter(is_before).last();
    by.map_or(&[], |(i, _)| &t[i + 1..])
}

fn list(t: &[Token<'_>], found: &mut Vec<RoleRef>) {
    let mut rest = t;
    loop {
        if rest.first().is_some_and(|w| w.is("group")) {
            rest = &rest[1..];
        }
        push(rest.first(), found);
        match rest.get(1) {
            Some(comma) if comma.is_symbol(b',') => rest = &rest[2..],
            _ => return,
        }
    }
}

fn push(token: Option<&Token<'_>>, found: &mut Vec<RoleRef>) {
    let Some(t) = token else { return };
    let role = t.name().or_else(|| t.string());
    let is_word = t.kind == TokenKind::Word;
    if let Some(role) = role.filter(|r| !is_word || !NO_ROLES.contains(&r.as_str())) {
        found.push(RoleRef {
            at: t.at,
            len: t.text.len(),
            role,
        });
    }
}

/// The statement with each role replaced by what `map` returns.
pub(super) fn renamed(sql: &str, map: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut out = sql.to_owned();
    let mut changed = false;
    // From the end, so that earlier positions stay valid.
    let mut all = mentions(sql);
    all.sort_by_key(|m| std::cmp::Reverse(m.at));
    for m in all {
        if let Some(to) = map(&m.role) {
            out.replace_range(m.at..m.at + m.len, &ident(&to));
            changed = true;
        }
    }
    changed.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(sql: &str) -> Vec<String> {
        mentions(sql).into_iter().map(|m| m.role).collect()
    }

    #[test]
    fn roles_are_found_in_every_kind_of_statement() {
        for (sql, wanted) in [
            (
                "GRANT SELECT ON TABLE s.t TO a, \"B c\" WITH GRANT OPTION;",
                vec!["a", "B c"],
            ),
            (
                "GRANT ALL ON FUNCTION f(a integer, t text) TO PUBLIC;",
                vec![],
            ),
            (
                "GRANT ALL ON SCHEMA x TO GROUP g GRANTED BY h;",
                vec!["g", "h"],
            ),
            ("REVOKE ALL ON TABLE \"to\" FROM x;", vec!["x"]),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE d IN SCHEMA s GRANT SELECT ON TABLES TO e;",
                vec!["d", "e"],
            ),
            ("ALTER TABLE s.owner OWNER TO \"O\"\"x\";", vec!["O\"x"]),
            (
                "CREATE POLICY p ON t FOR SELECT TO a, b USING ((x = 'to'));",
                vec!["a", "b"],
            ),
            ("CREATE POLICY p ON t USING (c IN (SELECT 1));", vec![]),
            (
                "CREATE USER MAPPING FOR u SERVER s OPTIONS (password 'x');",
                vec!["u"],
            ),
            ("SET SESSION AUTHORIZATION 'x y';", vec!["x y"]),
            ("CREATE TABLE t (a int);", vec![]),
        ] {
            assert_eq!(roles(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn roles_are_removed_from_lists() {
        use Shortened::{Nothing, To, Unchanged};
        let to = |sql: &str| To(sql.to_owned());
        for (sql, wanted) in [
            (
                "GRANT ALL ON TABLE x.x TO a, x, PUBLIC WITH GRANT OPTION;",
                to("GRANT ALL ON TABLE x.x TO a, PUBLIC WITH GRANT OPTION;"),
            ),
            ("GRANT ALL ON TABLE x.x TO \"x\";", Nothing),
            ("REVOKE ALL ON SCHEMA x FROM x;", Nothing),
            ("REVOKE ALL ON SCHEMA x FROM PUBLIC;", Unchanged),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA s GRANT SELECT ON TABLES TO x, y;",
                to("ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA s GRANT SELECT ON TABLES TO y;"),
            ),
            (
                "CREATE POLICY p ON s.t TO x, a USING ((b = 'x'));",
                to("CREATE POLICY p ON s.t TO a USING ((b = 'x'));"),
            ),
            ("CREATE POLICY p ON s.t TO x USING (true);", Nothing),
            ("CREATE POLICY p ON s.x USING (true);", Unchanged),
        ] {
            assert_eq!(without_listed(sql, |role| role == "x"), wanted, "{sql}");
        }
        let defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE d, \"E\" GRANT SELECT ON TABLES TO f;";
        assert_eq!(roles_of_defaults(defaults), ["d", "E"]);
        assert!(roles_of_defaults("GRANT SELECT ON TABLE t TO a;").is_empty());
    }

    #[test]
    fn roles_are_replaced_in_place() {
        let map = |r: &str| (r == "a").then(|| "new \"a\"".to_owned());
        let sql = "GRANT SELECT(a) ON TABLE a TO a, b GRANTED BY a;";
        let wanted =
            "GRANT SELECT(a) ON TABLE a TO \"new \"\"a\"\"\", b GRANTED BY \"new \"\"a\"\"\";";
        assert_eq!(renamed(sql, map).unwrap(), wanted);
        assert_eq!(renamed("SELECT 1;", map), None);
    }
}
