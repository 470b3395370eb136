//! Advice about the target server's settings, for people.

use maud::{Markup, html};

use crate::event::Advice;
use crate::html::{TableCell, TableColumn, table};

/// One line for each piece of advice.
pub(super) fn lines(advice: &[Advice]) -> Vec<String> {
    let line = |a: &Advice| {
        format!(
            "{} = {}, better {}: {} [{}]",
            a.setting,
            a.value,
            a.suggested,
            a.reason,
            gain(a)
        )
    };
    advice.iter().map(line).collect()
}

/// What another value gains.
fn gain(advice: &Advice) -> String {
    match &advice.gain {
        None => "gain: not measured".to_owned(),
        Some(gain) => format!("gain: {:.0} % ({})", gain.share * 100.0, gain.source),
    }
}

/// The same as a table of a page.
pub(super) fn table_of(advice: &[Advice]) -> Markup {
    if advice.is_empty() {
        return html! {};
    }
    let columns = ["Setting", "Value", "Better", "Why", "Gain"].map(TableColumn::text);
    let rows = advice.iter().map(|a| {
        vec![
            TableCell::new(&a.setting),
            TableCell::new(&a.value),
            TableCell::new(&a.suggested),
            TableCell::new(&a.reason),
            TableCell::new(gain(a)),
        ]
        .into()
    });
    table(
        ("settings", "Settings of the target server"),
        &html! { p.soft { "They make restores slower. They are the server's, and pgrestored does not change them." } },
        &columns,
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MeasuredGain;

    #[test]
    fn a_gain_is_a_number_only_if_it_was_measured() {
        let mut advice = Advice {
            setting: "max_wal_size".into(),
            value: "1GB".into(),
            suggested: "16GB".into(),
            reason: "checkpoints".into(),
            gain: None,
        };
        let line = |a: &Advice| lines(std::slice::from_ref(a)).remove(0);
        assert_eq!(
            line(&advice),
            "max_wal_size = 1GB, better 16GB: checkpoints [gain: not measured]"
        );
        advice.gain = Some(MeasuredGain {
            share: 0.12,
            source: "events".into(),
        });
        assert!(line(&advice).ends_with("[gain: 12 % (events)]"));
    }
}
