//! `selftest`: tests the verification itself. It breaks a good backup in every known way and checks
//! verdict, reason and blame of each. Each case runs several times, in random order, to find verdicts that
//! depend on order or timing.

use pgdump_archive::Crc32c;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::exit::{CommandError, CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use crate::app::App;
use crate::backup::encode_crc32c;
use crate::config::{Config, EvidencePlace, Location};
use crate::error::{Blame, FailureReason as R, report};
use crate::job::{BackupRef, VerifyJob};
use crate::manager::JobOutcome;
use crate::metrics::RestoreMetricsManager;
use crate::policy::{Depth, Trigger};
use crate::proof::Verdict;

/// Dumps of a small database with a bit of everything, in two formats, by pg_dump 15.
const GOOD_DUMP: &[u8] = include_bytes!("../../tests/fixtures/v15.custom.dump");
const GOOD_TEXT: &str = include_str!("../../tests/fixtures/v15.plain.sql");
/// The beginning of the version of a server whose major version is that of the dumps.
const SAME_MAJOR: &str = "15.";

/// The checks file of the self-test. Its sets are names of cases.
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

/// The verdict that a case must get and, unless verified, its reason and blame.
type ExpectedVerdict = (Verdict, Option<(R, Blame)>);

/// How often each case runs, unless the command is told otherwise.
const ROUNDS: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct SelftestArgs {
    /// Seed of the random order, as printed by an earlier run, to repeat that order [default: random]
    #[arg(long)]
    seed: Option<u64>,

    /// How often each case runs; verdicts that depend on order or timing are found by several runs
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u8).range(1..=9))]
    rounds: u8,
}

struct SelftestCase {
    name: &'static str,
    bytes: Vec<u8>,
    /// CRC32C to expect of the object.
    crc32c: Option<String>,
    wanted: ExpectedVerdict,
    /// The verdict on a server of another major version than the dump's, where that may be the cause.
    wanted_elsewhere: Option<ExpectedVerdict>,
}

impl SelftestCase {
    /// The verdict that it must get on the server that verified it.
    fn expected(&self, run: &JobOutcome) -> ExpectedVerdict {
        let server = run.proof.as_ref().and_then(|p| p.server.as_ref());
        let is_elsewhere = server.is_some_and(|s| !s.version.starts_with(SAME_MAJOR));
        let elsewhere = self.wanted_elsewhere.filter(|_| is_elsewhere);
        elsewhere.unwrap_or(self.wanted)
    }
}

/// Result of one case.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Answer")]
pub(super) struct CaseResult {
    case: &'static str,
    wanted: String,
    /// The distinct verdicts of all runs.
    found: String,
    right: bool,
    /// Whether all runs had the same verdict.
    steady: bool,
    /// Number of runs.
    runs: usize,
    message: String,
    /// Seed that repeats the order of the cases.
    seed: u64,
}

const VERIFIED: ExpectedVerdict = (Verdict::Verified, None);

fn failed(reason: R) -> ExpectedVerdict {
    (Verdict::Failed, Some((reason, Blame::Backup)))
}

fn inconclusive(reason: R, blame: Blame) -> ExpectedVerdict {
    (Verdict::Inconclusive, Some((reason, blame)))
}

/// The good dump as SQL text, with `new` inserted before the first `mark`.
fn before(mark: &str, new: &str) -> Vec<u8> {
    GOOD_TEXT
        .replacen(mark, &format!("{new}\n{mark}"), 1)
        .into_bytes()
}

/// The good dump as SQL text, with the first `old` replaced.
fn instead(old: &str, new: &str) -> Vec<u8> {
    GOOD_TEXT.replacen(old, new, 1).into_bytes()
}

/// The good dump as SQL text, with a trigger on a table that is loaded afterwards.
fn with_trigger(body: &str) -> Vec<u8> {
    let sql = format!(
        "CREATE FUNCTION s.meddle() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {body} END $f$;\n\
         CREATE TRIGGER meddle BEFORE INSERT ON s.child FOR EACH ROW EXECUTE FUNCTION s.meddle();\n"
    );
    before("COPY s.child ", &sql)
}

