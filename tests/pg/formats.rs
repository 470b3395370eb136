//! The matrix: every format of `pg_dump`, in every wrapping, restores the same database as its source.
//! Cells of one server and database share a cluster.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use pgrestored::job::OnExisting;

use crate::support::{
    Cluster, NO_LABELS, assert_same, bindir_of, difference, is_full_campaign, job,
};

/// How the dump is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DumpFormat {
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

impl DumpFormat {
    pub const ALL: [DumpFormat; 12] = [
        DumpFormat::Custom,
        DumpFormat::CustomPiped,
        DumpFormat::CustomUncompressed,
        DumpFormat::Plain,
        DumpFormat::PlainInserts,
        DumpFormat::PlainCreate,
        DumpFormat::PlainClean,
        DumpFormat::Tar,
        DumpFormat::Directory,
        DumpFormat::DirectoryUncompressed,
        DumpFormat::DirectoryTar,
        DumpFormat::DirectoryTarTocFirst,
    ];

    /// Whether it can be wrapped: a directory cannot.
    fn is_one_file(self) -> bool {
        self.container() != Container::Folder
    }

    pub fn container(self) -> Container {
        match self {
            DumpFormat::Custom | DumpFormat::CustomPiped | DumpFormat::CustomUncompressed => {
                Container::Archive
            }
            DumpFormat::Plain
            | DumpFormat::PlainInserts
            | DumpFormat::PlainCreate
            | DumpFormat::PlainClean => Container::Text,
            DumpFormat::Tar | DumpFormat::DirectoryTar | DumpFormat::DirectoryTarTocFirst => {
                Container::Tar
            }
            DumpFormat::Directory | DumpFormat::DirectoryUncompressed => Container::Folder,
        }
    }
}

/// What the bytes of a dump are, whatever is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    Archive,
    Text,
    Tar,
    Folder,
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

