//! `selftest`: the detector is tested like everything else. A good backup is broken in every way that
//! is known, and each has to get its own verdict, reason and blame.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::{CommandError, CommandResult, Exit, Output, print_json};
use crate::app::App;
use crate::backup::encode_crc32c;
use crate::config::{Config, EvidencePlace, Location};
use crate::error::{Blame, FailureReason as R, report};
use crate::job::{BackupRef, VerifyJob};
use crate::manager::Finished;
use crate::metrics::RestoreMetricsManager;
use crate::policy::{Depth, Trigger};
use crate::proof::Verdict;

/// A small database with a bit of everything, as pg_dump 15 writes it in two formats.
const GOOD_DUMP: &[u8] = include_bytes!("../../tests/fixtures/v15.custom.dump");
const GOOD_TEXT: &str = include_str!("../../tests/fixtures/v15.plain.sql");

/// What the checks file of the self-test asks of some of the broken ones.
const CHECKS: &str = "
sets:
  stale:
    freshness: [{table: s.parent, column: at, max_age: 1h}]
  canary:
    canaries:
      - name: first part
        sql: SELECT b FROM s.part WHERE a = 50
        sha256: 0000000000000000000000000000000000000000000000000000000000000000
  wrong answer:
    assertions: [{name: no children, sql: SELECT count(*) FROM s.child, expect: 0}]
  no answer:
    assertions: [{name: never ends, sql: SELECT pg_sleep(60)::text, rows: 1, timeout: 200ms}]
";

/// What a broken backup has to get.
type Wanted = (Verdict, Option<(R, Blame)>);

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// CRC32C that the object is said to have.
    crc32c: Option<String>,
    wanted: Wanted,
}

/// One line of the answer.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Answer {
    case: &'static str,
    wanted: String,
    found: String,
    right: bool,
    message: String,
}

const VERIFIED: Wanted = (Verdict::Verified, None);

fn failed(reason: R) -> Wanted {
    (Verdict::Failed, Some((reason, Blame::Backup)))
}

fn inconclusive(reason: R, blame: Blame) -> Wanted {
    (Verdict::Inconclusive, Some((reason, blame)))
}

/// The good text with `new` before the first `mark`.
fn before(mark: &str, new: &str) -> Vec<u8> {
    GOOD_TEXT.replacen(mark, &format!("{new}\n{mark}"), 1).into_bytes()
}

fn instead(old: &str, new: &str) -> Vec<u8> {
    GOOD_TEXT.replacen(old, new, 1).into_bytes()
}

/// A trigger on a table that is filled afterwards.
fn with_trigger(body: &str) -> Vec<u8> {
    let sql = format!(
        "CREATE FUNCTION s.meddle() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {body} END $f$;\n\
         CREATE TRIGGER meddle BEFORE INSERT ON s.child FOR EACH ROW EXECUTE FUNCTION s.meddle();\n"
    );
    before("COPY s.child ", &sql)
}

/// Some lines of a table's rows: those that `keep` takes, by their number.
fn rows_of(table: &str, keep: impl Fn(usize) -> usize) -> Vec<u8> {
    let (mut out, mut inside) = (String::new(), None);
    for line in GOOD_TEXT.split_inclusive('\n') {
        inside = match inside {
            Some(_) if line == "\\.\n" => None,
            Some(n) => Some(n + 1),
            None => line.starts_with(&format!("COPY {table} ")).then_some(0),
        };
        let copies = inside.filter(|n| *n > 0).map_or(1, &keep);
        (0..copies).for_each(|_| out.push_str(line));
    }
    out.into_bytes()
}

fn flipped(at: usize) -> Vec<u8> {
    let mut bytes = GOOD_DUMP.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

fn encrypted() -> Result<Vec<u8>, CommandError> {
    use std::io::Write;
    let other = |e: &dyn std::fmt::Display| CommandError::Other(e.to_string());
    let recipient = age::x25519::Identity::generate().to_public();
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient));
    let mut out = Vec::new();
    let mut writer = encryptor.map_err(|e| other(&e))?.wrap_output(&mut out)?;
    writer.write_all(GOOD_DUMP)?;
    writer.finish()?;
    Ok(out)
}

