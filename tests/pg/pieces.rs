//! Files whose names look like the pieces of one: what is named is what is read, whatever somebody puts beside it.

use std::io::Write;
use std::path::Path;

use pgrestored::config::Location;
use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::event::Verdict;
use pgrestored::job::{BackupRef, RestoreJob};
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::{Cluster, is_full_campaign, job};
use crate::verify::{SIGNED, VerificationSetup, verify};
use pgrestored::job::OnExisting;

const ROWS: &str = "CREATE TABLE t (a int, b text);
    INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 3000) g;";

/// What somebody wants to be run.
const EVIL: &str = "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE public.evil (a int);\n\n\
                    --\n-- PostgreSQL database dump complete\n--\n\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn letters(n: usize) -> String {
    let of = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
    format!("{}{}", of(n / 26), of(n))
}

/// The generation that a file has.
fn generation(path: &Path) -> i64 {
    let modified = path.metadata().unwrap().modified().unwrap();
    let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(age.as_nanos()).unwrap()
}

/// A restore of a backup in the bucket.
fn restore_of(
    b: &VerificationSetup,
    name: &str,
    generation: Option<i64>,
    target: &str,
) -> RestoreJob {
    RestoreJob {
        backup: BackupRef::Named {
            place: Some(Location::Folder(b.folder.path().to_owned())),
            name: name.to_owned(),
        },
        generation: generation.map(pgrestored::job::Generation),
        ..job(Path::new("/nowhere"), target, OnExisting::Fail)
    }
}

/// The tables of the restored database and the rows of `t`, or why it was not restored.
async fn restored(
    c: &Cluster,
    b: &VerificationSetup,
    (name, generation): (&str, Option<i64>),
) -> Result<(String, String), (R, String)> {
    let target = format!("r{}", uuid::Uuid::new_v4().simple());
    let app = c.app(&[]);
    let done = app
        .manager
        .run(
            &restore_of(b, name, generation, &target),
            Default::default(),
            CancellationToken::new(),
        )
        .await;
    if let Some(reason) = done.failure {
        return Err((reason, done.result.error.unwrap().message));
    }
    let tables = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    Ok((
        c.psql(&target, tables),
        c.psql(&target, "SELECT count(*) FROM t"),
    ))
}

fn whole() -> Result<(String, String), (R, String)> {
    Ok(("t".to_owned(), "3000".to_owned()))
}

/// Neither what is run nor what is said of an object that is there depends on what lies beside it.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_what_is_named_whatever_lies_beside_it() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", ROWS);
    let text = std::fs::read(c.dump_to_file("src", &["-Fp"])).unwrap();
    let path = b.put("shop.sql.gz", &gzip(&text));
    let of_gz = Some(generation(&path));
    let bury = b.put("nightly.gz", &gzip(&text));
    let first = b.put("x.sql.00", &text);
    let app = b.app_on(&c, &SIGNED);
    for name in ["shop.sql.gz", "nightly.gz", "x.sql.00"] {
        assert_eq!(verify(&app, name).await.verdict, Verdict::Verified);
    }
    // All counts before .gz, with a backup of somebody else's in the first two; a few far apart; one more.
    let evil = gzip(EVIL.as_bytes());
    for (n, part) in [&evil[..3], &evil[3..]]
        .into_iter()
        .chain([&b""[..]; 179])
        .enumerate()
    {
        b.put(&format!("shop.sql.{}", letters(n)), part);
    }
    for n in (0..181).step_by(4) {
        b.put(&format!("nightly.{}", letters(n)), b"x");
    }
    b.put("x.sql.01", EVIL.as_bytes());
    for (name, generation) in [
        ("shop.sql.gz", of_gz),
        ("shop.sql.gz", None),
        ("nightly.gz", Some(generation(&bury))),
        ("nightly.gz", None),
        ("x.sql.00", Some(generation(&first))),
        ("x.sql.00", None),
    ] {
        // `make test` restores one by its generation, and verifies and restores each by its name.
        if generation.is_none() || name == "shop.sql.gz" || is_full_campaign() {
            assert_eq!(
                restored(&c, &b, (name, generation)).await,
                whole(),
                "{name}"
            );
        }
        // The name alone is verified.
        if generation.is_some() {
            continue;
        }
        let proof = verify(&app, name).await;
        assert_eq!(
            proof.verdict,
            Verdict::Verified,
            "{name}: {:?}",
            proof.error
        );
        assert_eq!(proof.backup.name.as_deref(), Some(name));
    }
    // It is the newest one, and it is listed.
    std::fs::File::options()
        .append(true)
        .open(&bury)
        .unwrap()
        .set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60))
        .unwrap();
    let newest = verify(&app, "latest").await;
    assert_eq!(newest.backup.name.as_deref(), Some("nightly.gz"));
    let listed = app.manager.list_available_backups().await.unwrap();
    for name in ["shop.sql.gz", "nightly.gz", "x.sql.00"] {
        assert!(listed.iter().any(|l| l.name == name), "{name}");
    }
}

