//! What recorded work belongs to. An attempt goes on with the work of an earlier one only if all of it is the same.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::destination::Destination;
use super::finish::FinishingSteps;
use super::job_context::JobContext;
use super::states::Prepared;
use crate::backup::{PinnedBackup, encode_crc32c};
use crate::config::Trust;
use crate::database::NotContinued;
use crate::job::RestoreJob;
use crate::store::StoredObject;
use pgdump_archive::{Archive, DumpId, TocEntry};

/// Version of this form.
const FORMAT: u32 = 1;

/// The oldest version of this program whose work this one continues.
const OLDEST_CONTINUED: (u64, u64, u64) = (0, 1, 0);

/// What work belongs to. Digests are SHA-256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pins {
    format: u32,
    /// The version that began it.
    program: String,
    request_id: String,
    /// The digest of the request.
    request: String,
    object: PinnedObject,
    /// Of a dump of a whole cluster, the database.
    database: Option<String>,
    /// What the archive says of each entry, and which of them are restored in which order.
    plan: String,
    /// Policy and selection.
    policy: String,
    mask: Option<PinnedMask>,
    trust: String,
    /// The role of `DB_RESTRICTED_USER` that loads. One that is made for the restore has the same name again.
    loader: Option<String>,
    /// The server's major version.
    server: u32,
    encoding: String,
    /// Name of the database while it is loaded.
    name: String,
    /// The SQL that finishes the restore, file by file.
    finish: Vec<String>,
}

/// The backup, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PinnedObject {
    uri: String,
    generation: String,
    size: u64,
    crc32c: Option<String>,
    /// Of a folder or of pieces: all of them.
    members: Option<String>,
}

/// The rules by which rows are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PinnedMask {
    digest: String,
    key_id: Option<String>,
}

impl Pins {
    /// What the work of this restore belongs to; `None` if its backup cannot be read again.
    pub(super) fn of(
        context: &JobContext<'_, RestoreJob>,
        (pinned, trust): (Option<&PinnedBackup>, Trust),
        prepared: &Prepared,
        destination: &impl Destination,
        finishing: &FinishingSteps,
    ) -> Option<Self> {
        let job = context.job;
        let mask = context.masking().map(|masking| PinnedMask {
            digest: masking.digest(),
            key_id: masking.key_id(),
        });
        let loader = destination.loader();
        Some(Pins {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            request_id: job.request_id.clone(),
            request: job.digest.clone(),
            object: PinnedObject::of(pinned?),
            database: job.database.clone(),
            plan: plan_of(prepared.archive(), prepared.planned()),
            policy: digest_of(&[
                format!("{:?}", prepared.policy()).as_bytes(),
                format!("{:?}", job.selection).as_bytes(),
            ]),
            mask,
            trust: format!("{trust:?}"),
            loader: loader.and_then(|l| l.configured_role()).map(str::to_owned),
            server: destination.session().version() / 10_000,
            encoding: prepared.encoding().to_owned(),
            name: destination.database().to_owned(),
            finish: finishing.digests(),
        })
    }

    /// The canonical form, in ASCII: the journal may have any encoding.
    pub(super) fn text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut ascii = String::with_capacity(json.len());
        for c in json.chars() {
            if c.is_ascii() {
                ascii.push(c);
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
        ascii
    }

    /// The first reason why work that was recorded with one text does not go on with the other; `None` if it does.
    pub(super) fn difference(recorded: &str, now: &str) -> Option<NotContinued> {
        let read = |text: &str| serde_json::from_str::<Pins>(text);
        match (read(recorded), read(now)) {
            (Ok(recorded), Ok(now)) => recorded.differs_from(&now),
            (Err(e), _) | (_, Err(e)) => Some(NotContinued::Unreadable(e.to_string())),
        }
    }

    fn differs_from(&self, now: &Pins) -> Option<NotContinued> {
        use NotContinued as N;
        let checks = [
            (
                self.format == now.format,
                N::OtherProgram(self.program.clone()),
            ),
            (
                version(&self.program).is_some_and(|v| v >= OLDEST_CONTINUED),
                N::OtherProgram(self.program.clone()),
            ),
            (
                (&self.request_id, &self.request) == (&now.request_id, &now.request),
                N::OtherRequest,
            ),
            (
                (&self.object, &self.database) == (&now.object, &now.database),
                N::OtherBackup,
            ),
            (
                (&self.policy, &self.trust, &self.finish) == (&now.policy, &now.trust, &now.finish),
                N::OtherPolicy,
            ),
            (self.mask == now.mask, N::OtherMask),
            (
                (self.server, &self.encoding, &self.name, &self.loader)
                    == (now.server, &now.encoding, &now.name, &now.loader),
                N::OtherServer,
            ),
            (self.plan == now.plan, N::OtherPlan),
        ];
        let other = checks.into_iter().find(|(is_same, _)| !is_same);
        other.map(|(_, why)| why)
    }
}

impl PinnedObject {
    fn of(backup: &PinnedBackup) -> Self {
        let object = &backup.object;
        PinnedObject {
            uri: backup.uri(),
            generation: object.generation.to_string(),
            size: object.size,
            crc32c: backup.expected_crc32c.map(encode_crc32c),
            members: (!backup.members.is_empty()).then(|| members_of(&backup.members)),
        }
    }
}

fn members_of(members: &[StoredObject]) -> String {
    let text = |m: &StoredObject| {
        let crc32c = m.crc32c.map(encode_crc32c).unwrap_or_default();
        format!("{} {} {} {crc32c}", m.name, m.generation, m.size)
    };
    let texts: Vec<String> = members.iter().map(text).collect();
    let parts: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    digest_of(&parts)
}

/// Of the archive's own entries, because how they are rewritten depends on what an earlier attempt has made, such as
/// roles. Of SQL text, those that its first statements create.
fn plan_of(archive: &Archive, planned: &[TocEntry]) -> String {
    let mut hash = Sha256::new();
    archive
        .entries()
        .iter()
        .for_each(|e| add_entry(&mut hash, e));
    // Otherwise all of the statements are run.
    if !archive.is_script() {
        let ids: Vec<DumpId> = planned.iter().map(|e| e.dump_id).collect();
        add(&mut hash, format!("{ids:?}").as_bytes());
    }
    hex(&hash.finalize())
}

fn add_entry(hash: &mut Sha256, entry: &TocEntry) {
    let texts = [
        entry.kind.as_str(),
        &entry.tag,
        entry.namespace.as_deref().unwrap_or("-"),
        &entry.owner,
        &entry.defn,
        &entry.copy_stmt,
    ];
    texts.iter().for_each(|text| add(hash, text.as_bytes()));
    let numbers = (entry.dump_id, entry.has_data, &entry.dependencies);
    add(hash, format!("{numbers:?}").as_bytes());
}

/// With its length, so that no two lists have the same bytes.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update(part.len().to_be_bytes());
    hash.update(part);
}

