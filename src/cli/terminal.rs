//! All output goes through this module. Names, labels and messages come from outside; their control
//! characters are escaped, so they can neither add lines nor send escape sequences to a terminal.

use std::borrow::Cow;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use indicatif::ProgressBar;
use parking_lot::Mutex;

use crate::error::is_unsafe;

/// The progress bar on standard error, while there is one.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Whether a JSON document was printed: a command prints one.
static HAS_DOCUMENT: AtomicBool = AtomicBool::new(false);

/// Prints an escaped line to standard output. A closed pipe (`| head`) is ignored.
macro_rules! out {
    ($($arg:tt)*) => { $crate::cli::terminal::print(&format!($($arg)*)) };
}

/// Prints an escaped line to standard error.
macro_rules! err {
    ($($arg:tt)*) => { $crate::cli::terminal::complain(&format!($($arg)*)) };
}

/// The escape sequences of `style::paint`, and their reset.
const COLOURS: [&str; 5] = ["\x1b[32m", "\x1b[1;31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"];

/// `text` with its control characters escaped, except our own colours.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return text.into();
    }
    let (mut line, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let colour = COLOURS.iter().find(|colour| rest.starts_with(**colour));
        let length = match colour {
            Some(colour) => {
                line.push_str(colour);
                colour.len()
            }
            None if is_unsafe(c) => {
                line.extend(c.escape_default());
                c.len_utf8()
            }
            None => {
                line.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    line.into()
}

/// A JSON document in which the characters that serde_json does not escape, but terminals interpret, are
/// escaped.
pub(super) fn escaped_json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && c != '\n') {
        return text.into();
    }
    let mut document = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && c != '\n' {
            document.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            document.push(c)
        }
    }
    document.into()
}

/// Says which progress bar is on standard error; it is cleared while a line is written.
pub(super) fn set_bar(bar: Option<ProgressBar>) {
    *BAR.lock() = bar;
}

/// Writes without a progress bar in the way.
fn aside(write: impl FnOnce()) {
    let bar = BAR.lock();
    match bar.as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

pub(super) fn print(line: &str) {
    aside(|| {
        let _ = writeln!(std::io::stdout(), "{}", escaped(line));
    });
}

pub(super) fn complain(line: &str) {
    aside(|| {
        let _ = writeln!(std::io::stderr(), "{}", escaped(line));
    });
}

/// Writes a line of the log, which is escaped already.
pub(super) fn write_log(line: &[u8]) {
    aside(|| {
        let _ = std::io::stderr().write_all(line);
    });
}

/// Prints a text of our own as it is. A closed pipe (`| head`) is ignored.
pub(super) fn print_bytes(text: &[u8]) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text);
}

/// Standard output for bytes that are no text of ours, such as an archive.
pub(super) fn raw_output() -> Box<dyn Write + Send> {
    Box::new(std::io::stdout())
}

pub(super) fn has_printed_document() -> bool {
    HAS_DOCUMENT.load(Relaxed)
}

pub(super) fn print_document(json: &str) {
    HAS_DOCUMENT.store(true, Relaxed);
    let _ = writeln!(std::io::stdout(), "{}", escaped_json(json));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_from_outside_are_escaped() {
        assert_eq!(escaped("Zürich 🐘 'x'"), "Zürich 🐘 'x'");
        assert_eq!(escaped("\x1b[32mok\x1b[0m"), "\x1b[32mok\x1b[0m");
        for (text, wanted) in [
            ("a\x1b]0;owned\x07b", "a\\u{1b}]0;owned\\u{7}b"),
            ("x\nok: verified", "x\\nok: verified"),
            ("\x1b[8mhidden\x1b[0m", "\\u{1b}[8mhidden\x1b[0m"),
            (
                "\u{9b}2J\u{202e}\r\x08\x7f",
                "\\u{9b}2J\\u{202e}\\r\\u{8}\\u{7f}",
            ),
        ] {
            assert_eq!(escaped(text), wanted);
        }
        let value = serde_json::json!({ "a": "\u{9b}2J\u{202e}\x1b\n\u{7f}é" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = escaped_json(&text).into_owned();
        assert!(!shown.chars().any(|c| is_unsafe(c) && c != '\n'), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }
}
