//! Distinguishes SQL text for PostgreSQL from everything else by its first bytes.

use super::end_marks::{CLUSTER_HEAD, HEAD as DUMP_HEAD};
use super::lexer::{Dialect, Token, TokenKind, first_tokens};
use super::{DumpId, TocEntry, TocSection};

/// Words that follow the first word of a statement, but not that word in prose.
const FOLLOWING: [(&str, &str); 30] = [
    (
        "alter",
        " table database schema role user group sequence view materialized index type domain function \
        procedure routine aggregate operator extension event default foreign server publication subscription \
        trigger rule policy large language collation conversion statistics system tablespace text access user ",
    ),
    (
        "create",
        " table database schema role user group sequence view materialized index type domain function \
        procedure routine aggregate operator extension event foreign server publication subscription trigger \
        rule policy language collation conversion statistics tablespace text access or unique temp temporary \
        unlogged global local recursive constraint trusted procedural cast transform default ",
    ),
    (
        "drop",
        " table database schema role user group sequence view materialized index type domain function \
        procedure routine aggregate operator extension event foreign server publication subscription trigger \
        rule policy language collation conversion statistics tablespace text access owned cast transform ",
    ),
    ("comment", " on "),
    ("security", " label "),
    ("insert", " into "),
    ("delete", " from "),
    ("merge", " into "),
    ("refresh", " materialized "),
    ("reassign", " owned "),
    ("import", " foreign "),
    (
        "begin",
        " ; work transaction isolation read deferrable not ",
    ),
    ("start", " transaction "),
    ("commit", " ; work transaction "),
    ("end", " ; work transaction "),
    ("do", " language "),
    ("discard", " all plans sequences temporary temp "),
    ("reset", " all session role "),
    ("vacuum", " ; full analyze verbose freeze ( "),
    ("analyze", " ; verbose ( "),
    ("checkpoint", " ; "),
    ("prepare", " transaction "),
    ("listen", ""),
    ("lock", " table "),
    ("truncate", " table only "),
    ("grant", ""),
    ("revoke", ""),
    ("copy", " binary "),
    ("reindex", " table index schema database system ( "),
    ("cluster", " verbose "),
];

/// Whether these are the first bytes of SQL text. `whole`: they are the whole file.
pub(super) fn is_sql(head: &[u8], whole: bool) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if is_of_pg_dump(head) {
        return true;
    }
    if head
        .iter()
        .any(|b| matches!(*b, 0..=8 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f))
    {
        return false;
    }
    let (words, text_ended) = first_statement(head);
    let lossy = String::from_utf8_lossy(words);
    let lower = String::from_utf8_lossy(&head[..head.len().min(2000)]).to_lowercase();
    if [
        "mysql dump",
        "mariadb dump",
        "/*!4",
        "/*m!",
        "phpmyadmin",
        "go\r\n",
    ]
    .iter()
    .any(|m| lower.contains(m))
    {
        return false;
    }
    let t = first_tokens(&lossy, Dialect::default(), 8);
    match t.first() {
        // Nothing but comments so far.
        None => text_ended && !whole && !head.is_empty(),
        Some(first) => begins_statement(first, &t),
    }
}

/// Whether the comment that `pg_dump` or `pg_dumpall` begins with stands before every statement, or
/// behind lines that a program wrote to its standard error.
pub(super) fn is_of_pg_dump(head: &[u8]) -> bool {
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let before_statements = lines.by_ref().take_while(|l| {
        l.is_empty()
            || l.starts_with(b"--")
            || l.starts_with(b"\\")
            || program_of_message(l).is_some()
    });
    before_statements
        .into_iter()
        .any(|l| l == DUMP_HEAD.as_bytes() || l == CLUSTER_HEAD.as_bytes())
}

/// The text after comments and `psql` commands, and whether there is none.
fn first_statement(head: &[u8]) -> (&[u8], bool) {
    let mut rest = head;
    loop {
        rest = rest.trim_ascii_start();
        let line_end = memchr::memchr(b'\n', rest);
        let is_command = rest.len() > 1 && rest[0] == b'\\' && rest[1].is_ascii_alphabetic();
        if rest.starts_with(b"--") || is_command {
            match line_end {
                Some(n) => rest = &rest[n..],
                None => return (b"", true),
            }
        } else if rest.starts_with(b"/*") && !rest.starts_with(b"/*!") {
            match memchr::memmem::find(rest, b"*/") {
                Some(n) => rest = &rest[n + 2..],
                None => return (b"", true),
            }
        } else {
            return (rest, rest.is_empty());
        }
    }
}

