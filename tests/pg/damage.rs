//! Truncated and bit-flipped archives: the target is never replaced, and the error is always clear.

use std::sync::Arc;

use pgdump_archive::Crc32c;
use pgrestored::backup::encode_crc32c;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};
use tokio_util::sync::CancellationToken;

use crate::formats::{DumpFormat, Wrapping, wrap};
use crate::support::{Cluster, is_full_campaign, job, sample};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 400) i;
    CREATE VIEW vw AS SELECT count(*) FROM t; CREATE TABLE u (t_id int REFERENCES t); INSERT INTO u SELECT i FROM generate_series(1, 100) i;
    SELECT lo_from_bytea(4000, decode(repeat('ab', 5000), 'hex')); COMMENT ON TABLE t IS 'x'";

fn with_crc(mut job: RestoreJob, crc: u32) -> RestoreJob {
    job.crc32c = Some(encode_crc32c(Crc32c(crc)));
    job
}

/// Positions over the whole file, with more of them in the first bytes.
fn positions(len: usize) -> Vec<usize> {
    let count = if is_full_campaign() { 400 } else { 4 };
    let dense = sample(0..60.min(len), 30);
    dense.chain((0..count).map(|i| i * len / count)).collect()
}

async fn sweep(args: &[&str]) {
    let c = Cluster::start();
    c.create("src", SOURCE);
    c.create("app", "CREATE TABLE precious (a int)");
    let good = std::fs::read(c.dump_to_file("src", args)).unwrap();
    for flips in [false, true] {
        damaged(&c, &good, flips).await;
    }
    let tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(c.psql("app", tables), "precious");
    assert_eq!(c.leftovers(), Vec::<String>::new());
    // Nor are bytes behind the end ignored.
    let file = c.scratch("longer.dump");
    std::fs::write(&file, [good.as_slice(), b"more"].concat()).unwrap();
    let done = c.try_restore(&file, "longer", OnExisting::Fail).await;
    assert_eq!(done.failure, Some(R::ArchiveCorrupt));
}

/// Restores an archive that is truncated, or in which a bit is flipped, at each of some positions.
async fn damaged(c: &Cluster, good: &[u8], flips: bool) {
    let crc = crc32c::crc32c(good);
    let app = c.app(&[("restore-jobs", "2")]);
    let file = c.scratch("damaged.dump");
    let mut reasons = std::collections::BTreeMap::new();
    for at in positions(good.len()) {
        let mut bad = good.to_vec();
        if flips {
            bad[at] ^= 1 << (at % 8);
        } else {
            bad.truncate(at);
        }
        std::fs::write(&file, &bad).unwrap();
        // A flipped bit is found by the checksum at the latest; truncation is found without one.
        let job = job(&file, "app", OnExisting::Replace);
        let job = if flips { with_crc(job, crc) } else { job };
        let done = app
            .manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await;
        let error = done
            .result
            .error
            .unwrap_or_else(|| panic!("damage at {at} was not detected"));
        assert!(
            !error.message.is_empty() && !error.retryable,
            "{at}: {error:?}"
        );
        *reasons.entry(error.reason.as_str()).or_insert(0) += 1;
        if !flips {
            assert_eq!(error.reason, R::ArchiveCorrupt, "{at}: {error:?}");
        }
    }
    println!("flips={flips}: {reasons:?}");
}

const FORMATS: [DumpFormat; 5] = [
    DumpFormat::Custom,
    DumpFormat::CustomPiped,
    DumpFormat::Tar,
    DumpFormat::Plain,
    DumpFormat::DirectoryTar,
];

/// Objects as the store has them, with their checksum: whatever the damage, no restore gets as far as the swap. `make test`
/// cuts or flips each format in each wrapping, in turn.
#[tokio::test(flavor = "multi_thread")]
async fn every_format_in_every_wrapping() {
    let c = Cluster::start_with("-c fsync=off");
    c.create("src", SOURCE);
    c.create("app", "CREATE TABLE precious (a int)");
    let dumps = FORMATS.map(|format| std::fs::read(c.dump_as("src", format)).unwrap());
    for (w, wrapping) in [
        Wrapping::None,
        Wrapping::Gzip,
        Wrapping::Zstd,
        Wrapping::Lz4,
    ]
    .into_iter()
    .enumerate()
    {
        sweep_all(&c, &dumps, (w, wrapping)).await;
    }
    let tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(
        (c.psql("app", tables).as_str(), c.leftovers()),
        ("precious", vec![])
    );
}

async fn sweep_all(c: &Cluster, dumps: &[Vec<u8>], (w, wrapping): (usize, Wrapping)) {
    let seed = u64::from(std::process::id());
    fastrand::seed(seed);
    let app = c.app(&[("restore-jobs", "2")]);
    let count = if is_full_campaign() { 1000 } else { 1 };
    let file = c.scratch("damaged");
    let mut tally = std::collections::BTreeMap::new();
    for (f, (format, dump)) in FORMATS.into_iter().zip(dumps).enumerate() {
        let good = wrap(dump, wrapping);
        let crc = crc32c::crc32c(&good);
        for i in 0..2 * count {
            if i != (f + w) % 2 && !is_full_campaign() {
                continue;
            }
            let mut bad = good.clone();
            let at = fastrand::usize(..good.len());
            if i < count {
                bad.truncate(at)
            } else {
                bad[at] ^= 1 << fastrand::u8(..8)
            }
            std::fs::write(&file, &bad).unwrap();
            let job = with_crc(job(&file, "app", OnExisting::Replace), crc);
            let run = app
                .manager
                .run(&job, Arc::default(), CancellationToken::new());
            let done = tokio::time::timeout(std::time::Duration::from_secs(60), run).await;
            let what = format!("seed {seed}: {format:?} {wrapping:?} damage {i} at {at}");
            let done = done.unwrap_or_else(|_| panic!("{what}: the restore hangs"));
            let reason = done
                .failure
                .unwrap_or_else(|| panic!("{what}: not detected"));
            assert!(!done.result.error.unwrap().retryable, "{what}: {reason}");
            *tally.entry(reason.as_str()).or_insert(0) += 1;
        }
    }
    let kinds = if is_full_campaign() {
        format!("{count} cuts and {count} flips each")
    } else {
        "a cut or a flip each".to_owned()
    };
    eprintln!("CAMPAIGN damage {wrapping:?}: seed {seed}, 5 formats, {kinds}: {tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_flipped_gzip() {
    sweep(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_flipped_uncompressed() {
    sweep(&["-Z0"]).await;
}