impl Wrapping {
    const ALL: [Wrapping; 7] = [
        Wrapping::None,
        Wrapping::Gzip,
        Wrapping::GzipTwice,
        Wrapping::Zstd,
        Wrapping::Lz4,
        Wrapping::Bzip2,
        Wrapping::Xz,
    ];
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
    pub fn dump_as(&self, database: &str, format: DumpFormat) -> PathBuf {
        let path = self.scratch(&format!("{}.{format:?}", uuid::Uuid::new_v4()));
        let args: &[&str] = match format {
            DumpFormat::CustomPiped => return self.dump_through_pipe(database, &[]),
            DumpFormat::Custom => &["-Fc"],
            DumpFormat::CustomUncompressed => &["-Fc", "-Z0"],
            DumpFormat::Plain => &["-Fp"],
            DumpFormat::PlainInserts => &["-Fp", "--inserts", "--rows-per-insert=20"],
            DumpFormat::PlainCreate => &["-Fp", "--create"],
            DumpFormat::PlainClean => &["-Fp", "--clean"],
            DumpFormat::Tar => &["-Ft"],
            DumpFormat::DirectoryUncompressed => &["-Fd", "-Z0"],
            DumpFormat::Directory | DumpFormat::DirectoryTar | DumpFormat::DirectoryTarTocFirst => {
                &["-Fd"]
            }
        };
        let mut dump = self.sandbox.command("pg_dump");
        self.sandbox
            .run(
                dump.args(["-d", database, "-f"])
                    .arg(&path)
                    .args(NO_LABELS)
                    .args(args),
            )
            .unwrap();
        match format {
            DumpFormat::Directory | DumpFormat::DirectoryUncompressed => {
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&path, open).unwrap();
                path.join("")
            }
            DumpFormat::DirectoryTar => self.tar(&path, &["--sort=name", "-C"], "."),
            DumpFormat::DirectoryTarTocFirst => self.tar(&path, &["-C"], "toc.dat"),
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

/// One database of one server, dumped once in each format that its cells ask for.
struct Matrix {
    version: u32,
    database: &'static str,
    cluster: Cluster,
    content: String,
    dumps: HashMap<DumpFormat, PathBuf>,
}

impl Matrix {
    /// `None` where this PostgreSQL is not installed.
    fn new(version: u32, (database, sql): (&'static str, &str)) -> Option<Self> {
        let cluster = match version {
            15 => Cluster::start(),
            other => Cluster::of(&bindir_of(other)?, ""),
        };
        cluster.tablespace("space_a");
        cluster.create(database, sql);
        Some(Matrix {
            version,
            database,
            content: cluster.content(database, &[]),
            cluster,
            dumps: HashMap::new(),
        })
    }

    fn wrapped_dump(&mut self, format: DumpFormat, wrapping: Wrapping) -> PathBuf {
        let dump = self
            .dumps
            .entry(format)
            .or_insert_with(|| self.cluster.dump_as(self.database, format));
        if wrapping == Wrapping::None {
            return dump.clone();
        }
        let path = self.cluster.scratch("wrapped");
        std::fs::write(&path, wrap(&std::fs::read(dump).unwrap(), wrapping)).unwrap();
        path
    }

    /// What is wrong with the database that is restored from this format in this wrapping.
    async fn faults_of(&mut self, format: DumpFormat, wrapping: Wrapping) -> Vec<String> {
        let dump = self.wrapped_dump(format, wrapping);
        let target = format!("{format:?} {wrapping:?}");
        let done = self
            .cluster
            .try_restore(&dump, &target, OnExisting::Fail)
            .await;
        if done.failure.is_some() {
            return vec![format!("{:?}", done.result.error)];
        }
        let mut faults: Vec<String> =
            difference(&self.cluster.content(&target, &[]), &self.content)
                .into_iter()
                .collect();
        let unexpected: Vec<_> = done
            .result
            .rewrites
            .iter()
            // The tools beside servers 13 and 14 are newer than these.
            .filter(|r| r.rule != "unknown-setting" || self.version >= 15)
            .filter(|r| !["database", "clean", "schema-public"].contains(&r.rule.as_str()))
            .collect();
        if !unexpected.is_empty() {
            faults.push(format!("rewritten: {unexpected:?}"));
        }
        faults
    }

    /// Restores each cell, and fails naming every cell whose database is not the source's.
    async fn check(&mut self, cells: impl IntoIterator<Item = (DumpFormat, Wrapping)>) {
        let mut failed = String::new();
        for (format, wrapping) in cells {
            for fault in self.faults_of(format, wrapping).await {
                let (version, database) = (self.version, self.database);
                failed += &format!("{version}, {database}, {format:?}, {wrapping:?}: {fault}\n");
            }
        }
        assert!(failed.is_empty(), "{failed}");
        assert_eq!(self.cluster.leftovers(), Vec::<String>::new());
    }
}

const SAMPLES: (&str, &str) = ("samples", include_str!("samples.sql"));
const OBJECTS: (&str, &str) = ("objects", include_str!("objects.sql"));
const NAMES: (&str, &str) = ("Odd \"Näme\" $1; --", include_str!("names.sql"));
const SMALL: (&str, &str) = ("small", include_str!("../fixtures/small.sql"));

/// `values.sql`; in `make test` with a fifth of its most numerous rows, which take long as statements. `large.sql` has large
/// tables.
pub fn values() -> String {
    let (all, fewer) = ("generate_series(1, 15000)", "generate_series(1, 3000)");
    let sql = include_str!("values.sql");
    assert!(sql.contains(all), "values.sql has no {all} any more");
    if is_full_campaign() {
        sql.to_owned()
    } else {
        sql.replace(all, fewer)
    }
}

use DumpFormat::*;

/// Servers, with the formats that `make test` restores there and those that `make soak` restores, too.
type Lists = &'static [(u32, &'static [DumpFormat], &'static [DumpFormat])];

// The product below has the formats on the servers, and round_trip has the archives in the custom format. The servers' own
// tests restore the samples on each of them.
const OF_OBJECTS: Lists = &[(
    15,
    &[PlainInserts, PlainClean, DirectoryTar],
    &[
        Plain,
        PlainCreate,
        Tar,
        Directory,
        DirectoryUncompressed,
        DirectoryTarTocFirst,
    ],
)];
const OF_NAMES: Lists = &[
    (
        15,
        &[],
        &[
            Plain,
            PlainInserts,
            PlainCreate,
            PlainClean,
            Tar,
            Directory,
            DirectoryTar,
        ],
    ),
    (16, &[PlainClean, PlainInserts, Directory], &[PlainCreate]),
    (18, &[], &[PlainInserts, PlainCreate, Directory]),
];
const OF_VALUES: Lists = &[
    (
        15,
        &[],
        &[Plain, PlainInserts, Custom, Tar, Directory, DirectoryTar],
    ),
    (16, &[], &[Plain, Tar, DirectoryTar]),
    (18, &[PlainClean, PlainInserts, DirectoryTar], &[Plain, Tar]),
];
const OF_SAMPLES: Lists = &[
    (
        15,
        &[PlainInserts, PlainClean, Tar],
        &[Plain, Custom, PlainCreate, Directory, DirectoryTar],
    ),
    (13, &[], &[Custom, Plain]),
    (14, &[], &[Custom, Plain]),
    (16, &[], &[Custom, Plain]),
    (17, &[], &[Custom, Plain, Directory]),
    (18, &[], &[Custom, Plain]),
];

/// Each database is in `make test` as text with rows for COPY, as text with INSERTs, and as an archive of several files.
#[test]
fn every_database_is_text_inserts_and_files() {
    for (of, lists) in [OF_OBJECTS, OF_NAMES, OF_VALUES, OF_SAMPLES]
        .into_iter()
        .enumerate()
    {
        let mut met = [false; 3];
        for format in lists.iter().flat_map(|(_, tested, _)| *tested) {
            met[match format.container() {
                Container::Text => usize::from(*format == PlainInserts),
                _ => 2,
            }] = true;
        }
        assert_eq!(met, [true; 3], "list {of}");
    }
}

async fn in_formats((database, sql): (&'static str, &str), lists: Lists) {
    for (version, tested, others) in lists {
        let others = if is_full_campaign() { *others } else { &[][..] };
        let formats = [*tested, others].concat();
        if formats.is_empty() {
            continue;
        }
        if let Some(mut matrix) = Matrix::new(*version, (database, sql)) {
            let cells = formats.into_iter().map(|f| (f, Wrapping::None));
            matrix.check(cells).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects() {
    in_formats(OBJECTS, OF_OBJECTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names() {
    in_formats(NAMES, OF_NAMES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type() {
    in_formats(("vals", &values()), OF_VALUES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples() {
    in_formats(SAMPLES, OF_SAMPLES).await;
}

/// Formats of one file, by their containers.
const FILES: [&[DumpFormat]; 3] = [
    &[Custom, CustomPiped, CustomUncompressed],
    &[Plain, PlainInserts, PlainCreate, PlainClean],
    &[Tar, DirectoryTar, DirectoryTarTocFirst],
];

/// Folders, on the first servers.
const FOLDERS: [DumpFormat; 2] = [DirectoryUncompressed, Directory];

/// The cells of one server in the product server × format × wrapping. `make soak` runs all 432; `make test` runs 20: each
/// server has a file of each container, in another wrapping on every server, because that is removed before anybody reads
/// what is in it. Files as they are: in the tests above, and in `servers`.
fn cells_of(version: u32) -> Vec<(DumpFormat, Wrapping)> {
    if is_full_campaign() {
        let wrapped = |format: DumpFormat| {
            let possible = if format.is_one_file() {
                &Wrapping::ALL[..]
            } else {
                &[Wrapping::None]
            };
            possible.iter().map(move |wrapping| (format, *wrapping))
        };
        return DumpFormat::ALL.into_iter().flat_map(wrapped).collect();
    }
    let server = version as usize - 13;
    let wrappings = &Wrapping::ALL[1..];
    let files = FILES.into_iter().enumerate().map(|(c, formats)| {
        let wrapping = wrappings[(2 * c + server) % wrappings.len()];
        (formats[server % formats.len()], wrapping)
    });
    let folder = FOLDERS.get(server).map(|folder| (*folder, Wrapping::None));
    files.chain(folder).collect()
}

#[test]
fn every_format_occurs_and_every_wrapping_meets_the_containers() {
    let (mut formats, mut wrapped, mut count) = (HashSet::new(), HashSet::new(), 0);
    for version in 13..=18 {
        let mut containers = HashSet::new();
        for (format, wrapping) in cells_of(version) {
            count += 1;
            formats.insert(format);
            if wrapping != Wrapping::None {
                containers.insert(format.container());
                wrapped.insert((format.container(), wrapping as usize));
            }
        }
        assert_eq!(containers.len(), FILES.len(), "{version}");
    }
    assert_eq!(formats.len(), DumpFormat::ALL.len());
    assert_eq!(wrapped.len(), FILES.len() * (Wrapping::ALL.len() - 1));
    assert_eq!(count, if is_full_campaign() { 432 } else { 20 });
}

macro_rules! product {
    ($($name:ident $version:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(mut matrix) = Matrix::new($version, SMALL) {
                    matrix.check(cells_of($version)).await;
                }
            }
        )*
    };
}

product! {
    product_on_13 13;
    product_on_14 14;
    product_on_15 15;
    product_on_16 16;
    product_on_17 17;
    product_on_18 18;
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
    let source = c.content("euc", &["-E", "UTF8"]);
    let cells: [(&[&str], &[&str]); 4] = [
        (&["-E", "SJIS"], &["-Ft"]),
        (&["-E", "SJIS", "--inserts"], &["-Fp"]),
        (&["-E", "EUC_JP"], &["-Fp"]),
        (&["-E", "UTF8"], &[]),
    ];
    // `make soak` writes each in every format; the tests of encodings have each of these as text and as an archive.
    for (args, formats) in cells {
        for format in ["-Fp", "-Fc", "-Ft"] {
            if !formats.contains(&format) && !is_full_campaign() {
                continue;
            }
            let path = c.scratch(&format!("{}.dump", uuid::Uuid::new_v4()));
            let mut dump = c.sandbox.command("pg_dump");
            c.sandbox
                .run(dump.args([format, "-d", "euc", "-f"]).arg(&path).args(args))
                .unwrap();
            c.restore(&path, "ours").await;
            let ours = c.content("ours", &["-E", "UTF8"]);
            assert_same(&ours, &source, &format!("{format} {args:?}"));
            c.psql("postgres", "DROP DATABASE ours");
        }
    }
}

/// Dumps with `standard_conforming_strings = off`, as old servers wrote them.
#[tokio::test(flavor = "multi_thread")]
async fn backslashes_that_escape() {
    let c = Cluster::start();
    // What many or long rows show is shown elsewhere; as statements, they take long.
    let mut sql = include_str!("values.sql").to_owned();
    for (many, few) in [
        ("generate_series(1, 15000)", "generate_series(1, 100)"),
        ("generate_series(1, 20000)", "generate_series(1, 20)"),
        (
            "no_columns SELECT FROM generate_series(1, 1000)",
            "no_columns SELECT FROM generate_series(1, 10)",
        ),
    ] {
        assert!(sql.contains(many), "values.sql has no {many} any more");
        sql = sql.replace(many, few);
    }
    c.create("vals", &sql);
    c.psql(
        "vals",
        "CREATE VIEW back AS SELECT 'a\\b''c'::text AS t; COMMENT ON VIEW back IS '\\'';\\\\'",
    );
    let source = c.content("vals", &[]);
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
        assert_same(&c.content("ours", &[]), &source, &format!("{args:?}"));
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// Many readers, little memory, rows longer than a piece: everybody still comes to an end.
#[tokio::test(flavor = "multi_thread")]
async fn many_readers_share_little_memory() {
    let c = Cluster::start();
    c.create(
        "src",
        "DO $$ BEGIN FOR i IN 1..12 LOOP
           EXECUTE format('CREATE TABLE t%s (id int, v text)', i);
           EXECUTE format('INSERT INTO t%s SELECT g, repeat(md5(g::text), 10000) FROM generate_series(1, 2) g', i);
           EXECUTE format('INSERT INTO t%s SELECT g, md5(g::text) FROM generate_series(1, 500) g', i);
         END LOOP; END $$; SELECT lo_from_bytea(i, decode(repeat(md5(i::text), 20000), 'hex')) FROM generate_series(1, 8) i",
    );
    let expected = c.content("src", &[]);
    let formats = [
        DumpFormat::Directory,
        DumpFormat::DirectoryTar,
        DumpFormat::Plain,
    ];
    for (f, format) in formats.into_iter().enumerate() {
        let dump = c.dump_as("src", format);
        for (j, jobs) in ["1", "2", "5"].into_iter().enumerate() {
            // Each format and each number of jobs once, most readers with a folder, whose files they open themselves.
            if f + j != 2 && !is_full_campaign() {
                continue;
            }
            let flags = [("restore-queue-mib", "1"), ("restore-jobs", jobs)];
            let job = job(&dump, "ours", OnExisting::Fail);
            let done = c.restore_with(&job, &flags).await;
            let what = format!("{format:?}, {jobs}");
            assert_eq!(done.failure, None, "{what}: {:?}", done.result.error);
            assert_same(&c.content("ours", &[]), &expected, &what);
            c.psql("postgres", "DROP DATABASE ours");
        }
    }
}