fn begins_statement(first: &Token<'_>, t: &[Token<'_>]) -> bool {
    if first.kind != TokenKind::Word {
        return false;
    }
    let first = first.text.to_lowercase();
    let second = t.get(1).map(|w| w.text.to_lowercase());
    let second = second.as_deref().unwrap_or(";");
    let third = |texts: &[&str]| {
        t.get(2)
            .is_some_and(|w| texts.iter().any(|x| w.text.eq_ignore_ascii_case(x)))
    };
    let is_name = |i: usize| t.get(i).and_then(Token::name).is_some();
    // Neither a CSV column list nor a key of a mapping.
    if matches!(second, "," | "=") || (second == ":" && first != "select") {
        return false;
    }
    match first.as_str() {
        "set" => {
            third(&["=", "to"])
                || t.windows(2)
                    .take(4)
                    .any(|w| w[0].is_symbol(b'.') && w[1].name().is_some())
                || matches!(
                    second,
                    "session" | "local" | "role" | "transaction" | "constraints" | "time" | "names"
                )
        }
        "select" | "with" | "values" | "call" | "table" => t.len() > 1,
        "update" => is_name(1) && t.iter().any(|w| w.is("set")),
        "do" => t
            .get(1)
            .is_some_and(|w| w.kind == TokenKind::StringConstant || w.is("language")),
        "grant" | "revoke" => t.len() > 2,
        "copy" | "truncate" | "lock" | "reset" | "analyze" | "vacuum" | "cluster" | "listen" => {
            is_name(1) || follows(&first, second)
        }
        _ => FOLLOWING.iter().any(|(word, _)| *word == first) && follows(&first, second),
    }
}

fn follows(first: &str, second: &str) -> bool {
    let next = FOLLOWING
        .iter()
        .find(|(word, _)| *word == first)
        .map_or("", |(_, next)| next);
    next.split_whitespace().any(|w| w == second)
}

/// The program that wrote a line of text as a message: `pg_dump` for `pg_dump: warning: …`.
pub(super) fn program_of_message(line: &[u8]) -> Option<&str> {
    let name = line
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || b"_-./".contains(b)))?;
    let says = line[name..].starts_with(b": ") && line[0].is_ascii_alphabetic() | (line[0] == b'/');
    let bare = std::str::from_utf8(&line[..name]).ok()?;
    (says && name <= 80).then(|| bare.rsplit('/').next().unwrap_or(bare))
}

/// The entry that a comment of `pg_dump` names before its statements.
pub(super) fn entry_of_comment(line: &str) -> Option<TocEntry> {
    let (is_data, rest) = match (
        line.strip_prefix("-- Name: "),
        line.strip_prefix("-- Data for Name: "),
    ) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return None,
    };
    // A name may contain anything, so the fields are searched from the end.
    let (rest, _) = rest.split_once("; Tablespace: ").unwrap_or((rest, ""));
    let (rest, owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (tag, desc) = rest.rsplit_once("; Type: ")?;
    let mut entry = TocEntry::bare(DumpId::NONE, desc, tag);
    entry.namespace = (schema != "-").then(|| schema.to_owned());
    if owner != "-" {
        owner.clone_into(&mut entry.owner);
    }
    if is_data {
        (entry.section, entry.has_data) = (TocSection::Data, true);
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_is_distinguished_from_prose_and_other_databases() {
        for sql in [
            "CREATE TABLE u(id int PRIMARY KEY);\n",
            "-- by hand\n\ncreate or replace function f() returns int as $$ select 1 $$;",
            "/* x */ SET statement_timeout = 0;",
            "SET session_replication_role = replica;",
            "\\set ON_ERROR_STOP on\nBEGIN;",
            "INSERT INTO u VALUES (1);",
            "insert into \"U\" values (1)",
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "\u{feff}BEGIN;",
            "COPY t (a) FROM stdin;\n",
            "ALTER TABLE t ADD c int;",
            "pg_dump: warning: x\n--\n-- PostgreSQL database dump\n--\n",
            "DO $$ BEGIN END $$;",
            "SET SESSION AUTHORIZATION 'x';",
            "TRUNCATE t;",
            "GRANT SELECT ON t TO u;",
            "CREATE EXTENSION hstore;",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x;",
            "set \"my\".x = 1;",
        ] {
            assert!(is_sql(sql.as_bytes(), true), "{sql}");
        }
        for other in [
            "",
            "\n\n",
            "hello",
            "-- nothing\n",
            "Create something nice for the team.",
            "Set of notes about the release",
            "Update: the server is down",
            "Do not open",
            "Drop me a line",
            "Comment: none",
            "Begin with the basics",
            "End of file",
            "select,count\n1,2\n",
            "set=1\n",
            "id,name\n1,x\n",
            "{\"select\": 1}",
            "<html>",
            "-- MySQL dump 10.13\nDROP TABLE IF EXISTS `t`;\n",
            "-- x\n/*!40101 SET NAMES utf8 */;\nCREATE TABLE x (a int);",
            "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;",
            "USE [master]\nGO\n",
            "SET ANSI_NULLS ON\r\nGO\r\n",
            "CREATE\0TABLE",
            "; Archive created at\n",
        ] {
            assert!(!is_sql(other.as_bytes(), true), "{other}");
        }
        // A license comment that is longer than the bytes examined.
        assert!(is_sql("-- c\n".repeat(2000).as_bytes(), false));
    }

    #[test]
    fn messages_of_programs_are_not_statements() {
        assert_eq!(program_of_message(b"pg_dump: warning: x"), Some("pg_dump"));
        assert_eq!(
            program_of_message(b"/usr/bin/pg_dump: error: x"),
            Some("pg_dump")
        );
        assert_eq!(program_of_message(b"WARNING: x"), Some("WARNING"));
        for sql in ["SELECT a::text", "SET x = 1", "x:y", "", ": x"] {
            assert_eq!(program_of_message(sql.as_bytes()), None, "{sql}");
        }
    }
}