/// The good dump as SQL text; row n (from 1) of `table` appears `copies(n)` times.
fn rows_of(table: &str, copies: impl Fn(usize) -> usize) -> Vec<u8> {
    let (mut out, mut inside) = (String::new(), None);
    for line in GOOD_TEXT.split_inclusive('\n') {
        inside = match inside {
            Some(_) if line == "\\.\n" => None,
            Some(n) => Some(n + 1),
            None => line.starts_with(&format!("COPY {table} ")).then_some(0),
        };
        let times = inside.filter(|n| *n > 0).map_or(1, &copies);
        (0..times).for_each(|_| out.push_str(line));
    }
    out.into_bytes()
}

/// The good dump as SQL text, without the rows of `schema.table` and their announcement, as `pg_dump
/// --exclude-table-data` writes it.
fn without_rows(schema: &str, table: &str) -> Vec<u8> {
    let announced = format!("-- Data for Name: {table}; ");
    let (mut out, mut inside) = (String::new(), false);
    for line in GOOD_TEXT.split_inclusive('\n') {
        inside |= line.starts_with(&format!("COPY {schema}.{table} "));
        if !inside && !line.starts_with(&announced) {
            out.push_str(line);
        }
        inside &= line != "\\.\n";
    }
    out.into_bytes()
}

/// The good archive with one bit flipped at byte `at`.
fn flipped(at: usize) -> Vec<u8> {
    let mut bytes = GOOD_DUMP.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

fn encrypted() -> Result<Vec<u8>, CommandError> {
    use std::io::Write;
    let other = |e: &dyn std::fmt::Display| CommandError::Other(e.to_string());
    let recipient = age::x25519::Identity::generate().to_public();
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient));
    let mut out = Vec::new();
    let mut writer = encryptor.map_err(|e| other(&e))?.wrap_output(&mut out)?;
    writer.write_all(GOOD_DUMP)?;
    writer.finish()?;
    Ok(out)
}