/// `split -n` makes the first pieces longer; `split -l` makes all of them of another size.
#[tokio::test(flavor = "multi_thread")]
async fn pieces_of_any_size_are_one_backup() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", ROWS);
    let custom = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    let (count, mut rest) = (5, &custom[..]);
    for n in 0..count {
        let size = custom.len() / count + usize::from(n < custom.len() % count || n < 2);
        let (piece, more) = rest.split_at(size.min(rest.len()));
        rest = if n == count - 1 { &[] } else { more };
        b.put(
            &format!("n.dump.{}", letters(n)),
            if n == count - 1 {
                [piece, more].concat()
            } else {
                piece.to_vec()
            }
            .as_slice(),
        );
    }
    let text = std::fs::read_to_string(c.dump_to_file("src", &["-Fp", "--inserts"])).unwrap();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    // Rows of any length.
    lines.insert(0, "\n");
    for (n, part) in lines.chunks(400).enumerate() {
        b.put(&format!("l.sql.{}", letters(n)), part.concat().as_bytes());
    }
    let app = b.app_on(&c, &[]);
    for name in ["n.dump", "l.sql"] {
        let proof = verify(&app, name).await;
        assert_eq!(
            proof.verdict,
            Verdict::Verified,
            "{name}: {:?}",
            proof.error
        );
        assert_eq!(proof.rows, 3000, "{name}");
        // A proof reads the pieces like a restore.
        if name == "n.dump" || is_full_campaign() {
            assert_eq!(restored(&c, &b, (name, None)).await, whole(), "{name}");
        }
    }
    // One piece alone is what was named, and says where it belongs.
    let (reason, message) = restored(&c, &b, ("n.dump.aa", None)).await.unwrap_err();
    assert_eq!(reason, R::ArchiveCorrupt);
    assert!(
        message.contains("n.dump.aa is one piece of n.dump: restore n.dump"),
        "{message}"
    );
    let (_, message) = restored(&c, &b, ("n.dump.ac", None)).await.unwrap_err();
    assert!(message.contains("restore n.dump"), "{message}");
}

