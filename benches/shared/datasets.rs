//! The datasets: made by SQL with fixed seeds, so that everyone measures the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgrestored::sandbox::Sandbox;

/// How a dump comes into the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `pg_dump -Fc -f`: with data offsets.
    Custom,
    /// `pg_dump -Fc |`: none.
    Piped,
    /// `pg_dump -Fc -Z0 | zstd`.
    PipedZstd,
    /// `pg_dump -Fp | gzip`.
    PlainGzip,
}

pub struct Dataset {
    pub name: &'static str,
    sql: &'static str,
    /// At a scale of 1.
    pub rows: f64,
    pub form: Form,
}

const EVENTS: &str = include_str!("../events.sql");
const MIXED: &str = include_str!("../mixed.sql");
const PGBENCH: &str = include_str!("../pgbench.sql");
const MANY: &str = include_str!("../many.sql");
const OBJECTS: &str = include_str!("../objects.sql");

pub const ALL: [Dataset; 10] = [
    Dataset {
        name: "mixed",
        sql: MIXED,
        rows: 120_000.0,
        form: Form::Custom,
    },
    Dataset {
        name: "events",
        sql: EVENTS,
        rows: 3_000_000.0,
        form: Form::Custom,
    },
    Dataset {
        name: "pgbench",
        sql: PGBENCH,
        rows: 6_000_000.0,
        form: Form::Custom,
    },
    Dataset {
        name: "many",
        sql: MANY,
        rows: 2_000.0,
        form: Form::Custom,
    },
    Dataset {
        name: "objects",
        sql: OBJECTS,
        rows: 4_500.0,
        form: Form::Custom,
    },
    Dataset {
        name: "piped mixed",
        sql: MIXED,
        rows: 120_000.0,
        form: Form::Piped,
    },
    Dataset {
        name: "piped events",
        sql: EVENTS,
        rows: 3_000_000.0,
        form: Form::Piped,
    },
    Dataset {
        name: "zstd mixed",
        sql: MIXED,
        rows: 120_000.0,
        form: Form::PipedZstd,
    },
    Dataset {
        name: "zstd events",
        sql: EVENTS,
        rows: 3_000_000.0,
        form: Form::PipedZstd,
    },
    Dataset {
        name: "plain mixed",
        sql: MIXED,
        rows: 120_000.0,
        form: Form::PlainGzip,
    },
];

impl Form {
    fn suffix(self) -> &'static str {
        match self {
            Form::Custom | Form::Piped => "dump",
            Form::PipedZstd => "dump.zst",
            Form::PlainGzip => "sql.gz",
        }
    }

    /// The shell's words after `pg_dump`.
    fn words(self) -> &'static str {
        match self {
            Form::Custom => "-Fc -f \"$0\"",
            Form::Piped => "-Fc | cat > \"$0\"",
            Form::PipedZstd => "-Fc -Z0 | zstd -q > \"$0\"",
            Form::PlainGzip => "-Fp | gzip > \"$0\"",
        }
    }
}

impl Dataset {
    /// Makes the dump in `folder`, unless it is there. `scale` multiplies the rows.
    pub fn dump(&self, bindir: &Path, folder: &Path, scale: f64) -> PathBuf {
        let rows = (self.rows * scale).max(30.0) as u64;
        let dump = folder.join(format!(
            "{}-{rows}.{}",
            self.name.replace(' ', "-"),
            self.form.suffix()
        ));
        if !dump.exists() {
            make_dump(bindir, folder, self.sql, rows, self.form, &dump);
        }
        dump
    }
}

pub fn make_dump(bindir: &Path, folder: &Path, sql: &str, rows: u64, form: Form, dump: &Path) {
    let options = "-c max_locks_per_transaction=1024 -c fsync=off";
    let source =
        Sandbox::start(bindir, &std::env::temp_dir(), false, options).expect("a source cluster");
    let script = folder.join("dataset.sql");
    std::fs::write(&script, sql).expect("the script");
    let mut psql = source.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v"])
        .arg(format!("rows={rows}"));
    source
        .run(psql.arg("-o/dev/null").arg("-f").arg(&script))
        .expect("the dataset");
    let line = format!(
        "set -o pipefail; \"{}\" -h \"{}\" -U postgres {}",
        bindir.join("pg_dump").display(),
        source.host(),
        form.words()
    );
    let made = Command::new("bash")
        .arg("-c")
        .arg(line)
        .arg(dump)
        .arg("postgres")
        .stdin(Stdio::null())
        .status();
    assert!(made.is_ok_and(|s| s.success()), "the dump");
}
