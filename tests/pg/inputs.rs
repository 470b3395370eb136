//! Inputs that are not a complete dump: truncated, spliced, of another tool, encrypted. Each is a clear error.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::job::OnExisting;

use crate::formats::{DumpFormat, Wrapping, wrap};
use crate::support::{Cluster, is_full_campaign, job, sample};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 300) i;
    CREATE VIEW vw AS SELECT count(*) FROM t; SELECT lo_from_bytea(4000, decode(repeat('ab', 5000), 'hex'))";

/// The error of a restore that must fail and leave nothing behind.
async fn refused(c: &Cluster, file: &Path, flags: &[(&str, &str)]) -> pgrestored::event::ErrorBody {
    let before = c.databases();
    let done = c
        .restore_with(&job(file, "never", OnExisting::Fail), flags)
        .await;
    assert_eq!(c.databases(), before, "{}", file.display());
    done.result
        .error
        .unwrap_or_else(|| panic!("{} was restored", file.display()))
}

/// Truncation at many places: only the complete file is a dump.
async fn cuts(cells: &[(DumpFormat, Wrapping)]) {
    let c = Cluster::start();
    c.create("src", SOURCE);
    for (format, wrapping) in cells {
        let dump = std::fs::read(c.dump_as("src", *format)).unwrap();
        cut(&c, &wrap(&dump, *wrapping), *format, *wrapping).await;
    }
}

