//! How pages show a verdict.

use crate::proof::{Verdict, VerificationReport};

/// The CSS class of a verdict.
pub(crate) fn class_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Verified => "good",
        Verdict::Failed => "bad",
        Verdict::Inconclusive => "warn",
    }
}

/// The verdict and, unless a whole backup was restored, the depth that was reached or what it holds.
pub(crate) fn headline(r: &VerificationReport) -> String {
    if let (true, Some(part)) = (r.is_proof(), r.part()) {
        return format!("{}: {}", r.verdict.as_str(), part.label());
    }
    match (r.is_verified() && !r.is_proof(), r.depth) {
        (true, Some(depth)) => format!("verified: {} only", depth.as_str()),
        _ => r.verdict.as_str().to_owned(),
    }
}
