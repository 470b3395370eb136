//! Colours for terminals; none if `NO_COLOR` is set or the output is not a terminal.

use std::io::IsTerminal;

fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() && crate::config::colours() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

pub(super) fn good(text: &str) -> String {
    paint("32", text)
}

pub(super) fn bad(text: &str) -> String {
    paint("1;31", text)
}

pub(super) fn warn(text: &str) -> String {
    paint("33", text)
}

pub(super) fn soft(text: &str) -> String {
    paint("2", text)
}