async fn cut(c: &Cluster, whole: &[u8], format: DumpFormat, wrapping: Wrapping) {
    let file = c.scratch("cut");
    // The last blocks of a tar only mark its end.
    let last = match (wrapping, format) {
        (Wrapping::None, DumpFormat::Plain | DumpFormat::PlainInserts) => whole.len() - 60,
        (Wrapping::None, DumpFormat::DirectoryTar) => whole.iter().rposition(|b| *b != 0).unwrap(),
        _ => whole.len() - 1,
    };
    let first = if is_full_campaign() {
        (0..40).collect()
    } else if matches!(format, DumpFormat::Plain | DumpFormat::PlainInserts) {
        vec![5, 39]
    } else {
        // An archive's magic has five bytes, and its version three.
        vec![5, 8]
    };
    let spread = sample((1..40).map(|i| i * last / 40), 26);
    for at in first.into_iter().chain(spread).chain([last]) {
        std::fs::write(&file, &whole[..at]).unwrap();
        let e = refused(c, &file, &[]).await;
        let named = matches!(e.reason, R::ArchiveCorrupt | R::ArchiveUnsupported);
        assert!(
            named && !e.message.is_empty() && !e.retryable,
            "{format:?} {wrapping:?} cut at {at}: {e:?}"
        );
        if at > 600 {
            assert_eq!(
                e.reason,
                R::ArchiveCorrupt,
                "{format:?} {wrapping:?} cut at {at}: {e:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_text() {
    let inserts = (DumpFormat::PlainInserts, Wrapping::None);
    let mut cells = vec![inserts];
    cells.extend(
        [
            Wrapping::None,
            Wrapping::Gzip,
            Wrapping::Zstd,
            Wrapping::Lz4,
            Wrapping::Bzip2,
            Wrapping::Xz,
        ]
        .map(|wrapping| (DumpFormat::Plain, wrapping)),
    );
    cuts(&cells).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_archives() {
    cuts(&[
        (DumpFormat::Tar, Wrapping::None),
        (DumpFormat::DirectoryTar, Wrapping::None),
        (DumpFormat::Custom, Wrapping::Zstd),
        (DumpFormat::Tar, Wrapping::Gzip),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_dump_is_refused() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    files_of_other_tools_are_named(&c).await;
    spliced_and_edited_text_is_refused_with_its_line(&c).await;
    two_archives_in_one_file_are_refused(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_folders_and_encrypted_backups_are_refused() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    missing_and_extra_members_are_detected(&c).await;
    encrypted_backups_need_their_key(&c).await;
}

async fn files_of_other_tools_are_named(c: &Cluster) {
    let zip = b"PK\x03\x04\x14\x00\x01\x00\x08\x00aaaaaaaaaaaaaaaaaaaaaaaaaa";
    let cluster = "--\n-- PostgreSQL database cluster dump\n--\n\nSET x = 1;\n--\n-- PostgreSQL database cluster dump complete\n--\n";
    let utf16: Vec<u8> = b"\xff\xfe"
        .iter()
        .copied()
        .chain("-- x\n".bytes().flat_map(|b| [b, 0]))
        .collect();
    let inputs: [(&str, &[u8], R, &str); 14] = [
        ("empty", b"", R::ArchiveCorrupt, "empty"),
        ("zip", zip, R::ArchiveUnsupported, "password"),
        (
            "html",
            b"<!DOCTYPE html>\n<html><body>404</body></html>",
            R::ArchiveUnsupported,
            "HTML",
        ),
        (
            "xml",
            b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
            R::ArchiveUnsupported,
            "XML",
        ),
        (
            "json",
            b"{\"error\": {\"code\": 404}}",
            R::ArchiveUnsupported,
            "JSON",
        ),
        (
            "mysql",
            b"-- MySQL dump 10.13  Distrib 8.0.36\n--\nCREATE TABLE `t` (a int);\n",
            R::ArchiveUnsupported,
            "MySQL",
        ),
        (
            "sqlite",
            b"SQLite format 3\0abc",
            R::ArchiveUnsupported,
            "SQLite",
        ),
        (
            "pgp",
            b"-----BEGIN PGP MESSAGE-----\n",
            R::ArchiveUnsupported,
            "GnuPG",
        ),
        (
            "openssl",
            b"Salted__abcdefgh",
            R::ArchiveUnsupported,
            "openssl",
        ),
        (
            "cluster",
            cluster.as_bytes(),
            R::InvalidRequest,
            "pg_dumpall",
        ),
        ("utf16", &utf16, R::ArchiveUnsupported, "UTF-16"),
        ("text", b"hello, world\n", R::ArchiveUnsupported, "neither"),
        ("noise", &[0xa7; 5000], R::ArchiveUnsupported, "neither"),
        (
            "age",
            b"age-encryption.org/v1\n-> X25519 abc\n",
            R::ArchiveCorrupt,
            "",
        ),
    ];
    for (name, bytes, reason, word) in inputs {
        let file = c.scratch(name);
        std::fs::write(&file, bytes).unwrap();
        let e = refused(c, &file, &[]).await;
        assert_eq!(e.reason, reason, "{name}: {e:?}");
        assert!(e.message.contains(word), "{name}: {e:?}");
    }
}

async fn spliced_and_edited_text_is_refused_with_its_line(c: &Cluster) {
    let text = std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap();
    let at_end = text.replace(
        "\n-- PostgreSQL database dump complete\n",
        "\n-- PostgreSQL database dump complete\nSELEKT 1;\n",
    );
    let inserted = |line: &str| {
        text.replacen(
            "CREATE TABLE public.t",
            &format!("{line}\nCREATE TABLE public.t"),
            1,
        )
    };
    let unlocked = text.replace("\\unrestrict ", "\\unrestrict x");
    assert_ne!(unlocked, text, "this pg_dump writes \\restrict");
    let cases: [(&str, String, R, &str); 11] = [
        ("another token", unlocked, R::ArchiveCorrupt, "unrestrict"),
        // With psql's message.
        (
            "two dumps",
            format!("{text}{text}"),
            R::RestoreError,
            "already exists",
        ),
        (
            "a broken statement at the end",
            at_end,
            R::RestoreError,
            "line",
        ),
        (
            "a shell command",
            inserted("\\! rm -rf /"),
            R::ArchiveUnsupported,
            "\\!",
        ),
        (
            "an include",
            inserted("\\i other.sql"),
            R::ArchiveUnsupported,
            "\\i",
        ),
        (
            "another database",
            inserted("\\connect other"),
            R::ArchiveUnsupported,
            "\\connect",
        ),
        (
            "a program's rows",
            inserted("COPY public.t FROM PROGRAM 'id';"),
            R::ArchiveUnsupported,
            "COPY",
        ),
        (
            "a rollback",
            inserted("ROLLBACK;"),
            R::ArchiveUnsupported,
            "ROLLBACK",
        ),
        (
            "a savepoint",
            inserted("BEGIN;\nSAVEPOINT a;\nROLLBACK TO SAVEPOINT a;\nCOMMIT;"),
            R::ArchiveUnsupported,
            "ROLLBACK",
        ),
        (
            "a variable",
            inserted("SELECT 1 \\gset"),
            R::ArchiveUnsupported,
            "psql",
        ),
        (
            "a broken statement",
            inserted("CREATE TABEL x;"),
            R::RestoreError,
            "line",
        ),
    ];
    for (name, text, reason, word) in cases {
        let file = c.scratch("edited.sql");
        std::fs::write(&file, text).unwrap();
        let e = refused(c, &file, &[]).await;
        assert_eq!(e.reason, reason, "{name}: {e:?}");
        // What psql would take is a limit of ours; it takes no \connect between \restrict and \unrestrict.
        if reason == R::ArchiveUnsupported {
            let blame = match name {
                "another database" => Blame::Backup,
                _ => Blame::Infrastructure,
            };
            assert_eq!(e.blame, blame, "{name}: {e:?}");
        }
        assert!(e.message.contains(word), "{name}: {e:?}");
    }
}

async fn two_archives_in_one_file_are_refused(c: &Cluster) {
    for format in [
        DumpFormat::Custom,
        DumpFormat::CustomPiped,
        DumpFormat::Tar,
        DumpFormat::DirectoryTar,
    ] {
        let one = std::fs::read(c.dump_as("src", format)).unwrap();
        let file = c.scratch("two");
        std::fs::write(&file, [&one[..], &one[..]].concat()).unwrap();
        let e = refused(c, &file, &[]).await;
        assert_eq!(e.reason, R::ArchiveCorrupt, "{format:?}: {e:?}");
    }
}

async fn missing_and_extra_members_are_detected(c: &Cluster) {
    let whole = c.dump_as("src", DumpFormat::Directory);
    let make = |name: &str| {
        let folder = c.scratch(name);
        let mut cp = Command::new("cp");
        let copied = cp.arg("-a").arg(&whole).arg(&folder).status().unwrap();
        assert!(copied.success());
        folder.join("")
    };
    let member = |folder: &Path, what: &str| {
        let all = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path());
        all.into_iter()
            .find(|p| p.file_name().unwrap().to_str().unwrap().contains(what))
            .unwrap()
    };
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage<'_>); 6] = [
        ("no table", &|f| {
            std::fs::remove_file(member(f, ".dat.gz")).unwrap()
        }),
        ("no large object", &|f| {
            std::fs::remove_file(member(f, "blob_")).unwrap()
        }),
        ("no list", &|f| {
            std::fs::remove_file(member(f, "blobs.toc")).unwrap()
        }),
        ("a stranger", &|f| {
            std::fs::write(f.join("9999.dat.gz"), "x").unwrap()
        }),
        ("a cut member", &|f| {
            let m = member(f, ".dat.gz");
            let bytes = std::fs::read(&m).unwrap();
            std::fs::write(&m, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a flipped bit", &|f| {
            let m = member(f, ".dat.gz");
            let mut bytes = std::fs::read(&m).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(&m, bytes).unwrap();
        }),
    ];
    for (n, (name, damage)) in cases.into_iter().enumerate() {
        let folder = make(&format!("damaged{n}"));
        damage(&folder);
        let e = refused(c, &folder, &[]).await;
        assert_eq!(e.reason, R::ArchiveCorrupt, "{name}: {e:?}");
    }
    let folder = make("listless");
    std::fs::remove_file(folder.join("toc.dat")).unwrap();
    assert_eq!(refused(c, &folder, &[]).await.reason, R::BackupNotFound);
    // The name of the directory also works without its slash.
    let name = whole.to_str().unwrap().trim_end_matches('/').to_owned();
    c.restore(Path::new(&name), "ours").await;
    assert_eq!(c.psql("ours", "SELECT count(*) FROM t"), "300");
}

fn encrypted(bytes: &[u8], to: &age::x25519::Recipient, armor: bool) -> Vec<u8> {
    let encryptor =
        age::Encryptor::with_recipients(std::iter::once(to as &dyn age::Recipient)).unwrap();
    let mut out = Vec::new();
    let format = if armor {
        age::armor::Format::AsciiArmor
    } else {
        age::armor::Format::Binary
    };
    let armored = age::armor::ArmoredWriter::wrap_output(&mut out, format).unwrap();
    let mut w = encryptor.wrap_output(armored).unwrap();
    w.write_all(bytes).unwrap();
    w.finish().and_then(|armored| armored.finish()).unwrap();
    out
}

async fn encrypted_backups_need_their_key(c: &Cluster) {
    use age::secrecy::ExposeSecret;
    let (key, other) = (
        age::x25519::Identity::generate(),
        age::x25519::Identity::generate(),
    );
    let identity = c.scratch("identity");
    std::fs::write(
        &identity,
        format!("# mine\n{}\n", key.to_string().expose_secret()),
    )
    .unwrap();
    let flag = ("backup-age-identity-file", identity.to_str().unwrap());
    let file = c.scratch("src.age");
    let rows = "SELECT md5(string_agg(v, ' ' ORDER BY id)), (SELECT md5(lo_get(4000))) FROM t";
    let source = c.psql("src", rows);
    for (i, (format, wrapping, armor)) in [
        (DumpFormat::Custom, Wrapping::None, false),
        (DumpFormat::Plain, Wrapping::Zstd, false),
        (DumpFormat::Tar, Wrapping::Gzip, true),
        (DumpFormat::DirectoryTar, Wrapping::None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let plain = wrap(&std::fs::read(c.dump_as("src", format)).unwrap(), wrapping);
        let whole = encrypted(&plain, &key.to_public(), armor);
        std::fs::write(&file, &whole).unwrap();
        let e = refused(c, &file, &[]).await;
        assert!(
            e.reason == R::ArchiveUnsupported && e.message.contains("BACKUP_AGE_IDENTITY_FILE"),
            "{e:?}"
        );
        let target = format!("ours{i}");
        let done = c
            .restore_with(&job(&file, &target, OnExisting::Fail), &[flag])
            .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert_eq!(c.psql(&target, rows), source, "{target}");
        let cuts = [10, 100, whole.len() / 2, whole.len() - 9];
        for (n, cut) in cuts.into_iter().enumerate() {
            // Each of two of the four.
            if n != i && n != (i + 3) % 4 && !is_full_campaign() {
                continue;
            }
            std::fs::write(&file, &whole[..cut]).unwrap();
            let e = refused(c, &file, &[flag]).await;
            assert!(
                matches!(e.reason, R::ArchiveCorrupt | R::ArchiveUnsupported),
                "cut at {cut}: {e:?}"
            );
        }
    }
    std::fs::write(&file, encrypted(b"x", &other.to_public(), false)).unwrap();
    let e = refused(c, &file, &[flag]).await;
    assert!(
        e.reason == R::ArchiveUnsupported && e.message.contains("cannot decrypt it"),
        "{e:?}"
    );
    assert!(!e.message.contains("AGE-SECRET-KEY"), "{e:?}");
}

/// While a dump is restored, the server does not find unqualified names.
#[tokio::test(flavor = "multi_thread")]
async fn functions_that_rely_on_the_search_path_get_a_hint() {
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE docs (b text); INSERT INTO docs VALUES ('a b');
         CREATE MATERIALIZED VIEW w AS SELECT word FROM ts_stat('SELECT to_tsvector(''simple'', b) FROM docs');
         CREATE MATERIALIZED VIEW n AS SELECT count(*) FROM w; CREATE UNIQUE INDEX ON w (word)",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    for (backup, way_out) in [(&dump, true), (&c.dump_as("src", DumpFormat::Plain), false)] {
        let error = c
            .try_restore(backup, "app", OnExisting::Fail)
            .await
            .result
            .error
            .unwrap();
        let message = &error.message;
        assert!(
            message.contains("empty search_path") && message.contains("FROM docs"),
            "{message}"
        );
        assert!(!message.contains("simple"), "{message}");
        assert_eq!(
            message.contains("--exclude-table-data public.w"),
            way_out,
            "{message}"
        );
    }
    let mut without = job(&dump, "app", OnExisting::Fail);
    without.selection.exclude_table_data = vec!["public.w".into()];
    let done = c.restore_with(&without, &[]).await;
    assert_eq!(done.result.error, None);
    let views = "SELECT relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY 1";
    assert_eq!(
        (
            c.psql("app", views).as_str(),
            c.psql("app", "TABLE docs").as_str()
        ),
        ("n|f\nw|f", "a b")
    );
    // A rejected row is an error of the stage `data`, however far other sessions are.
    let text = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n
CREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\nsecret\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    let file = c.scratch("refused.sql");
    std::fs::write(&file, text).unwrap();
    let error = c
        .try_restore(&file, "refused", OnExisting::Fail)
        .await
        .result
        .error
        .unwrap();
    assert_eq!(
        (error.reason, error.stage.as_str()),
        (R::DataRejected, "data"),
        "{error:?}"
    );
    assert!(!error.message.contains("secret"), "{error:?}");
}