fn cases() -> Result<Vec<SelftestCase>, CommandError> {
    let newer = {
        let mut bytes = GOOD_DUMP.to_vec();
        bytes[6] = 99;
        bytes
    };
    let len = GOOD_DUMP.len();
    let case = |name, bytes, wanted| SelftestCase {
        name,
        bytes,
        crc32c: None,
        wanted,
        wanted_elsewhere: None,
    };
    let owners = "ALTER TABLE s.child OWNER TO selftest_owner;\nGRANT SELECT ON TABLE s.child TO selftest_reader;\n";
    let set_back = (
        "setval('s.parent_id_seq', 120, true)",
        "setval('s.parent_id_seq', 5, true)",
    );
    let good_crc32c = Some(encode_crc32c(Crc32c::of(GOOD_DUMP)));
    use R::{
        ArchiveCorrupt, ArchiveUnsupported, ChecksumMismatch, DataRejected, ExtensionMissing,
        RestoreError, Timeout, VerificationFailed, VersionIncompatible,
    };
    Ok(vec![
        case("good archive", GOOD_DUMP.to_vec(), VERIFIED),
        case("good text", GOOD_TEXT.into(), VERIFIED),
        case("missing role", before("COPY s.child ", owners), VERIFIED),
        case("sequence behind", instead(set_back.0, set_back.1), VERIFIED),
        case(
            "cut archive",
            GOOD_DUMP[..len - 300].to_vec(),
            failed(ArchiveCorrupt),
        ),
        case(
            "cut text",
            GOOD_TEXT.as_bytes()[..GOOD_TEXT.len() * 3 / 5].to_vec(),
            failed(ArchiveCorrupt),
        ),
        case(
            "flipped before the upload",
            flipped(len - 700),
            failed(ArchiveCorrupt),
        ),
        SelftestCase {
            crc32c: good_crc32c,
            ..case(
                "flipped after the upload",
                flipped(len - 700),
                failed(ChecksumMismatch),
            )
        },
        case(
            "something behind",
            [GOOD_DUMP, b"more"].concat(),
            failed(ArchiveCorrupt),
        ),
        case(
            "no backup",
            b"<html>503 Service Unavailable</html>".to_vec(),
            failed(ArchiveUnsupported),
        ),
        case("empty", vec![], failed(ArchiveCorrupt)),
        case(
            "newer archive version",
            newer,
            inconclusive(ArchiveUnsupported, Blame::Infrastructure),
        ),
        case(
            "wrong key",
            encrypted()?,
            inconclusive(ArchiveUnsupported, Blame::Infrastructure),
        ),
        case(
            "missing extension",
            before(
                "CREATE SCHEMA s;",
                "CREATE EXTENSION selftest_missing WITH SCHEMA public;",
            ),
            inconclusive(ExtensionMissing, Blame::Target),
        ),
        SelftestCase {
            // Another version might have such a function.
            wanted_elsewhere: Some(inconclusive(VersionIncompatible, Blame::Target)),
            ..case(
                "missing function",
                before(
                    "COPY s.child ",
                    "ALTER TABLE s.child ADD CHECK (s.selftest_missing(id));",
                ),
                failed(RestoreError),
            )
        },
        case(
            "row twice",
            rows_of("s.parent", |n| if n == 1 { 2 } else { 1 }),
            failed(DataRejected),
        ),
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
        case("shrunk", GOOD_TEXT.into(), VERIFIED),
        case(
            "shrunk",
            rows_of("s.child", |n| usize::from(n % 4 == 0)),
            failed(VerificationFailed),
        ),
        case("rows left out", GOOD_TEXT.into(), VERIFIED),
        case(
            "rows left out",
            without_rows("s", "child"),
            failed(VerificationFailed),
        ),
        case("stale", GOOD_TEXT.into(), failed(VerificationFailed)),
        case("canary", GOOD_TEXT.into(), failed(VerificationFailed)),
        case("wrong answer", GOOD_TEXT.into(), failed(VerificationFailed)),
        case(
            "no answer",
            GOOD_TEXT.into(),
            inconclusive(Timeout, Blame::Infrastructure),
        ),
    ])
}

/// A separate configuration: a folder as the bucket, and a backup set for each case.
fn config_in(config: &Config, folder: &Path, names: &[&str]) -> Config {
    let mut config = config.clone();
    config.bucket = Location::Folder(folder.to_owned());
    config.policy = crate::policy::Policy::default();
    let identity = age::x25519::Identity::generate().to_string();
    config.age_identity = Some(secrecy::SecretString::from({
        use age::secrecy::ExposeSecret;
        identity.expose_secret().to_owned()
    }));
    let set = |name: &&str| crate::config::BackupSet {
        name: (*name).to_owned(),
        prefix: format!("{name}/"),
    };
    let v = &mut config.verify;
    v.sets = names.iter().map(set).collect();
    v.checks = Some(crate::config::Document {
        path: "the checks of the self-test".to_owned(),
        text: CHECKS.to_owned(),
    });
    (v.depth, v.evidence, v.bisect) = (Depth::Data, EvidencePlace::BesideBackup, 0);
    (v.prefix, v.suffixes) = (String::new(), vec![]);
    (v.signing_key, v.trusted_keys) = (None, None);
    config
}

