//! Digests of the objects that make up one backup: a directory dump, or a split file.

use sha2::{Digest, Sha256};

/// An object of a backup that has several, and what is known of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupMember {
    /// Its name in the folder of the backup.
    pub name: String,
    pub size: u64,
    /// Base64 of the big-endian bytes.
    pub crc32c: Option<String>,
    /// In hexadecimal.
    pub sha256: Option<String>,
}

/// The objects of a directory dump, or the pieces of a split file, in digests that show whether one was added, removed,
/// renamed or changed. Each digest is the SHA-256, in hexadecimal, of a line for every object, in the order of their names:
/// `NAME NUL SIZE NUL CHECKSUM LF`, where NUL and LF are single bytes and SIZE is a decimal number.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct MembersProof {
    /// Number of objects.
    pub count: u64,
    /// Over names and sizes: CHECKSUM is empty.
    pub listing: String,
    /// With the CRC32C of each object as Cloud Storage writes it; absent unless all are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    /// With the SHA-256 of each object in hexadecimal; absent unless all were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl MembersProof {
    pub fn of(members: impl IntoIterator<Item = BackupMember>) -> Self {
        let mut members: Vec<BackupMember> = members.into_iter().collect();
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        MembersProof {
            count: members.len() as u64,
            listing: digest(&members, |_| Some("")).unwrap_or_default(),
            crc32c: digest(&members, |m| m.crc32c.as_deref()),
            sha256: digest(&members, |m| m.sha256.as_deref()),
        }
    }

    /// Whether both are of the same bytes. `None` if names and sizes are the same, and no checksum is known of both.
    pub fn has_same_bytes(&self, other: &Self) -> Option<bool> {
        if self.listing != other.listing {
            return Some(false);
        }
        let same = |a: &Option<String>, b: &Option<String>| Some(a.as_ref()? == b.as_ref()?);
        same(&self.sha256, &other.sha256).or_else(|| same(&self.crc32c, &other.crc32c))
    }
}

/// `None` if a checksum is not known.
fn digest(
    members: &[BackupMember],
    checksum: impl Fn(&BackupMember) -> Option<&str>,
) -> Option<String> {
    let mut lines = Sha256::new();
    for member in members {
        let checksum = checksum(member)?;
        lines.update(format!("{}\0{}\0{checksum}\n", member.name, member.size));
    }
    let digest = lines.finalize();
    Some(digest.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u64, checksum: Option<&str>) -> BackupMember {
        BackupMember {
            name: name.into(),
            size,
            crc32c: checksum.map(str::to_owned),
            sha256: checksum.map(str::to_owned),
        }
    }

    /// An auditor computes the same: `printf '1.dat\0005\000aa\ntoc.dat\0009\000bb\n' | sha256sum`.
    #[test]
    fn a_digest_is_of_one_line_for_every_object() {
        let all = [
            member("toc.dat", 9, Some("bb")),
            member("1.dat", 5, Some("aa")),
        ];
        let proof = MembersProof::of(all);
        let of = |text: &str| {
            let digest = Sha256::digest(text);
            digest
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        assert_eq!((proof.count, &proof.crc32c), (2, &proof.sha256));
        assert_eq!(proof.listing, of("1.dat\x005\0\ntoc.dat\x009\0\n"));
        let with_checksums = of("1.dat\x005\0aa\ntoc.dat\x009\0bb\n");
        assert_eq!(proof.sha256, Some(with_checksums));
    }

    #[test]
    fn every_change_of_an_object_shows() {
        let toc = || member("toc.dat", 9, Some("bb"));
        let proof = |one: BackupMember| MembersProof::of([one, toc()]);
        let then = proof(member("1.dat", 5, Some("aa")));
        for (now, same) in [
            (proof(member("1.dat", 5, Some("aa"))), Some(true)),
            (proof(member("1.dat", 5, Some("ab"))), Some(false)),
            (proof(member("1.dat", 6, Some("aa"))), Some(false)),
            (proof(member("2.dat", 5, Some("aa"))), Some(false)),
            (MembersProof::of([toc()]), Some(false)),
            // The store knows no checksum of one of them.
            (proof(member("1.dat", 5, None)), None),
            (proof(member("1.dat", 6, None)), Some(false)),
        ] {
            assert_eq!(then.has_same_bytes(&now), same, "{now:?}");
            assert_eq!(now.has_same_bytes(&then), same);
        }
        // The checksums that both know decide.
        let by_store = MembersProof {
            sha256: None,
            ..then.clone()
        };
        assert_eq!(then.has_same_bytes(&by_store), Some(true));
    }
}
