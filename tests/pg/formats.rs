//! The matrix: every format of `pg_dump`, in every wrapping, restored to the same database as its
//! source. One test a cell.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::{Cluster, assert_same, bindir_of};

/// How the dump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Custom,
    /// Through a pipe: without data offsets.
    CustomPiped,
    CustomUncompressed,
    Plain,
    PlainInserts,
    PlainCreate,
    PlainClean,
    Tar,
    Directory,
    DirectoryUncompressed,
    /// In the order in which `tar` packs: the table of contents may come last.
    DirectoryTar,
    DirectoryTarTocFirst,
}

impl Format {
    pub const ALL: [Format; 12] = [
        Format::Custom,
        Format::CustomPiped,
        Format::CustomUncompressed,
        Format::Plain,
        Format::PlainInserts,
        Format::PlainCreate,
        Format::PlainClean,
        Format::Tar,
        Format::Directory,
        Format::DirectoryUncompressed,
        Format::DirectoryTar,
        Format::DirectoryTarTocFirst,
    ];
}

/// What the dump is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    None,
    Gzip,
    GzipTwice,
    Zstd,
    Lz4,
    Bzip2,
    Xz,
}

pub fn wrap(bytes: &[u8], wrapping: Wrapping) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(bytes).unwrap();
        w.finish().unwrap()
    };
    match wrapping {
        Wrapping::None => bytes.to_vec(),
        Wrapping::Gzip => gzip(bytes),
        Wrapping::GzipTwice => gzip(&gzip(bytes)),
        // Two frames each, as parallel compressors write them.
        Wrapping::Zstd => {
            let (a, b) = bytes.split_at(bytes.len() / 2);
            [
                zstd::encode_all(a, 1).unwrap(),
                zstd::encode_all(b, 1).unwrap(),
            ]
            .concat()
        }
        Wrapping::Lz4 => {
            let frame = |bytes: &[u8]| {
                let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
                w.write_all(bytes).unwrap();
                w.finish().unwrap()
            };
            let (a, b) = bytes.split_at(bytes.len() / 2);
            [frame(a), frame(b)].concat()
        }
        Wrapping::Bzip2 => {
            let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            w.write_all(bytes).unwrap();
            w.finish().unwrap()
        }
        Wrapping::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut w = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            w.write_all(bytes).unwrap();
            w.finish().unwrap()
        }
    }
}

impl Cluster {
    /// Dumps a database; of a directory, the path ends in a slash.
    pub fn dump_as(&self, database: &str, format: Format) -> PathBuf {
        let path = self.scratch(&format!("{}.{format:?}", uuid::Uuid::new_v4()));
        let args: &[&str] = match format {
            Format::CustomPiped => return self.dump_through_pipe(database, &[]),
            Format::Custom => &["-Fc"],
            Format::CustomUncompressed => &["-Fc", "-Z0"],
            Format::Plain => &["-Fp"],
            Format::PlainInserts => &["-Fp", "--inserts", "--rows-per-insert=20"],
            Format::PlainCreate => &["-Fp", "--create"],
            Format::PlainClean => &["-Fp", "--clean"],
            Format::Tar => &["-Ft"],
            Format::DirectoryUncompressed => &["-Fd", "-Z0"],
            Format::Directory | Format::DirectoryTar | Format::DirectoryTarTocFirst => &["-Fd"],
        };
        let mut dump = self.sandbox.command("pg_dump");
        self.sandbox
            .run(dump.args(["-d", database, "-f"]).arg(&path).args(args))
            .unwrap();
        match format {
            Format::Directory | Format::DirectoryUncompressed => {
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&path, open).unwrap();
                path.join("")
            }
            Format::DirectoryTar => self.tar(&path, &["--sort=name", "-C"], "."),
            Format::DirectoryTarTocFirst => self.tar(&path, &["-C"], "toc.dat"),
            _ => path,
        }
    }

    pub fn tar(&self, folder: &Path, args: &[&str], first: &str) -> PathBuf {
        let tar = folder.with_extension("tar");
        let mut command = std::process::Command::new("tar");
        command
            .arg("-cf")
            .arg(&tar)
            .args(args)
            .arg(folder)
            .arg(first);
        if first == "toc.dat" {
            let mut others: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            others.retain(|n| n != "toc.dat");
            command.args(others);
        }
        assert!(command.status().unwrap().success());
        tar
    }
}

