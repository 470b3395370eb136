#![no_main]
//! Statements and tokens of any text: no panic, and no byte is lost.

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{Dialect, statements, tokens};

fuzz_target!(|data: (bool, &str)| {
    let dialect = Dialect { standard_strings: data.0, ..Dialect::default() };
    let cut = statements(data.1, dialect);
    let total: usize = cut.iter().map(|s| s.len()).sum();
    let blank = data.1.chars().filter(|c| c.is_whitespace()).map(char::len_utf8).sum::<usize>();
    assert!(total + blank >= data.1.len(), "something was lost");
    let mut end = 0;
    for t in tokens(data.1, dialect) {
        assert!(t.at >= end);
        end = t.at + t.text.len();
    }
});