fn cases() -> Result<Vec<Case>, CommandError> {
    let newer = {
        let mut bytes = GOOD_DUMP.to_vec();
        bytes[6] = 99;
        bytes
    };
    let len = GOOD_DUMP.len();
    let case = |name, bytes, wanted| Case { name, bytes, crc32c: None, wanted };
    let owners =
        "ALTER TABLE s.child OWNER TO selftest_owner;\nGRANT SELECT ON TABLE s.child TO selftest_reader;\n";
    let set_back = ("setval('s.parent_id_seq', 120, true)", "setval('s.parent_id_seq', 5, true)");
    let good_crc32c = Some(encode_crc32c(crc32c::crc32c(GOOD_DUMP)));
    use R::{
        ArchiveCorrupt, ArchiveUnsupported, ChecksumMismatch, DataRejected, ExtensionMissing, RestoreError,
        Timeout, VerificationFailed,
    };
    Ok(vec![
        case("good archive", GOOD_DUMP.to_vec(), VERIFIED),
        case("good text", GOOD_TEXT.into(), VERIFIED),
        case("missing role", before("COPY s.child ", owners), VERIFIED),
        case("cut archive", GOOD_DUMP[..len - 300].to_vec(), failed(ArchiveCorrupt)),
        case("cut text", GOOD_TEXT.as_bytes()[..GOOD_TEXT.len() * 3 / 5].to_vec(), failed(ArchiveCorrupt)),
        case("flipped before the upload", flipped(len - 700), failed(ArchiveCorrupt)),
        Case {
            crc32c: good_crc32c,
            ..case("flipped after the upload", flipped(len - 700), failed(ChecksumMismatch))
        },
        case("something behind", [GOOD_DUMP, b"more"].concat(), failed(ArchiveCorrupt)),
        case("no backup", b"<html>503 Service Unavailable</html>".to_vec(), failed(ArchiveUnsupported)),
        case("empty", vec![], failed(ArchiveCorrupt)),
        case("newer archive version", newer, inconclusive(ArchiveUnsupported, Blame::Infrastructure)),
        case("wrong key", encrypted()?, inconclusive(ArchiveUnsupported, Blame::Infrastructure)),
        case(
            "missing extension",
            before("CREATE SCHEMA s;", "CREATE EXTENSION selftest_missing WITH SCHEMA public;"),
            inconclusive(ExtensionMissing, Blame::Target),
        ),
        case(
            "missing function",
            before("COPY s.child ", "ALTER TABLE s.child ADD CHECK (s.selftest_missing(id));"),
            failed(RestoreError),
        ),
        case("row twice", rows_of("s.parent", |n| if n == 1 { 2 } else { 1 }), failed(DataRejected)),
        case(
            "row swallowed",
            with_trigger("IF NEW.id = 200 THEN RETURN NULL; END IF; RETURN NEW;"),
            failed(VerificationFailed),
        ),
        case(
            "value changed",
            with_trigger("IF NEW.id = 7 THEN NEW.v := NEW.v + 0.01; END IF; RETURN NEW;"),
            failed(VerificationFailed),
        ),
        case("sequence behind", instead(set_back.0, set_back.1), failed(VerificationFailed)),
        case("shrunk", GOOD_TEXT.into(), VERIFIED),
        case("shrunk", rows_of("s.child", |n| usize::from(n % 4 == 0)), failed(VerificationFailed)),
        case("stale", GOOD_TEXT.into(), failed(VerificationFailed)),
        case("canary", GOOD_TEXT.into(), failed(VerificationFailed)),
        case("wrong answer", GOOD_TEXT.into(), failed(VerificationFailed)),
        case("no answer", GOOD_TEXT.into(), inconclusive(Timeout, Blame::Infrastructure)),
    ])
}