/// A cell: the source's database through this format and wrapping is the source's database.
async fn cell(version: u32, database: &str, sql: &str, format: Format, wrapping: Wrapping) {
    let c = match version {
        15 => Cluster::start(),
        other => match bindir_of(other) {
            Some(bindir) => Cluster::of(&bindir, ""),
            None => return,
        },
    };
    c.tablespace("space_a");
    c.create(database, sql);
    let dump = c.dump_as(database, format);
    let wrapped = match wrapping {
        Wrapping::None => dump,
        other => {
            let path = c.scratch("wrapped");
            std::fs::write(&path, wrap(&std::fs::read(dump).unwrap(), other)).unwrap();
            path
        }
    };
    let result = c.restore(&wrapped, "ours").await;
    let what = format!("{version}, {database}, {format:?}, {wrapping:?}");
    assert_same(&c.content("ours", &[]), &c.content(database, &[]), &what);
    let unexpected: Vec<_> = result
        .rewrites
        .iter()
        // The tools beside servers 13 and 14 are newer than these.
        .filter(|r| r.rule != "unknown-setting" || version >= 15)
        .filter(|r| !["database", "clean", "schema-public"].contains(&r.rule.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{what}: {unexpected:?}");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

const SAMPLES: (&str, &str) = ("samples", include_str!("samples.sql"));
const OBJECTS: (&str, &str) = ("objects", include_str!("objects.sql"));
const NAMES: (&str, &str) = ("Odd \"Näme\" $1; --", include_str!("names.sql"));
const VALUES: (&str, &str) = ("vals", include_str!("values.sql"));

macro_rules! cells {
    ($($name:ident: $version:literal $database:ident $format:ident $wrapping:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                cell($version, $database.0, $database.1, Format::$format, Wrapping::$wrapping).await;
            }
        )*
    };
}

cells! {
    objects_plain: 15 OBJECTS Plain None;
    objects_plain_inserts: 15 OBJECTS PlainInserts None;
    objects_plain_create: 15 OBJECTS PlainCreate None;
    objects_plain_clean: 15 OBJECTS PlainClean None;
    objects_tar: 15 OBJECTS Tar None;
    objects_directory: 15 OBJECTS Directory None;
    objects_directory_uncompressed: 15 OBJECTS DirectoryUncompressed None;
    objects_directory_tar: 15 OBJECTS DirectoryTar None;
    objects_directory_tar_toc_first: 15 OBJECTS DirectoryTarTocFirst None;
    names_plain: 15 NAMES Plain None;
    names_plain_inserts: 15 NAMES PlainInserts None;
    names_plain_create: 15 NAMES PlainCreate None;
    names_plain_clean: 15 NAMES PlainClean None;
    names_tar: 15 NAMES Tar None;
    names_directory: 15 NAMES Directory None;
    names_directory_tar: 15 NAMES DirectoryTar None;
    values_plain: 15 VALUES Plain None;
    values_plain_inserts: 15 VALUES PlainInserts None;
    values_tar: 15 VALUES Tar None;
    values_directory: 15 VALUES Directory None;
    values_directory_tar: 15 VALUES DirectoryTar None;
    wrapped_custom_gzip: 15 VALUES Custom Gzip;
    wrapped_custom_gzip_twice: 15 VALUES Custom GzipTwice;
    wrapped_custom_zstd: 15 VALUES Custom Zstd;
    wrapped_custom_lz4: 15 VALUES Custom Lz4;
    wrapped_custom_bzip2: 15 VALUES Custom Bzip2;
    wrapped_custom_xz: 15 VALUES Custom Xz;
    wrapped_plain_gzip: 15 VALUES Plain Gzip;
    wrapped_plain_gzip_twice: 15 VALUES Plain GzipTwice;
    wrapped_plain_zstd: 15 VALUES Plain Zstd;
    wrapped_plain_lz4: 15 VALUES Plain Lz4;
    wrapped_plain_bzip2: 15 VALUES Plain Bzip2;
    wrapped_plain_xz: 15 VALUES Plain Xz;
    wrapped_tar_gzip: 15 VALUES Tar Gzip;
    wrapped_tar_zstd: 15 VALUES Tar Zstd;
    wrapped_tar_lz4: 15 VALUES Tar Lz4;
    wrapped_tar_bzip2: 15 VALUES Tar Bzip2;
    wrapped_tar_xz: 15 VALUES Tar Xz;
    wrapped_directory_tar_gzip: 15 VALUES DirectoryTar Gzip;
    wrapped_directory_tar_zstd: 15 VALUES DirectoryTar Zstd;
    samples_custom: 15 SAMPLES Custom None;
    samples_plain: 15 SAMPLES Plain None;
    samples_plain_inserts: 15 SAMPLES PlainInserts None;
    samples_plain_create: 15 SAMPLES PlainCreate None;
    samples_plain_clean: 15 SAMPLES PlainClean None;
    samples_tar: 15 SAMPLES Tar None;
    samples_directory: 15 SAMPLES Directory None;
    samples_directory_tar: 15 SAMPLES DirectoryTar None;
    v13_samples_custom: 13 SAMPLES Custom None;
    v13_samples_plain: 13 SAMPLES Plain None;
    v14_samples_custom: 14 SAMPLES Custom None;
    v14_samples_plain: 14 SAMPLES Plain None;
    v16_samples_custom: 16 SAMPLES Custom None;
    v16_samples_plain: 16 SAMPLES Plain None;
    v17_samples_custom: 17 SAMPLES Custom None;
    v17_samples_plain: 17 SAMPLES Plain None;
    v17_samples_directory: 17 SAMPLES Directory None;
    v18_samples_custom: 18 SAMPLES Custom None;
    v18_samples_plain: 18 SAMPLES Plain None;
    v16_plain: 16 VALUES Plain None;
    v16_plain_inserts: 16 NAMES PlainInserts None;
    v16_plain_create: 16 NAMES PlainCreate None;
    v16_tar: 16 VALUES Tar None;
    v16_directory: 16 NAMES Directory None;
    v16_directory_tar: 16 VALUES DirectoryTar None;
    v18_plain: 18 VALUES Plain None;
    v18_plain_inserts: 18 NAMES PlainInserts None;
    v18_plain_create: 18 NAMES PlainCreate None;
    v18_plain_clean: 18 VALUES PlainClean None;
    v18_tar: 18 VALUES Tar None;
    v18_directory: 18 NAMES Directory None;
    v18_directory_tar: 18 VALUES DirectoryTar None;
}

/// A character's second byte may be a backslash or a quote's half.
#[tokio::test(flavor = "multi_thread")]
async fn encodings_whose_bytes_look_like_ascii() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE DATABASE euc TEMPLATE template0 ENCODING 'EUC_JP' LOCALE 'C'",
    );
    c.psql(
        "euc",
        "SET client_encoding = 'UTF8'; CREATE TABLE \"表ソ\" (t text); INSERT INTO \"表ソ\" VALUES ('表'), ('ソ\\'), ('能''予'), (E'表\\n十');
         CREATE VIEW v AS SELECT '表'::text AS u; COMMENT ON VIEW v IS 'ソ表'; CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '予表;' $$",
    );
    for args in [
        &["-E", "SJIS"][..],
        &["-E", "SJIS", "--inserts"],
        &["-E", "EUC_JP"],
        &["-E", "UTF8"],
    ] {
        for format in ["-Fp", "-Fc", "-Ft"] {
            let path = c.scratch(&format!("{}.dump", uuid::Uuid::new_v4()));
            let mut dump = c.sandbox.command("pg_dump");
            c.sandbox
                .run(dump.args([format, "-d", "euc", "-f"]).arg(&path).args(args))
                .unwrap();
            c.restore(&path, "ours").await;
            let what = format!("{format} {args:?}");
            assert_same(
                &c.content("ours", &["-E", "UTF8"]),
                &c.content("euc", &["-E", "UTF8"]),
                &what,
            );
            c.psql("postgres", "DROP DATABASE ours");
        }
    }
}

