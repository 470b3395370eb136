//! Whether the version of the server that verifies may be why it refused a backup. Pure.

use crate::error::{Blame, ErrorBody, FailureReason as R, MAX_TEXT, line_of};
use crate::postgres::AT_FIRST_WORD;
use crate::proof::{ServerProof, Verdict, VerificationReport};

const SYNTAX_ERROR: &str = "42601";
const UNDEFINED_TABLE: &str = "42P01";
const UNDEFINED_OBJECT: &str = "42704";
/// The key of extensions among the numbers of entries.
const EXTENSION: &str = "EXTENSION";

/// Types of the system that newer versions lack.
const REMOVED: [&str; 6] = [
    "abstime",
    "opaque",
    "reltime",
    "smgr",
    "tinterval",
    "unknown",
];

/// Types whose values all versions write and read alike.
const STABLE: [&str; 6] = ["bigint", "boolean", "integer", "oid", "smallint", "uuid"];

/// The major version: 15 of `15.18 (Debian …)`, 9 of `9.6.24`.
fn major_of(version: &str) -> Option<u32> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The major versions of the dumped server and of the one that verifies.
#[derive(Clone, Copy)]
struct Versions {
    dumped: u32,
    here: u32,
    /// The dump creates extensions, whose own versions may differ on these servers, and so the objects that they bring.
    has_extensions: bool,
}

/// Whether a server of version `dumped` may accept what one of version `here` refused with this SQLSTATE. A server of the
/// dump's own version knows its objects, keywords and parameters, and reads the values that it has written; a violated
/// constraint, a duplicate or a row with missing columns is refused by every version.
fn may_be_of_version(code: &str, message: &str, versions: Versions) -> bool {
    let is_older = versions.dumped < versions.here;
    let lacks_own = is_older && !versions.has_extensions;
    match code {
        // Every version reads the rows of an older one, and the values of these types that another one writes.
        _ if code.starts_with("22") && is_of_rows(message) && is_older => false,
        "22P02" | "22003"
            if is_of_rows(message) && STABLE.iter().any(|t| is_of_type(message, t)) =>
        {
            false
        }
        // A newer version may reserve another word, but knows all statements of the older ones.
        SYNTAX_ERROR if is_older && message.contains(AT_FIRST_WORD) => false,
        // Only the system's own relations and types are other ones in another version, and those of extensions.
        UNDEFINED_TABLE if lacks_own && lacks_own_relation(message) => false,
        UNDEFINED_OBJECT if lacks_own && lacks_own_type(message) => false,
        // Duplicate columns, objects and names.
        "42701" | "42710" | "42712" | "42723" | "42P03" | "42P04" | "42P05" | "42P06" | "42P07" => {
            false
        }
        // Features, privileges that an object can have, parameters that can be set, limits such as the size of a row
        // of an index.
        "0A000" | "0LP01" | "55P02" | "54000" | "54011" | "54023" => true,
        // Values that only some versions read, such as an infinite numeric (since 14) or interval (since 17).
        "22P02" | "22P03" | "22003" | "22007" | "22008" | "22023" | "2201B" => true,
        // Syntax errors; objects, columns and types that do not exist; definitions that are not valid.
        _ => code.starts_with("42"),
    }
}

/// Whether the message is about a value in a row of the backup. One in a statement, or in a function that was running, may be
/// written as only some versions read it.
fn is_of_rows(message: &str) -> bool {
    let rest = ["COPY: a value ", "INSERT: a value "]
        .iter()
        .find_map(|begin| message.split_once(*begin));
    rest.is_some_and(|(_, rest)| !rest.contains("] (in "))
}

/// Whether the message is about a relation that does not exist, and that cannot be one of the system.
fn lacks_own_relation(message: &str) -> bool {
    let rest = message.split_once("relation \"");
    let name = rest.and_then(|(_, rest)| rest.split_once("\" does not exist"));
    let Some((name, _)) = name else {
        return false;
    };
    match name.split_once('.') {
        Some((schema, _)) => !schema.starts_with("pg_") && schema != "information_schema",
        // It is looked up in the system's schema only.
        None => !name.starts_with("pg_"),
    }
}

