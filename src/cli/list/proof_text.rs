//! What a list says about the proof of a backup.

use crate::manager::BackupProof;
use crate::policy::Depth;
use crate::proof::Verdict;

/// Such as `verified (data) 2026-11-28`, or `verified (data), schema only 2026-11-28` of a part; of a dump of a whole
/// cluster, also how many of its databases that is said of.
pub(super) fn proof_text(p: &BackupProof) -> String {
    let depth = p.depth.filter(|_| p.verdict == Verdict::Verified);
    let depth = depth.map(|d| format!(" ({})", Depth::as_str(d)));
    let part = p.contents.filter(|c| c.is_part());
    let part = part.map(|c| format!(", {}", c.label()));
    let of_cluster = match p.databases.as_slice() {
        [] => String::new(),
        [only] => format!(", only database {}", only.database),
        all => {
            let same = all.iter().filter(|d| d.verdict == p.verdict).count();
            format!(", {same} of {} databases looked at", all.len())
        }
    };
    format!(
        "{}{}{} {}{}{of_cluster}",
        p.verdict.as_str(),
        depth.unwrap_or_default(),
        part.unwrap_or_default(),
        p.finished_at.strftime("%Y-%m-%d"),
        if p.is_signed { "" } else { " unsigned" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::ClusterDatabaseProof;
    use crate::proof::BackupContents;

    #[test]
    fn a_proof_is_named_with_its_depth_and_its_signature() {
        let mut proof = BackupProof {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            contents: None,
            is_signed: true,
            databases: vec![],
        };
        assert_eq!(proof_text(&proof), "verified (data) 1970-01-01");
        let of = |database: &str, verdict| ClusterDatabaseProof {
            database: database.to_owned(),
            verdict,
            depth: Some(Depth::Data),
            finished_at: jiff::Timestamp::UNIX_EPOCH,
        };
        proof.databases = vec![of("app", Verdict::Verified)];
        assert_eq!(
            proof_text(&proof),
            "verified (data) 1970-01-01, only database app"
        );
        proof.databases.push(of("shop", Verdict::Failed));
        proof.verdict = Verdict::Failed;
        assert_eq!(
            proof_text(&proof),
            "failed 1970-01-01, 1 of 2 databases looked at"
        );
        proof.databases.clear();
        proof.verdict = Verdict::Verified;
        proof.contents = Some(BackupContents::SchemaOnly);
        assert_eq!(
            proof_text(&proof),
            "verified (data), schema only 1970-01-01"
        );
        proof.contents = Some(BackupContents::Whole);
        (proof.verdict, proof.is_signed) = (Verdict::Failed, false);
        assert_eq!(proof_text(&proof), "failed 1970-01-01 unsigned");
    }
}
