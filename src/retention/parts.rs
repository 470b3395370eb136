//! Retention of backups that hold only a part of a database. Pure.

use super::{Decision, RetentionCandidate, RetentionRules, decide};
use crate::proof::BackupContents;

/// Decides about all backups of a set, given newest first, each with what it holds if it is known to hold only a part of a
/// database. A part makes no whole backup dispensable, neither as a proven one nor as one of the newest; it is itself kept
/// and deleted like one that was found bad, unless it has rows that no newer proven backup has.
pub fn decide_with_parts(
    backups: Vec<(RetentionCandidate, Option<BackupContents>)>,
    now: jiff::Timestamp,
    rules: RetentionRules,
) -> Vec<Decision> {
    let is_whole = |(_, part): &&(RetentionCandidate, Option<BackupContents>)| part.is_none();
    let whole = backups.iter().filter(is_whole).map(|(c, _)| c.clone());
    let mut of_whole = decide(whole.collect(), now, rules).into_iter();
    let parts: Vec<(bool, Option<BackupContents>)> = backups
        .iter()
        .map(|(c, part)| (c.is_proven(), *part))
        .collect();
    let all = backups.into_iter().map(|(c, part)| RetentionCandidate {
        proven_since: c.proven_since.filter(|_| part.is_none()),
        ..c
    });
    let all = decide(all.collect(), now, rules);
    let decided = all.into_iter().zip(parts);
    let decided = decided.filter_map(|(decision, (proven, part))| match part {
        // Older parts may be kept for the time that begins with its proof.
        None => {
            let own = of_whole.next();
            own.map(|own| if own.delete { decision } else { own })
        }
        Some(part) => Some(of_part(decision, proven, part)),
    });
    decided.collect()
}

/// The decision about a part: whether it was proven, and why that does not matter.
fn of_part(decision: Decision, proven: bool, part: BackupContents) -> Decision {
    let why = decision.why.trim_end_matches(", and never proven");
    Decision {
        proven,
        why: format!("{why}; it {}, and replaces no whole backup", part.phrase()),
        ..decision
    }
}