/// Dumps with `standard_conforming_strings = off`, as old servers wrote them.
#[tokio::test(flavor = "multi_thread")]
async fn backslashes_that_escape() {
    let c = Cluster::start();
    c.create("vals", VALUES.1);
    c.psql(
        "vals",
        "CREATE VIEW back AS SELECT 'a\\b''c'::text AS t; COMMENT ON VIEW back IS '\\'';\\\\'",
    );
    for args in [&["-Fp"][..], &["-Fp", "--inserts"], &["-Fc", "--inserts"]] {
        let path = c.scratch(&format!("{}.dump", uuid::Uuid::new_v4()));
        let mut dump = c.sandbox.command("pg_dump");
        dump.env(
            "PGOPTIONS",
            "-c standard_conforming_strings=off -c escape_string_warning=off",
        );
        c.sandbox
            .run(dump.args(["-d", "vals", "-f"]).arg(&path).args(args))
            .unwrap();
        if args == ["-Fp"] {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("standard_conforming_strings = off"));
        }
        c.restore(&path, "ours").await;
        assert_same(
            &c.content("ours", &[]),
            &c.content("vals", &[]),
            &format!("{args:?}"),
        );
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// Many readers, little memory, rows longer than a piece: everybody still comes to an end.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_share_little_memory() {
    let c = Cluster::start();
    c.create(
        "src",
        "DO $$ BEGIN FOR i IN 1..30 LOOP
           EXECUTE format('CREATE TABLE t%s (id int, v text)', i);
           EXECUTE format('INSERT INTO t%s SELECT g, repeat(md5(g::text), 20000) FROM generate_series(1, 3) g', i);
           EXECUTE format('INSERT INTO t%s SELECT g, md5(g::text) FROM generate_series(1, 5000) g', i);
         END LOOP; END $$; SELECT lo_from_bytea(i, decode(repeat(md5(i::text), 20000), 'hex')) FROM generate_series(1, 20) i",
    );
    for format in [Format::Directory, Format::DirectoryTar, Format::Plain] {
        for jobs in ["1", "2", "5"] {
            let flags = [("restore-queue-mib", "1"), ("restore-jobs", jobs)];
            let job = crate::support::job(
                &c.dump_as("src", format),
                "ours",
                pgrestored::job::OnExisting::Fail,
            );
            let done = c.restore_with(&job, &flags).await;
            assert_eq!(
                done.failure, None,
                "{format:?}, {jobs}: {:?}",
                done.result.error
            );
            assert_same(
                &c.content("ours", &[]),
                &c.content("src", &[]),
                &format!("{format:?}, {jobs}"),
            );
            c.psql("postgres", "DROP DATABASE ours");
        }
    }
}

