//! `cargo bench -p pgdump-restore --bench read`: processor time of reading a custom archive and of converting its rows, per kB of
//! rows, by stage. Arguments: rounds (3), whose fastest counts, then the archive (one with rows like those of
//! `benches/mixed.sql`).

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::Command;

use pgdump_archive::{
    Archive, ArchiveError, ArchiveSource, ArchiveWriter, Chunk, Codec, Crc32c, DataSink,
    DecryptionKeys, Format, Header, Limits, TextEncoding, TocEntry,
};
use pgdump_mask::TableShape;
use pgdump_restore::{Columns, shape_for_copy, table_shapes};
use tokio_postgres::types::Type;

const ROWS: u64 = 150_000;
/// Bytes that the reader takes from a download at once.
const READ: usize = 256 << 10;
/// What makes glibc keep the memory that is freed. To get it from the system again for each chunk would be most of what is
/// measured; of a restore it is little, because chunks wait in a queue.
const KEEP_MEMORY: [&str; 2] = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];

fn main() {
    // Under `cargo test --benches`, nothing is measured.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    if std::env::var_os(KEEP_MEMORY[0]).is_none() {
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        again.envs(KEEP_MEMORY.map(|name| (name, "1000000000")));
        panic!("{}", again.args(std::env::args_os().skip(1)).exec());
    }
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let rounds = arguments.next().map_or(3, |n| n.parse().expect("rounds"));
    let archive = match arguments.next() {
        Some(path) => std::fs::read(path).expect("the archive"),
        None => generated(),
    };
    let archive: &'static [u8] = archive.leak();
    let plain: &'static [u8] = uncompressed(archive).leak();
    let rows = read(archive, MeasuredWork::None);
    println!("{} bytes, {rows} bytes of rows", archive.len());
    let nanoseconds = |work: &dyn Fn()| {
        let used = (0..rounds).map(|_| processor_time(work));
        used.fold(f64::MAX, f64::min) * 1000.0 / rows as f64
    };
    let reading = |archive: &'static [u8], work| {
        nanoseconds(&|| {
            black_box(read(archive, work));
        })
    };
    let whole = reading(archive, MeasuredWork::None);
    let cut = reading(plain, MeasuredWork::None);
    let checksum = nanoseconds(&|| {
        let parts = archive.chunks(READ);
        black_box(parts.fold(Crc32c::default(), Crc32c::append));
    });
    let stages = [
        ("CRC32C of the archive", checksum),
        ("blocks, cut at row ends", cut),
        ("inflate, Adler-32", whole - cut),
        (
            "lines of chunks",
            reading(archive, MeasuredWork::Lines) - whole,
        ),
        (
            "CRC32C of chunks",
            reading(archive, MeasuredWork::Checksum) - whole,
        ),
        ("to tuples", reading(archive, MeasuredWork::Tuples) - whole),
    ];
    for (stage, spent) in stages {
        println!("{stage:24} {spent:7.1} ns of processor time per kB of rows");
    }
    let total: f64 = stages.iter().map(|(_, spent)| spent).sum();
    println!("{:24} {total:7.1}", "all");
}

/// What is done with each chunk of rows.
#[derive(Clone, Copy, PartialEq)]
enum MeasuredWork {
    None,
    Lines,
    Checksum,
    Tuples,
}

struct Sink {
    work: MeasuredWork,
    shapes: HashMap<(String, String), TableShape>,
    columns: Option<Columns>,
    bytes: usize,
}

