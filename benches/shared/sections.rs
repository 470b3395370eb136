//! Figures of one bench in a page that has those of others, too.

use std::path::Path;

/// Writes the figures of a bench between its own marks, `<!-- figures of NAME -->` and `<!-- end of NAME -->`, unless the scale
/// is below 1.
pub fn renew_section(page: &str, name: &str, scale: f64, figures: &str) {
    if scale < 1.0 {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&page).expect("the page");
    let marks = [
        format!("<!-- figures of {name} -->\n"),
        format!("<!-- end of {name} -->\n"),
    ];
    let [begin, end] = [0, 1].map(|i| text.find(&marks[i]).expect("the page's marks"));
    let text = format!(
        "{}{}\n{}",
        &text[..begin + marks[0].len()],
        figures.trim_end(),
        &text[end..]
    );
    std::fs::write(page, text).expect("the page");
}