/// Whether the message is about a type that does not exist, is named without a schema, and is of no version.
fn lacks_own_type(message: &str) -> bool {
    let rest = message.split_once("type \"");
    let name = rest.and_then(|(_, rest)| rest.split_once("\" does not exist"));
    let Some((name, _)) = name else {
        return false;
    };
    let of_elements = name.trim_end_matches("[]");
    let of_elements = of_elements.strip_prefix('_').unwrap_or(of_elements);
    !name.contains('.') && !REMOVED.contains(&of_elements)
}

/// Whether the message is about a value of this type.
fn is_of_type(message: &str, name: &str) -> bool {
    let of_type = message.split_once("a value was rejected for type ");
    let rest = of_type.and_then(|(_, rest)| rest.strip_prefix(name));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// What the version of the verifying server has to do with a failure.
struct VersionGap {
    /// A clause about the dump.
    dump: String,
    /// The major version to verify with.
    wanted: u32,
    here: u32,
}

impl VersionGap {
    fn of(report: &VerificationReport, error: &ErrorBody) -> Option<Self> {
        let (archive, server) = (report.archive.as_ref()?, report.server.as_ref()?);
        let code = error.sqlstate.as_deref()?;
        let here = major_of(&server.version)?;
        let dumped = major_of(&archive.server_version);
        // pg_dump writes for its own and for newer versions, whatever it reads from.
        let writer = major_of(&archive.pg_dump_version).filter(|w| *w > here);
        let has_extensions = archive.entries.contains_key(EXTENSION);
        let may_be_of = |dumped| {
            let versions = Versions {
                dumped,
                here,
                has_extensions,
            };
            dumped != here && may_be_of_version(code, &error.message, versions)
        };
        // A newer pg_dump may write other clauses, but the statements are those of the dumped version.
        let is_clause = code == SYNTAX_ERROR && !error.message.contains(AT_FIRST_WORD);
        let (dump, wanted) = match (dumped, writer) {
            (Some(dumped), _) if may_be_of(dumped) => {
                (format!("the dump is of PostgreSQL {dumped}"), dumped)
            }
            (Some(_), Some(writer)) if is_clause => {
                (format!("the dump was written by pg_dump {writer}"), writer)
            }
            _ => return None,
        };
        Some(VersionGap { dump, wanted, here })
    }

    fn fix(&self, server: &ServerProof) -> String {
        let wanted = self.wanted;
        if server.kind == "sandbox" {
            format!("set PG_BINDIR to an installation of PostgreSQL {wanted}")
        } else {
            format!("set SCRATCH_DB_HOST to a server of PostgreSQL {wanted}")
        }
    }
}

/// Turns a failure into `inconclusive` if the verifying server is of another major version than the dump and may have
/// refused it for that: a limit of where it was tried, and not of the backup.
pub(crate) fn mind_the_version(report: &mut VerificationReport) {
    let error = report.error.as_ref().filter(|e| {
        report.verdict == Verdict::Failed && matches!(e.reason, R::DataRejected | R::RestoreError)
    });
    let (Some(error), Some(server)) = (error, &report.server) else {
        return;
    };
    let Some(gap) = VersionGap::of(report, error) else {
        return;
    };
    let fix = gap.fix(server);
    let why = format!(
        "; {}, this {} is PostgreSQL {}: {fix}",
        gap.dump, server.kind, gap.here
    );
    let refusal = line_of(&error.message, MAX_TEXT.saturating_sub(why.len()));
    report.error = Some(ErrorBody {
        reason: R::VersionIncompatible,
        blame: Blame::Target,
        message: refusal + &why,
        retryable: false,
        ..error.clone()
    });
    report.verdict = Verdict::Inconclusive;
    report.fix = Some(format!("{fix}; the backup may be good"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseError, DatabaseKind};
    use crate::proof::ArchiveProof;
    use crate::verification::evidence::tests::report;
    use crate::verification::verdict;
    use pgdump_restore::Stage;

    fn versions(dumped: u32, here: u32) -> Versions {
        Versions {
            dumped,
            here,
            has_extensions: false,
        }
    }

    /// The report of a dump of one version that a sandbox of another one refused.
    fn refused(dumped: &str, pg_dump: &str, here: &str, code: &str) -> VerificationReport {
        let mut r = report("r");
        r.archive = Some(ArchiveProof {
            format: "custom".into(),
            wrapped_in: vec![],
            server_version: dumped.into(),
            pg_dump_version: pg_dump.into(),
            encoding: "UTF8".into(),
            entries: Default::default(),
        });
        r.server = Some(ServerProof {
            kind: "sandbox".into(),
            version: here.into(),
            isolation: None,
        });
        let kind = match &code[..2] {
            "22" | "23" => DatabaseKind::DataRejected,
            _ => DatabaseKind::StatementRejected,
        };
        let e = DatabaseError::new(kind, "TABLE s.t: refused").with_sqlstate(code);
        verdict::fail(&mut r, &e.into(), Stage::Schema);
        assert_eq!(r.verdict, Verdict::Failed, "{code}");
        mind_the_version(&mut r);
        r
    }

    #[test]
    fn what_another_version_may_accept_is_not_blamed_on_the_backup() {
        let older = ("18.1", "18.1", "15.18");
        let newer = ("15.18 (Debian)", "15.18 (Debian)", "18.4");
        let same = ("15.18", "15.18", "15.20");
        let inconclusive = [
            "42601", "42883", "42703", "42704", "42P01", "42P13", "42P17", "42804", "0A000",
            "22023", "22P02", "54000",
        ];
        let failed = [
            "23505", "23503", "23514", "23502", "42P07", "42710", "42723", "42701", "22P04",
            "22001", "22012", "22021", "P0001",
        ];
        for (dumped, pg_dump, here) in [older, newer] {
            for code in inconclusive {
                let r = refused(dumped, pg_dump, here, code);
                let e = r.error.unwrap();
                assert_eq!(
                    (r.verdict, e.reason, e.blame, e.sqlstate.as_deref()),
                    (
                        Verdict::Inconclusive,
                        R::VersionIncompatible,
                        Blame::Target,
                        Some(code)
                    ),
                    "{dumped} in {here}"
                );
            }
            for code in failed {
                let r = refused(dumped, pg_dump, here, code);
                assert_eq!(r.verdict, Verdict::Failed, "{code}: {dumped} in {here}");
            }
        }
        for code in inconclusive {
            let (dumped, pg_dump, here) = same;
            let r = refused(dumped, pg_dump, here, code);
            assert_eq!(r.verdict, Verdict::Failed, "{code}");
        }
    }

    #[test]
    fn the_message_names_both_versions_and_what_to_set() {
        let said = |dumped, pg_dump, code| {
            let r = refused(dumped, pg_dump, "15.18", code);
            (r.error.unwrap().message, r.fix.unwrap())
        };
        assert_eq!(
            said("18.1", "18.1", "42601"),
            (
                "TABLE s.t: refused; the dump is of PostgreSQL 18, this sandbox is PostgreSQL 15: set PG_BINDIR to an installation of PostgreSQL 18".into(),
                "set PG_BINDIR to an installation of PostgreSQL 18; the backup may be good".into()
            )
        );
        // Every version reads every other one's integers.
        let of_type = |name: &str| format!("COPY: a value was rejected for type {name} [22P02]");
        let newer = |message: &str| may_be_of_version("22P02", message, versions(18, 15));
        assert!(!newer(&of_type("integer")));
        assert!(newer(&of_type("oidvector")));
        assert!(newer("COPY: a value was rejected [22P02]"));
        // Nothing speaks for another version.
        assert_eq!(refused("", "", "15.18", "42601").verdict, Verdict::Failed);
        // A newer pg_dump may write what the dumped version itself cannot read; it does not make objects disappear.
        let (writer, _) = said("15.18", "17.2", "42601");
        assert!(writer.contains("written by pg_dump 17"), "{writer}");
        let mut broken = refused("15.18", "17.2", "15.18", "42P07");
        let error = broken.error.as_mut().unwrap();
        error.sqlstate = Some(SYNTAX_ERROR.into());
        error.message.push_str(AT_FIRST_WORD);
        mind_the_version(&mut broken);
        assert_eq!(broken.verdict, Verdict::Failed);
        let gone = refused("15.18", "17.2", "15.18", "42883");
        assert_eq!(gone.verdict, Verdict::Failed);
        // What is appended is kept, however long the server's message is.
        let mut r = refused("18.1", "18.1", "15.18", "23505");
        let error = r.error.as_mut().unwrap();
        (error.sqlstate, error.message) = (Some("42601".into()), "x".repeat(MAX_TEXT));
        mind_the_version(&mut r);
        let message = r.error.unwrap().message;
        assert!(message.len() <= MAX_TEXT, "{}", message.len());
        assert!(
            message.ends_with("installation of PostgreSQL 18"),
            "{message}"
        );
    }

    /// A function may write integers as only newer versions read them (`1_000`); rows are written as every version reads them.
    #[test]
    fn only_the_rows_of_stable_types_are_the_backups_fault() {
        let value = "a value was rejected for type integer [22P02]";
        let running = "(in PL/pgSQL function public.f() line 1 at RETURN)";
        for (message, is_excused) in [
            (format!("TABLE DATA public.t: COPY: {value}"), false),
            (format!("TABLE DATA public.t: INSERT: {value}"), false),
            (format!("line 9: COPY public.t: COPY: {value}"), false),
            (format!("line 9: CREATE TABLE: statement: {value}"), true),
            (
                format!("MATERIALIZED VIEW DATA public.m: statement: {value} {running}"),
                true,
            ),
            // A check or a trigger.
            (
                format!("TABLE DATA public.t: COPY: {value} {running}"),
                true,
            ),
        ] {
            let excused = may_be_of_version("22P02", &message, versions(17, 15));
            assert_eq!(excused, is_excused, "{message}");
        }
    }

    /// A newer server reads what an older one has written, and knows its statements.
    #[test]
    fn an_older_dump_has_fewer_excuses() {
        let begun = format!("syntax error at or near \"CREXTE\" [42601]{AT_FIRST_WORD}");
        for (code, message, is_excused) in [
            ("42601", begun.as_str(), false),
            ("42601", "syntax error at or near \"end\" [42601]", true),
            (
                "42P01",
                "relation \"public.q\" does not exist [42P01]",
                false,
            ),
            ("42P01", "relation \"q\" does not exist [42P01]", false),
            (
                "42P01",
                "relation \"pg_catalog.q\" does not exist [42P01]",
                true,
            ),
            (
                "42P01",
                "relation \"information_schema.q\" does not exist",
                true,
            ),
            (
                "42P01",
                "relation \"pg_shadow\" does not exist [42P01]",
                true,
            ),
            ("42P01", "missing FROM-clause entry for table \"q\"", true),
            (
                "22P02",
                "t: COPY: a value was rejected for type inet",
                false,
            ),
            ("22007", "t: INSERT: a value was rejected [22007]", false),
            ("22P02", "line 9: statement: a value was rejected", true),
            ("42704", "t: COPY: type \"abstime\" does not exist", true),
            ("42704", "type \"abstime[]\" does not exist [42704]", true),
            ("42704", "type \"_tinterval\" does not exist [42704]", true),
            ("42704", "type \"integxr\" does not exist [42704]", false),
            ("42704", "type \"integxr[]\" does not exist [42704]", false),
            (
                "42704",
                "type \"pg_catalog.integxr\" does not exist [42704]",
                true,
            ),
            (
                "42704",
                "access method \"heaq\" does not exist [42704]",
                true,
            ),
        ] {
            let excused = |versions| may_be_of_version(code, message, versions);
            assert_eq!(excused(versions(14, 15)), is_excused, "{message}");
            assert!(excused(versions(16, 15)), "{message}");
            // An extension of another version may have other relations and types.
            let with_extensions = Versions {
                has_extensions: true,
                ..versions(14, 15)
            };
            let is_object = matches!(code, UNDEFINED_TABLE | UNDEFINED_OBJECT);
            assert_eq!(
                excused(with_extensions),
                is_excused || is_object,
                "{message}"
            );
        }
    }

    /// The table of contents tells whether the dump creates extensions.
    #[test]
    fn what_an_extension_may_have_brought_is_not_blamed_on_the_backup() {
        let verdict = |entries: &[(&str, u64)]| {
            let mut r = refused("14.2", "14.2", "15.18", "42P07");
            let error = r.error.as_mut().unwrap();
            error.sqlstate = Some("42P01".into());
            error.message = "relation \"public.raster_columns\" does not exist [42P01]".into();
            let archive = r.archive.as_mut().unwrap();
            archive.entries = entries.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect();
            mind_the_version(&mut r);
            r.verdict
        };
        assert_eq!(verdict(&[("VIEW", 1)]), Verdict::Failed);
        assert_eq!(
            verdict(&[("EXTENSION", 1), ("VIEW", 1)]),
            Verdict::Inconclusive
        );
    }

    #[test]
    fn major_versions_are_read() {
        assert_eq!(major_of("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("9.6.24"), Some(9));
        assert_eq!(major_of("18beta1"), Some(18));
        assert_eq!(major_of(""), None);
    }
}
