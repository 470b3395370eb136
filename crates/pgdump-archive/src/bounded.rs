//! Turns text from outside (servers, stores, archives, requests) into one short line without control
//! characters: logs, records, events and pages do not grow with it, and it cannot control a terminal.

/// Most bytes of a text.
pub const MAX_TEXT: usize = 2048;

/// Whether a character could mislead a terminal or a reader: control characters, and those that reverse the
/// direction of what follows or break the line.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn breaks_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// `text` as one line of at most `max` bytes: line breaks become spaces, other control characters are
/// escaped, and a truncated text says how much is missing.
pub fn line_of(text: &str, max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max));
    let mut after_break = false;
    for (at, c) in text.char_indices() {
        let escaped = is_unsafe(c).then(|| c.escape_default().to_string());
        let chunk = match escaped {
            _ if breaks_line(c) && after_break => String::new(),
            _ if breaks_line(c) => " ".to_owned(),
            Some(escaped) => escaped,
            None => c.to_string(),
        };
        after_break = breaks_line(c);
        if line.len() + chunk.len() > max {
            return truncate_noting_rest(line, max, text.len() - at);
        }
        line.push_str(&chunk);
    }
    line
}

fn truncate_noting_rest(mut line: String, max: usize, cut: usize) -> String {
    let rest = format!("… ({cut} more bytes)");
    let keep = max.saturating_sub(rest.len());
    while line.len() > keep {
        line.pop();
    }
    line + &rest
}

/// [`line_of`] with the usual limit.
pub fn one_line(text: &str) -> String {
    line_of(text, MAX_TEXT)
}

/// At most `max` lines of a list; if there were more, the last line has their number. Idempotent.
pub fn bound_list(list: &mut Vec<String>, max: usize) {
    if list.len() > max {
        let kept = max.saturating_sub(1);
        let more = list.len() - kept;
        list.truncate(kept);
        list.push(format!("and {more} more"));
    }
    list.iter_mut().for_each(|text| *text = one_line(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(
            one_line("permission denied for table \"ä\""),
            "permission denied for table \"ä\""
        );
        assert_eq!(one_line("a\r\n\tb"), "a b");
        assert_eq!(
            one_line("\u{1b}]0;x\u{7}\0\u{9b}1m\u{202e}"),
            "\\u{1b}]0;x\\u{7}\\u{0}\\u{9b}1m\\u{202e}"
        );
        for c in ["x", "ä", "\u{1b}", "𝄞"] {
            let line = one_line(&c.repeat(100_000));
            assert!(
                line.len() <= MAX_TEXT && line.contains("more bytes"),
                "{line}"
            );
            assert_eq!(one_line(&line), line);
            assert!(!line.chars().any(is_unsafe));
        }
        assert_eq!(one_line(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }

    #[test]
    fn a_truncated_list_says_how_much_is_missing() {
        let mut list: Vec<String> = (0..5).map(|i| format!("{i}\n")).collect();
        bound_list(&mut list, 3);
        assert_eq!(list, ["0 ", "1 ", "and 3 more"]);
        bound_list(&mut list, 3);
        assert_eq!(list, ["0 ", "1 ", "and 3 more"]);
    }
}