/// Of rotated backups each is one, whatever their kind.
#[tokio::test(flavor = "multi_thread")]
async fn numbered_backups_are_not_joined() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", ROWS);
    let tar = std::fs::read(c.dump_as("src", DumpFormat::Tar)).unwrap();
    let text = std::fs::read_to_string(c.dump_to_file("src", &["-Fp"])).unwrap();
    let bare: String = text
        .split_inclusive('\n')
        .filter(|l| !l.starts_with("--"))
        .collect();
    let kinds = [
        ("tar", tar),
        ("crlf", text.replace('\n', "\r\n").into_bytes()),
        ("bom", format!("\u{feff}{text}").into_bytes()),
        (
            "set",
            format!("SET session_replication_role = replica;\n{text}").into_bytes(),
        ),
        ("bare", bare.into_bytes()),
    ];
    for (name, bytes) in &kinds {
        for n in 1..=3 {
            b.put(&format!("{name}.00{n}"), bytes);
        }
    }
    let app = b.app_on(&c, &[]);
    let listed = app.manager.list_available_backups().await.unwrap();
    assert_eq!(listed.len(), 3 * kinds.len(), "{listed:?}");
    for (name, _) in &kinds {
        // `make test` restores the first of a tar, and what is not verified below.
        let tested: &[u32] = match *name {
            "tar" => &[1],
            "bare" => &[1, 2],
            _ => &[],
        };
        for n in [1, 2] {
            if !tested.contains(&n) && !is_full_campaign() {
                continue;
            }
            let name = format!("{name}.00{n}");
            assert_eq!(restored(&c, &b, (&name, None)).await, whole(), "{name}");
        }
    }
    for name in ["tar.002", "crlf.002", "bom.002", "set.002"] {
        let proof = verify(&app, name).await;
        assert_eq!(
            proof.verdict,
            Verdict::Verified,
            "{name}: {:?}",
            proof.error
        );
        assert_eq!((proof.tables.len(), proof.rows), (1, 3000), "{name}");
    }
}

/// Whoever may add a file behind the last piece can make the proof inconclusive; the backup is not blamed.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_behind_the_pieces_is_named_and_the_backup_is_not_blamed() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", ROWS);
    let custom = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    let uncompressed = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
    let text = std::fs::read(c.dump_to_file("src", &["-Fp"])).unwrap();
    for (name, bytes) in [
        ("x.dump", &uncompressed),
        ("x.dump.gz", &gzip(&custom)),
        ("x.sql.gz", &gzip(&text)),
    ] {
        for (n, part) in bytes.chunks(bytes.len().div_ceil(3)).enumerate() {
            b.put(&format!("{name}.{}", letters(n)), part);
        }
    }
    let app = b.app_on(&c, &SIGNED);
    let mut generations = vec![];
    for name in ["x.dump", "x.dump.gz", "x.sql.gz"] {
        let proof = verify(&app, name).await;
        assert_eq!(
            proof.verdict,
            Verdict::Verified,
            "{name}: {:?}",
            proof.error
        );
        generations.push(proof.backup.generation.unwrap().parse().unwrap());
        for (more, bytes) in [("ad", &b"x"[..]), ("ae", b"notes")] {
            b.put(&format!("{name}.{more}"), bytes);
        }
    }
    for (name, generation) in ["x.dump", "x.dump.gz", "x.sql.gz"]
        .into_iter()
        .zip(generations)
    {
        let proof = verify(&app, name).await;
        let error = proof.error.unwrap();
        assert_eq!(
            (proof.verdict, error.reason),
            (Verdict::Inconclusive, R::ArchiveCorrupt),
            "{}",
            error.message
        );
        assert_eq!(error.blame, Blame::Infrastructure);
        let named = format!("ends before {name}.ad, which is not part of it: move that file away");
        assert!(error.message.contains(&named), "{}", error.message);
        // `make test` restores one of them.
        if name == "x.dump.gz" || is_full_campaign() {
            let (reason, message) = restored(&c, &b, (name, None)).await.unwrap_err();
            assert_eq!(reason, R::ArchiveCorrupt);
            assert!(message.contains(&named), "{message}");
            // What was proven is still there.
            assert_eq!(
                restored(&c, &b, (name, Some(generation))).await,
                whole(),
                "{name}"
            );
        }
        // Neither is it blamed for one behind a gap.
        std::fs::rename(
            b.folder.path().join(format!("{name}.ad")),
            b.folder.path().join(format!("{name}.af")),
        )
        .unwrap();
        std::fs::remove_file(b.folder.path().join(format!("{name}.ae"))).unwrap();
        let proof = verify(&app, name).await;
        let error = proof.error.unwrap();
        assert_eq!(
            (proof.verdict, error.blame),
            (Verdict::Inconclusive, Blame::Infrastructure)
        );
        assert!(
            error
                .message
                .contains(&format!("the piece {name}.ad is missing")),
            "{}",
            error.message
        );
    }
}
