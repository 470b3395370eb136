//! A sentence about the verdict of a report.

use super::{BackupContents, Verdict, VerificationReport};
use crate::policy::Depth;

impl VerificationReport {
    /// A sentence about the verdict that claims no more than the reached depth.
    pub fn verdict_sentence(&self) -> &'static str {
        if let (true, Some(part)) = (self.is_proof(), self.part()) {
            return sentence_of_part(part);
        }
        match (self.verdict, self.depth) {
            (Verdict::Failed, _) => "Failed: this backup cannot be relied on",
            (Verdict::Inconclusive, _) => "Inconclusive: nothing is proven",
            (Verdict::Verified, None) => "Nothing was checked",
            (Verdict::Verified, Some(Depth::Object)) => {
                "The object matches its size and checksum in the store; it was neither opened nor restored"
            }
            (Verdict::Verified, Some(Depth::Archive)) => {
                "The archive can be read to the end; it was not restored"
            }
            (Verdict::Verified, Some(Depth::Restore)) if self.depth_requested == Depth::Data => {
                "Verified: this backup was restored; not all of the restored rows could be compared with it"
            }
            (Verdict::Verified, Some(Depth::Restore)) => {
                "Verified: this backup was restored; the restored rows were not compared"
            }
            (Verdict::Verified, Some(Depth::Data)) => {
                "Verified: this backup was restored, and the restored data matches it"
            }
        }
    }
}

/// About a backup that was verified and is not whole.
fn sentence_of_part(part: BackupContents) -> &'static str {
    match part {
        BackupContents::SchemaOnly => {
            "Verified: the definitions in this backup were restored; it has no rows, and replaces no backup that has them"
        }
        _ => {
            "Verified: this backup was restored; it lacks tables or their data, and replaces no backup that has them"
        }
    }
}