/// A configuration of its own: a folder as the bucket, a set for each case.
fn config_in(config: &Config, folder: &Path, names: &[&str]) -> Config {
    let mut config = config.clone();
    config.bucket = Location::Folder(folder.to_owned());
    config.policy = crate::policy::Policy::default();
    let identity = age::x25519::Identity::generate().to_string();
    config.age_identity = Some(secrecy::SecretString::from({
        use age::secrecy::ExposeSecret;
        identity.expose_secret().to_owned()
    }));
    let set = |name: &&str| crate::config::BackupSet { name: (*name).to_owned(), prefix: format!("{name}/") };
    let v = &mut config.verify;
    v.sets = names.iter().map(set).collect();
    v.checks = Some(CHECKS.to_owned());
    (v.depth, v.evidence, v.bisect) = (Depth::Data, EvidencePlace::BesideBackup, 0);
    (v.prefix, v.suffixes) = (String::new(), vec![]);
    config
}

/// A folder that goes with the self-test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn run(config: Config, output: Output) -> CommandResult {
    let answers = answers(&config, |answer| {
        if output == Output::Text {
            let mark = if answer.right { "ok    " } else { "WRONG " };
            out!("{mark} {:<26} {}", answer.case, answer.found);
            if !answer.right {
                out!("       wanted: {}; said: {}", answer.wanted, answer.message);
            }
        }
    })
    .await?;
    let wrong = answers.iter().filter(|a| !a.right).count();
    match output {
        Output::Json => {
            print_json(&answers)?;
        }
        Output::Text => out!("{} of {} verdicts are right", answers.len() - wrong, answers.len()),
    }
    Ok(if wrong == 0 { Exit::Ok } else { Exit::Failed })
}

/// Tests the verification of a worker again and again, as it runs there. Never ends.
pub(super) async fn keep_testing(config: &Config, metrics: &RestoreMetricsManager, every: Duration) {
    loop {
        // Two dozen broken backups are no news to whoever reads the log.
        let answers = answers(config, |_| {}).with_subscriber(NoSubscriber::default()).await;
        let wrong = match &answers {
            Ok(answers) => answers.iter().filter(|a| !a.right).map(|a| a.case).collect(),
            Err(e) => {
                tracing::error!(error = report(e), "the self-test could not be run");
                vec!["all"]
            }
        };
        metrics.record_selftest(wrong.is_empty());
        if wrong.is_empty() {
            tracing::info!("the self-test of the verification is passed");
        } else {
            tracing::error!(cases = wrong.join(", "), "the self-test of the verification has failed");
        }
        tokio::time::sleep(every).await;
    }
}

async fn answers(config: &Config, mut said: impl FnMut(&Answer)) -> Result<Vec<Answer>, CommandError> {
    let scratch = Scratch(std::env::temp_dir().join(format!("pgrestored-selftest-{}", uuid::Uuid::new_v4())));
    let cases = cases()?;
    let mut names: Vec<&str> = cases.iter().map(|c| c.name).collect();
    names.dedup();
    let app = App::new(config_in(config, &scratch.0, &names))?;
    let mut answers = Vec::new();
    for (i, case) in cases.into_iter().enumerate() {
        let name = format!("{}/{i}.backup", case.name);
        let path = scratch.0.join(&name);
        std::fs::create_dir_all(path.parent().unwrap_or(&scratch.0))?;
        std::fs::write(&path, &case.bytes)?;
        let backup = BackupRef::Named { place: None, name };
        let job = VerifyJob {
            crc32c: case.crc32c.clone(),
            ..VerifyJob::new(format!("selftest-{i}"), backup, Trigger::SelfTest)
        };
        let finished = app.manager.verify_backup(&job, Arc::default(), CancellationToken::new()).await;
        let answer = compare(&case, &finished);
        said(&answer);
        answers.push(answer);
    }
    Ok(answers)
}

fn compare(case: &Case, finished: &Finished) -> Answer {
    let text = |(verdict, why): &Wanted| match why {
        None => verdict.as_str().to_owned(),
        Some((reason, blame)) => {
            format!("{}: {reason}, blame {}", verdict.as_str(), format!("{blame:?}").to_lowercase())
        }
    };
    let error = finished.result.error.as_ref();
    let verdict = finished.result.verdict.unwrap_or(Verdict::Inconclusive);
    let found = (verdict, error.map(|e| (e.reason, e.blame)));
    Answer {
        case: case.name,
        wanted: text(&case.wanted),
        found: text(&found),
        right: found == case.wanted,
        message: error.map(|e| e.message.clone()).unwrap_or_default(),
    }
}