/// The whole product with a small database: version x format x wrapping.
mod product {
    use super::{Format, Wrapping, cell};

    const SMALL: &str = include_str!("../fixtures/small.sql");

    macro_rules! wrapped {
        ($version:literal: $($module:ident $format:ident;)*) => {
            $(
                mod $module {
                    use super::*;

                    wrapped!(@ $version $format: none None, gzip Gzip, gzip_twice GzipTwice, zstd Zstd, lz4 Lz4, bzip2 Bzip2, xz Xz);
                }
            )*
            mod directory {
                use super::*;

                wrapped!(@ $version Directory: gzip_inside None);
                wrapped!(@ $version DirectoryUncompressed: none_inside None);
            }
        };
        (@ $version:literal $format:ident: $($name:ident $wrapping:ident),*) => {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    cell($version, "small", SMALL, Format::$format, Wrapping::$wrapping).await;
                }
            )*
        };
    }

    macro_rules! versions {
        ($($module:ident $version:literal;)*) => {
            $(
                mod $module {
                    use super::*;

                    wrapped! { $version:
                        custom Custom;
                        custom_piped CustomPiped;
                        custom_uncompressed CustomUncompressed;
                        plain Plain;
                        plain_inserts PlainInserts;
                        plain_create PlainCreate;
                        plain_clean PlainClean;
                        tar Tar;
                        directory_tar DirectoryTar;
                        directory_tar_toc_first DirectoryTarTocFirst;
                    }
                }
            )*
        };
    }

    versions! {
        v13 13;
        v14 14;
        v15 15;
        v16 16;
        v17 17;
        v18 18;
    }
}