/// A folder that is removed on drop.
struct ScratchFolder(PathBuf);

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) async fn run(config: Config, args: SelftestArgs, output: OutputFormat) -> CommandResult {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    if output == OutputFormat::Text {
        let times = match args.rounds {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        out!("running each case {times}, in random order (--seed {seed})");
    }
    let answers = answers(&config, seed, args.rounds, |answer| {
        if output == OutputFormat::Text {
            let mark = if answer.right { "ok    " } else { "WRONG " };
            out!("{mark} {:<26} {}", answer.case, answer.found);
            if !answer.right {
                out!(
                    "       expected: {}; message: {}",
                    answer.wanted,
                    answer.message
                );
            }
            if !answer.steady {
                out!("       the verdict differs between runs");
            }
        }
    })
    .await?;
    let wrong = answers.iter().filter(|a| !a.right).count();
    match output {
        OutputFormat::Json => {
            print_json(&answers)?;
        }
        OutputFormat::Text => out!(
            "{} of {} cases have the expected verdict",
            answers.len() - wrong,
            answers.len()
        ),
    }
    Ok(if wrong == 0 { Exit::Ok } else { Exit::Failed })
}

/// Runs the self-test in a worker, again after each pause of `every`. Never returns.
pub(super) async fn keep_testing(
    config: &Config,
    metrics: &RestoreMetricsManager,
    every: Duration,
) {
    loop {
        // Failures of two dozen deliberately broken backups do not belong in the log.
        let seed = fastrand::u64(..);
        let answers = answers(config, seed, ROUNDS, |_| {})
            .with_subscriber(NoSubscriber::default())
            .await;
        let wrong = match &answers {
            Ok(answers) => answers
                .iter()
                .filter(|a| !a.right)
                .map(|a| a.case)
                .collect(),
            Err(e) => {
                tracing::error!(error = report(e), "failed to run the self-test");
                vec!["all"]
            }
        };
        metrics.record_selftest(wrong.is_empty());
        if wrong.is_empty() {
            tracing::info!("the self-test of the verification passed");
        } else {
            tracing::error!(
                cases = wrong.join(", "),
                seed,
                "the self-test of the verification failed"
            );
        }
        tokio::time::sleep(every).await;
    }
}

/// A folder as the bucket, and the application that verifies its backups.
struct SelftestRound {
    app: App,
    scratch: ScratchFolder,
}

impl SelftestRound {
    fn new(config: &Config, names: &[&str]) -> Result<Self, CommandError> {
        let folder =
            std::env::temp_dir().join(format!("pgrestored-selftest-{}", uuid::Uuid::new_v4()));
        let app = App::new(config_in(config, &folder, names))?;
        Ok(SelftestRound {
            app,
            scratch: ScratchFolder(folder),
        })
    }

    async fn run_case(
        &self,
        number: usize,
        case: &SelftestCase,
    ) -> Result<JobOutcome, CommandError> {
        // Names like those of one database's backups on consecutive days.
        let name = format!("{}/{}.backup", case.name, 20_260_000 + number);
        let path = self.scratch.0.join(&name);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.scratch.0))?;
        std::fs::write(&path, &case.bytes)?;
        let backup = BackupRef::Named { place: None, name };
        let job = VerifyJob {
            crc32c: case.crc32c.clone(),
            ..VerifyJob::new(format!("selftest:{number}"), backup, Trigger::SelfTest)
        };
        Ok(self
            .app
            .manager
            .verify_backup(&job, Arc::default(), CancellationToken::new())
            .await)
    }
}

/// Each case in each round, in random order. Cases of one name are successive backups and stay together.
fn shuffled(cases: &[SelftestCase], seed: u64, rounds: u8) -> Vec<(usize, std::ops::Range<usize>)> {
    let starts = (0..cases.len()).filter(|i| *i == 0 || cases[*i].name != cases[*i - 1].name);
    let mut all = Vec::new();
    for start in starts {
        let together = cases[start..]
            .iter()
            .take_while(|c| c.name == cases[start].name)
            .count();
        let rounds = 0..usize::from(rounds);
        all.extend(rounds.map(|round| (round, start..start + together)));
    }
    fastrand::Rng::with_seed(seed).shuffle(&mut all);
    all
}