fn digest_of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| add(&mut hash, part));
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Major, minor and patch.
fn version(text: &str) -> Option<(u64, u64, u64)> {
    // Without what follows them, such as `-rc.1`.
    let end = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(text.len());
    let mut parts = text[..end].split('.').map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins() -> Pins {
        Pins {
            format: FORMAT,
            program: "0.1.0".into(),
            request_id: "r".into(),
            request: "digest".into(),
            object: PinnedObject {
                uri: "gs://b/ü".into(),
                generation: "7".into(),
                size: 5,
                crc32c: Some("AAAAAA==".into()),
                members: None,
            },
            database: None,
            plan: "plan".into(),
            policy: "policy".into(),
            mask: None,
            trust: "Full".into(),
            loader: None,
            server: 15,
            encoding: "UTF8".into(),
            name: "pgrestored_s_1".into(),
            finish: vec![],
        }
    }

    type Change = Box<dyn Fn(&mut Pins)>;

    fn difference(change: impl FnOnce(&mut Pins)) -> Option<NotContinued> {
        let mut recorded = pins();
        change(&mut recorded);
        Pins::difference(&recorded.text(), &pins().text())
    }

    #[test]
    fn work_goes_on_only_with_what_it_belongs_to() {
        use NotContinued as N;
        assert_eq!(difference(|_| {}), None);
        let mask = PinnedMask {
            digest: "d".into(),
            key_id: None,
        };
        let changes: [(Change, NotContinued); 18] = [
            (Box::new(|p| p.format = 0), N::OtherProgram("0.1.0".into())),
            (
                Box::new(|p| p.program = "0.0.9".into()),
                N::OtherProgram("0.0.9".into()),
            ),
            (
                Box::new(|p| p.program = "new".into()),
                N::OtherProgram("new".into()),
            ),
            (Box::new(|p| p.request_id = "s".into()), N::OtherRequest),
            (Box::new(|p| p.request = "other".into()), N::OtherRequest),
            (
                Box::new(|p| p.object.generation = "8".into()),
                N::OtherBackup,
            ),
            (Box::new(|p| p.object.size = 6), N::OtherBackup),
            (Box::new(|p| p.object.crc32c = None), N::OtherBackup),
            (
                Box::new(|p| p.object.uri = "gs://c/u".into()),
                N::OtherBackup,
            ),
            (Box::new(|p| p.database = Some("d".into())), N::OtherBackup),
            (Box::new(|p| p.policy = "other".into()), N::OtherPolicy),
            (Box::new(|p| p.trust = "Restricted".into()), N::OtherPolicy),
            (Box::new(|p| p.finish = vec!["f".into()]), N::OtherPolicy),
            (Box::new(move |p| p.mask = Some(mask.clone())), N::OtherMask),
            (Box::new(|p| p.server = 16), N::OtherServer),
            (Box::new(|p| p.name = "app".into()), N::OtherServer),
            (Box::new(|p| p.loader = Some("l".into())), N::OtherServer),
            (Box::new(|p| p.plan = "other".into()), N::OtherPlan),
        ];
        for (change, why) in changes {
            assert_eq!(difference(change), Some(why));
        }
    }

    #[test]
    fn a_newer_version_goes_on_with_the_work_of_an_older_one() {
        assert_eq!(difference(|p| p.program = "0.2.0".into()), None);
        assert_eq!(difference(|p| p.program = "0.1.1-rc.1".into()), None);
        for (text, parts) in [
            ("1.2.3", Some((1, 2, 3))),
            ("1.2.3+x", Some((1, 2, 3))),
            ("1.2", None),
            ("x", None),
        ] {
            assert_eq!(version(text), parts, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_continued() {
        let why = Pins::difference("{", &pins().text());
        assert!(matches!(why, Some(NotContinued::Unreadable(_))), "{why:?}");
    }

    #[test]
    fn the_text_is_ascii_and_always_the_same() {
        let text = pins().text();
        assert!(text.is_ascii() && text.contains("gs://b/\\u00fc"), "{text}");
        let again: Pins = serde_json::from_str(&text).unwrap();
        assert_eq!((again.text(), again), (text, pins()));
    }

    #[test]
    fn parts_of_a_digest_do_not_run_together() {
        assert_ne!(digest_of(&[b"a", b"bc"]), digest_of(&[b"ab", b"c"]));
    }
}