impl DataSink for Sink {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let schema = entry.namespace.as_deref().unwrap_or_default();
        let shape = shape_for_copy(&self.shapes, schema, &entry.tag, None);
        let types: Option<Vec<Type>> = shape.columns.iter().map(|c| of(&c.sql_type)).collect();
        self.columns = types.and_then(|types| Columns::of(&types));
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        let text = chunk.bytes();
        self.bytes += text.len();
        match self.work {
            MeasuredWork::None => {}
            MeasuredWork::Lines => {
                black_box(memchr::memchr_iter(b'\n', text).count());
            }
            MeasuredWork::Checksum => {
                black_box(Crc32c::of(text));
            }
            MeasuredWork::Tuples => {
                black_box(self.columns.as_ref().map(|c| c.tuples(text)));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
}

fn of(sql_type: &str) -> Option<Type> {
    Some(match sql_type.split('(').next()? {
        "bigint" => Type::INT8,
        "integer" => Type::INT4,
        "uuid" => Type::UUID,
        "text" => Type::TEXT,
        "character varying" => Type::VARCHAR,
        "timestamp with time zone" => Type::TIMESTAMPTZ,
        "numeric" => Type::NUMERIC,
        "double precision" => Type::FLOAT8,
        "jsonb" => Type::JSONB,
        "text[]" => Type::TEXT_ARRAY,
        _ => return None,
    })
}

fn open(archive: &'static [u8]) -> Archive {
    let origin = ArchiveSource::Stream {
        bytes: Box::new(archive),
        reopen: None,
    };
    Archive::open(origin, Limits::default(), &DecryptionKeys::default()).expect("an archive")
}

/// Reads an archive; returns the bytes of its rows.
fn read(archive: &'static [u8], work: MeasuredWork) -> usize {
    let archive = open(archive);
    let mut sink = Sink {
        work,
        shapes: table_shapes(archive.entries()),
        columns: None,
        bytes: 0,
    };
    archive.read_data(&mut sink).expect("the data");
    sink.bytes
}

/// Writes what it is given into another archive.
struct UncompressedCopy(ArchiveWriter<Vec<u8>>);

impl DataSink for UncompressedCopy {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.0.begin(entry)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match chunk {
            Chunk::LargeObject { oid, bytes, .. } => self.0.large_object(oid, &bytes),
            rows => self.0.table_data(rows.bytes()),
        }
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        self.0.end()
    }
}

fn uncompressed(archive: &'static [u8]) -> Vec<u8> {
    let archive = open(archive);
    let entries: Vec<&TocEntry> = archive.entries().iter().collect();
    let (header, encoding) = (archive.header(), archive.encoding());
    let writer = ArchiveWriter::new(Vec::new(), header, &entries, encoding, Codec::None);
    let mut copy = UncompressedCopy(writer.expect("a head"));
    archive.read_data(&mut copy).expect("the data");
    copy.0.finish().expect("an archive")
}

/// Nanoseconds that this thread runs.
fn processor_time(work: &dyn Fn()) -> f64 {
    let now = || {
        // The kernel counts when it schedules.
        std::thread::yield_now();
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let nanoseconds = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
        nanoseconds.expect("a number")
    };
    let before = now();
    work();
    now() - before
}

const TABLE: &str = "CREATE TABLE public.t (\n    id bigint NOT NULL,\n    tenant_id integer NOT NULL,\n    user_id integer,\n    \
    parent_id bigint,\n    uuid uuid NOT NULL,\n    status text NOT NULL,\n    created_at timestamp with time zone NOT NULL,\n    \
    amount numeric(14,2),\n    score double precision,\n    title character varying(200),\n    body text,\n    attrs jsonb,\n    \
    tags text[]\n);\n";

/// An archive of one table.
fn generated() -> Vec<u8> {
    let entry = |id, kind, tag| TocEntry {
        namespace: Some("public".to_owned()),
        ..TocEntry::bare(id, kind, tag)
    };
    let table = TocEntry {
        defn: TABLE.to_owned(),
        ..entry(1, "TABLE", "t")
    };
    let data = TocEntry {
        has_data: true,
        copy_stmt: "COPY public.t FROM stdin;\n".to_owned(),
        ..entry(2, "TABLE DATA", "t")
    };
    let header = Header {
        format: Format::Custom,
        filters: Vec::new(),
        version: Some((1, 14, 0)),
        int_size: 4,
        off_size: 8,
        codec: Codec::Gzip,
        created: None,
        database: Some("d".to_owned()),
        server_version: "15.18".to_owned(),
        pg_dump_version: "15.18".to_owned(),
    };
    let (entries, utf8) = ([&table, &data], TextEncoding::new("UTF8"));
    let writer = ArchiveWriter::new(Vec::new(), &header, &entries, &utf8, Codec::Gzip);
    let mut writer = writer.expect("a head");
    writer.begin(&data).expect("a block");
    for row in (1..=ROWS).map(row) {
        writer.table_data(row.as_bytes()).expect("rows");
    }
    writer.end().expect("a block");
    writer.finish().expect("an archive")
}

/// A mixed-up number, in place of a hash function of the server.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// In place of an MD5 sum.
fn hex(n: u64) -> String {
    format!("{:016x}{:016x}", mixed(n), mixed(n ^ 0x5555))
}

/// A value in the rows of which this holds, and NULL in the others.
fn only_if(holds: bool, value: String) -> String {
    if holds { value } else { "\\N".to_owned() }
}

/// A row of `benches/mixed.sql`.
fn row(g: u64) -> String {
    let h = |n: u64| mixed(g.wrapping_mul(31) + n);
    let id = hex(g);
    let (minutes, mut row) = (3 * g, String::new());
    let status = ["new", "open", "done", "void"][(h(2) % 4) as usize];
    let _ = write!(
        row,
        "{g}\t{}\t{}\t{}\t{}-{}-{}-{}-{}\t{status}\t2022-{:02}-{:02} {:02}:{:02}:00+00\t{}.{:02}\t{}\ttitle {}\t\
         {} a body that says about the same as others {}\t",
        1 + h(0) % 1024,
        1 + h(1) % 65_536,
        1 + h(3) % ROWS,
        &id[..8],
        &id[8..12],
        &id[12..16],
        &id[16..20],
        &id[20..],
        1 + minutes / 40_320 % 12,
        1 + minutes / 1440 % 28,
        minutes / 60 % 24,
        minutes % 60,
        h(4) % 167_772,
        h(4) % 100,
        (h(5) % 65_536) as f64 / 7.0,
        hex(g % 9973),
        hex(g % 4999),
        hex(g * 3),
    );
    let attributes = format!("{{\"n\": {}, \"ref\": \"{id}\"}}", g % 1000);
    let tags = format!("{{t{},u{}}}", g % 50, g % 20);
    let _ = writeln!(
        row,
        "{}\t{}",
        only_if(!g.is_multiple_of(4), attributes),
        only_if(g.is_multiple_of(3), tags)
    );
    row
}