async fn answers(
    config: &Config,
    seed: u64,
    rounds: u8,
    mut on_result: impl FnMut(&CaseResult),
) -> Result<Vec<CaseResult>, CommandError> {
    let cases = cases()?;
    let mut names: Vec<&str> = cases.iter().map(|c| c.name).collect();
    names.dedup();
    let places = (0..rounds)
        .map(|_| SelftestRound::new(config, &names))
        .collect::<Result<Vec<_>, _>>()?;
    let mut found: Vec<Vec<JobOutcome>> = cases.iter().map(|_| vec![]).collect();
    let mut answers: Vec<Option<CaseResult>> = cases.iter().map(|_| None).collect();
    for (round, together) in shuffled(&cases, seed, rounds) {
        for i in together {
            found[i].push(places[round].run_case(i, &cases[i]).await?);
            if found[i].len() == places.len() {
                let answer = compare(&cases[i], &std::mem::take(&mut found[i]), seed);
                on_result(&answer);
                answers[i] = Some(answer);
            }
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

fn compare(case: &SelftestCase, runs: &[JobOutcome], seed: u64) -> CaseResult {
    let text = |(verdict, why): &ExpectedVerdict| match why {
        None => verdict.as_str().to_owned(),
        Some((reason, blame)) => {
            format!("{}: {reason}, blame {}", verdict.as_str(), blame.as_str())
        }
    };
    let found = |f: &JobOutcome| -> ExpectedVerdict {
        let error = f.result.error.as_ref();
        (
            f.result.verdict.unwrap_or(Verdict::Inconclusive),
            error.map(|e| (e.reason, e.blame)),
        )
    };
    let mut distinct: Vec<String> = runs.iter().map(|f| text(&found(f))).collect();
    distinct.sort();
    distinct.dedup();
    let wrong = runs
        .iter()
        .find(|f| found(f) != case.expected(f))
        .or(runs.first());
    CaseResult {
        case: case.name,
        wanted: text(&wrong.map_or(case.wanted, |f| case.expected(f))),
        right: runs.iter().all(|f| found(f) == case.expected(f)),
        steady: distinct.len() == 1,
        found: distinct.join(" / "),
        runs: runs.len(),
        message: wrong
            .and_then(|f| f.result.error.as_ref())
            .map(|e| e.message.clone())
            .unwrap_or_default(),
        seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RestoreResult;

    fn finished(verdict: Verdict) -> JobOutcome {
        let mut result = RestoreResult::new(
            "r",
            (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH),
        );
        result.verdict = Some(verdict);
        JobOutcome {
            result,
            failure: None,
            repeated: false,
            is_final: true,
            counted: None,
            is_denied_alone: false,
            proof: None,
        }
    }

    #[test]
    fn a_case_whose_verdict_differs_between_runs_is_wrong() {
        let case = SelftestCase {
            name: "x",
            bytes: vec![],
            crc32c: None,
            wanted: VERIFIED,
            wanted_elsewhere: None,
        };
        let of = |verdicts: &[Verdict]| {
            let runs: Vec<JobOutcome> = verdicts.iter().map(|v| finished(*v)).collect();
            let a = compare(&case, &runs, 7);
            (a.right, a.steady, a.found)
        };
        use Verdict::{Failed, Verified};
        assert_eq!(of(&[Verified; 3]), (true, true, "verified".into()));
        assert_eq!(of(&[Verified]), (true, true, "verified".into()));
        assert_eq!(
            of(&[Verified, Failed, Verified]),
            (false, false, "failed / verified".into())
        );
        assert_eq!(of(&[Failed; 3]), (false, true, "failed".into()));
    }

    #[test]
    fn every_case_runs_in_every_round_in_an_order_given_by_the_seed() {
        let cases = cases().unwrap();
        assert_ne!(shuffled(&cases, 1, ROUNDS), shuffled(&cases, 2, ROUNDS));
        for rounds in [1, ROUNDS] {
            let order = shuffled(&cases, 1, rounds);
            assert_eq!(order, shuffled(&cases, 1, rounds));
            let mut all: Vec<(usize, usize)> = order
                .iter()
                .flat_map(|(round, cases)| cases.clone().map(|c| (*round, c)))
                .collect();
            all.sort_unstable();
            let wanted: Vec<_> = (0..usize::from(rounds))
                .flat_map(|r| (0..cases.len()).map(move |c| (r, c)))
                .collect();
            assert_eq!(all, wanted, "{rounds} rounds");
        }
    }
}
