//! Recognizes a statement by its key words, and removes or replaces a part of it.

use pgdump_archive::Token;

/// Extensions that come with PostgreSQL: none of them provides a table access method.
const CONTRIB: &str = " adminpack amcheck autoinc bloom btree_gin btree_gist citext cube dblink dict_int dict_xsyn \
    earthdistance file_fdw fuzzystrmatch hstore hstore_plperl hstore_plpython3u insert_username intagg intarray isn \
    jsonb_plperl jsonb_plpython3u lo ltree moddatetime old_snapshot pageinspect pg_buffercache pg_freespacemap \
    pg_prewarm pg_stat_statements pg_surgery pg_trgm pg_visibility pg_walinspect pgcrypto pgrowlocks pgstattuple \
    plperl plperlu plpgsql plpython3u pltcl pltclu postgres_fdw refint seg sslinfo tablefunc tcn tsm_system_rows \
    tsm_system_time unaccent uuid-ossp xml2 ";

/// A column option that the server maintains itself.
pub(super) const VERSION_OF_COLUMN: &str = "pg_attver";

pub(super) fn is(t: &[Token<'_>], words: &[&str]) -> bool {
    words.len() <= t.len() && words.iter().zip(t).all(|(w, t)| t.is(w))
}

/// The name or key word at a position; empty if there is none.
pub(super) fn name(t: &[Token<'_>], at: usize) -> String {
    t.get(at).and_then(Token::name).unwrap_or_default()
}

pub(super) fn has_pair(t: &[Token<'_>], first: &str, second: &str) -> bool {
    t.windows(2).any(|w| w[0].is(first) && w[1].is(second))
}

pub(super) fn is_contrib(extension: &str) -> bool {
    CONTRIB.contains(&format!(" {extension} "))
}

/// `SELECT * FROM pg_catalog.pg_restore_relation_stats(…)`
pub(super) fn is_statistics(t: &[Token<'_>]) -> bool {
    is(t, &["select"])
        && t.get(5).is_some_and(|f| {
            matches!(
                f.text,
                "pg_restore_relation_stats"
                    | "pg_restore_attribute_stats"
                    | "pg_restore_extended_stats"
            )
        })
}

/// The first words of a statement, without any value.
pub(super) fn summary(t: &[Token<'_>]) -> String {
    let words = t
        .iter()
        .take(6)
        .filter(|t| t.name().is_some() || matches!(t.text, "." | "("));
    let text: Vec<_> = words.map(|t| t.text).collect();
    text.join(" ")
        .replace(" . ", ".")
        .trim_end_matches(" (")
        .to_owned()
}

/// `CREATE TYPE … AS RANGE (…, multirange_type_name = x)` without that option.
pub(super) fn without_multirange(t: &[Token<'_>], sql: &str) -> Option<String> {
    let i = t.iter().position(|w| w.is("multirange_type_name"))?;
    let end = t[i..]
        .iter()
        .position(|w| w.is_symbol(b',') || w.is_symbol(b')'))?
        + i;
    let comma = t[i - 1].is_symbol(b',');
    let (from, to) = if comma {
        (t[i - 1].at, t[end].at)
    } else if t[end].is_symbol(b',') {
        (t[i].at, t[end + 1].at)
    } else {
        return None;
    };
    Some(format!("{}{}", &sql[..from], &sql[to..]))
}

/// `ALTER TABLE … ALTER COLUMN … SET (…)` without one of the options: `Some(None)` if it is the only one.
#[allow(clippy::option_option, reason = "no match, nothing left, or the rest")]
pub(super) fn without_column_option(
    t: &[Token<'_>],
    sql: &str,
    option: &str,
) -> Option<Option<String>> {
    let (open, close) = column_options(t)?;
    let options = t[open + 1..close].split(|w| w.is_symbol(b','));
    let is_other = |o: &&[Token<'_>]| {
        o.first()
            .is_some_and(|w| w.name().as_deref() != Some(option))
    };
    let kept: Vec<&str> = options
        .clone()
        .filter(is_other)
        .map(|o| text_of(o, sql))
        .collect();
    match kept.len() {
        0 => Some(None),
        n if n == options.count() => None,
        _ => {
            let (before, after) = (&sql[..=t[open].at], &sql[t[close].at..]);
            Some(Some(format!("{before}{}{after}", kept.join(", "))))
        }
    }
}

/// The positions of the parentheses around a column's options.
fn column_options(t: &[Token<'_>]) -> Option<(usize, usize)> {
    let is_column = |w: &[Token<'_>]| w[0].is("alter") && w[1].is("column");
    let open = t.windows(2).position(is_column)? + 4;
    if !t.get(open - 1)?.is("set") || !t.get(open)?.is_symbol(b'(') {
        return None;
    }
    let close = t[open..].iter().position(|w| w.is_symbol(b')'))? + open;
    // A single action, as pg_dump writes it.
    let ends = t.get(close + 1).is_none_or(|w| w.is_symbol(b';'));
    ends.then_some((open, close))
}

fn text_of<'a>(t: &[Token<'_>], sql: &'a str) -> &'a str {
    match (t.first(), t.last()) {
        (Some(first), Some(last)) => &sql[first.at..last.at + last.text.len()],
        _ => "",
    }
}

/// A list of privileges without one of them.
pub(super) fn without_privilege(t: &[Token<'_>], sql: &str, privilege: &str) -> Option<String> {
    let on = t.iter().position(|w| w.is("on"))?;
    let i = t[..on].iter().position(|w| w.is(privilege))?;
    // With the preceding comma, or else the following one.
    let (from, to) = match (t[i - 1].is_symbol(b','), t[i + 1].is_symbol(b',')) {
        (true, _) => (t[i - 1].at, t[i + 1].at),
        (false, true) => (t[i].at, t[i + 2].at),
        (false, false) => return None,
    };
    let between = if t[i + 1].is_symbol(b',') { "" } else { " " };
    Some(format!("{}{between}{}", &sql[..from], &sql[to..]))
}

/// Replaces `anyelement` and `anyarray` by their compatible variants.
pub(super) fn compatible(t: &[Token<'_>], sql: &str) -> Option<String> {
    let mut out = sql.to_owned();
    let mut changed = false;
    for w in t.iter().rev() {
        let to = match () {
            () if w.is("anyelement") => "anycompatible",
            () if w.is("anyarray") => "anycompatiblearray",
            () => continue,
        };
        out.replace_range(w.at..w.at + w.text.len(), to);
        changed = true;
    }
    changed.then_some(out)
}
