//! Texts with references to other columns of the row, after their masking: `user-{id}@example.org`. `{{` and `}}` are braces.

/// A token of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateToken {
    Text(String),
    /// The name of a column.
    Column(String),
}

/// Reads a template.
///
/// # Errors
/// A brace is alone.
pub(crate) fn parse(text: &str) -> Result<Vec<TemplateToken>, String> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            literal.push_str(brace);
            rest = after;
            continue;
        }
        let (column, after) = (brace == "{")
            .then(|| after.split_once('}'))
            .flatten()
            .ok_or("template: a brace is alone; write {COLUMN}, or {{ and }} for braces")?;
        if !literal.is_empty() {
            tokens.push(TemplateToken::Text(std::mem::take(&mut literal)));
        }
        tokens.push(TemplateToken::Column(column.to_owned()));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        tokens.push(TemplateToken::Text(literal));
    }
    Ok(tokens)
}

/// The number of characters that the template writes in every row.
pub(crate) fn fixed_length(tokens: &[TemplateToken]) -> usize {
    tokens
        .iter()
        .map(|token| match token {
            TemplateToken::Text(text) => text.chars().count(),
            TemplateToken::Column(_) => 0,
        })
        .sum()
}

/// Whether only fixed text is before the token at this place, or only fixed text is behind it.
pub(crate) fn is_at_an_end(tokens: &[TemplateToken], at: usize) -> bool {
    is_fixed(&tokens[..at]) || is_fixed(&tokens[at + 1..])
}

/// Whether the text shows which part of it is the integer of the token at this place: it is at an end, and what is on its other
/// side cannot belong to it.
pub(crate) fn shows_integer(tokens: &[TemplateToken], at: usize) -> bool {
    let (before, after) = (&tokens[..at], &tokens[at + 1..]);
    let ends = || match after.first() {
        None => true,
        Some(TemplateToken::Text(text)) => !text.starts_with(|c: char| c.is_ascii_digit()),
        Some(TemplateToken::Column(_)) => false,
    };
    let begins = || match before.last() {
        None => true,
        Some(TemplateToken::Text(text)) => {
            !text.ends_with(|c: char| c.is_ascii_digit() || c == '-')
        }
        Some(TemplateToken::Column(_)) => false,
    };
    (is_fixed(before) && ends()) || (is_fixed(after) && begins())
}

fn is_fixed(tokens: &[TemplateToken]) -> bool {
    tokens.iter().all(|p| matches!(p, TemplateToken::Text(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_braces_are_read() {
        let text = |t: &str| TemplateToken::Text(t.to_owned());
        let column = |c: &str| TemplateToken::Column(c.to_owned());
        assert_eq!(
            parse("user-{id}@example.org").unwrap(),
            [text("user-"), column("id"), text("@example.org")]
        );
        assert_eq!(parse("{a}{b}").unwrap(), [column("a"), column("b")]);
        assert_eq!(parse("{{x}}").unwrap(), [text("{x}")]);
        assert_eq!(fixed_length(&parse("ü-{id}").unwrap()), 2);
        for wrong in ["{a", "a}", "{"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn integers_are_seen_at_an_end_beside_other_characters() {
        for (text, shows) in [
            ("{a}.{id}@example.org", true),
            ("{id}: {a}", true),
            ("x{id} {a}", true),
            ("{a}{id}", false),
            ("{id}{a}", false),
            ("{a}-{id}", false),
            ("{a}.1{id}", false),
            ("{id}0{a}", false),
            ("{a} {id} {b}", false),
        ] {
            let tokens = parse(text).unwrap();
            let is_id = |p: &TemplateToken| *p == TemplateToken::Column("id".to_owned());
            let at = tokens.iter().position(is_id).unwrap();
            assert_eq!(shows_integer(&tokens, at), shows, "{text}");
        }
    }
}
