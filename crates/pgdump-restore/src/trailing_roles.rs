//! The end of SQL text, which has the privileges; it is examined before the text is read from its beginning. Pure.

use super::roles::mentions;
use pgdump_archive::{Dialect, DumpId, EntryKind, TocEntry, Token, statements, tokens};

/// Bytes examined at the end of the text.
pub const TAIL: u64 = 1 << 20;

const ENTRY: &[u8] = b"\n--\n-- Name: ";

/// Entries for the statements there that name roles. Everything before the last rows is ignored: the buffer may
/// begin inside rows, so a row could be mistaken for a statement.
pub fn roles_at_end(tail: &[u8]) -> Vec<TocEntry> {
    let rows_end = [b"\n\\.\n".as_slice(), b"\nINSERT INTO "].into_iter();
    let after_rows = rows_end
        .filter_map(|end| memchr::memmem::rfind(tail, end))
        .max()
        .unwrap_or_default();
    let Some(start) = memchr::memmem::find(&tail[after_rows..], ENTRY) else {
        return vec![];
    };
    let Ok(text) = std::str::from_utf8(&tail[after_rows + start..]) else {
        return vec![];
    };
    statements(text, Dialect::default())
        .into_iter()
        .filter_map(entry_of)
        .collect()
}

/// Kind of the entry that stands for `ALTER … OWNER TO`.
const OWNER: &str = "OWNER";

fn entry_of(sql: &str) -> Option<TocEntry> {
    let kind = entry_kind(&tokens(sql, Dialect::default()))?;
    let mut entry = TocEntry::bare(DumpId::NONE, kind, "");
    if entry.kind.as_str() == OWNER {
        entry.owner = mentions(sql).into_iter().next()?.role;
    }
    sql.clone_into(&mut entry.defn);
    Some(entry)
}

fn entry_kind(words: &[Token<'_>]) -> Option<EntryKind> {
    let word = |at: usize| words.get(at).and_then(Token::name).unwrap_or_default();
    let has = |a, b| words.windows(2).any(|w| w[0].is(a) && w[1].is(b));
    match (word(0).as_str(), word(1).as_str()) {
        _ if has("on", "database") => None,
        ("alter", "database") => None,
        ("grant" | "revoke", _) => Some(EntryKind::Acl),
        ("alter", "default") => Some(EntryKind::DefaultAcl),
        ("create", "policy") => Some(EntryKind::Policy),
        ("alter", _) if has("owner", "to") => Some(EntryKind::Other(OWNER.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_only_after_the_last_rows() {
        let tail = "x\n\n--\n-- Name: no; Type: ACL; Schema: public; Owner: a\n--\n\nGRANT SELECT ON TABLE public.row TO in_a_row;\n\\.\n\n\n\
            --\n-- Name: f(); Type: FUNCTION; Schema: public; Owner: maker\n--\n\nCREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$ GRANT x TO nobody; $$;\n\n\n\
            ALTER FUNCTION public.f() OWNER TO maker;\n\n\
            --\n-- Name: TABLE t; Type: ACL; Schema: public; Owner: a\n--\n\nGRANT SELECT ON TABLE public.t TO gone;\n\n\n\
            GRANT CONNECT ON DATABASE d TO visitor;\n--\n-- PostgreSQL database dump complete\n--\n";
        let found = roles_at_end(tail.as_bytes());
        let said: Vec<_> = found
            .iter()
            .map(|e| (e.kind.as_str(), e.owner.as_str()))
            .collect();
        assert_eq!(said, [("OWNER", "maker"), ("ACL", "")]);
        assert!(found[1].defn.contains("TO gone"));
        assert!(roles_at_end(b"GRANT SELECT ON TABLE public.t TO gone;").is_empty());
    }
}
