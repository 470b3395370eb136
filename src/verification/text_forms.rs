//! What the text of a table's values depends on besides the values: settings that `pg_dump` leaves as it finds them, and
//! the version of the server. It is looked up where the text of restored rows differs from the archive's.

use std::collections::HashMap;

use super::float_digits::{FLOAT4_DIGITS, FLOAT8_DIGITS};
use crate::error::{DatabaseError, FailureReason};
use crate::postgres::{Server, Session, map_pg_error};
use crate::proof::{Check, CheckStatus};

/// Formats values as `pg_dump` does, whatever the settings of the role or database.
const SETTINGS: &str = "SET search_path = ''; SET DateStyle = ISO; SET IntervalStyle = postgres; \
    SET extra_float_digits = 3; SET TimeZone = 'UTC'; SET row_security = off;";
/// The settings with which rows are read back first: PostgreSQL's defaults.
pub(super) const USUAL: &str = "SET bytea_output = hex; SET quote_all_identifiers = off";

/// Settings that the source may have had instead.
pub(super) struct OtherSettings {
    pub sql: &'static str,
    of_bytea: bool,
    of_names: bool,
}

pub(super) static OTHERS: [OtherSettings; 3] = [
    OtherSettings {
        sql: "SET bytea_output = escape",
        of_bytea: true,
        of_names: false,
    },
    // An option of pg_dump, too.
    OtherSettings {
        sql: "SET quote_all_identifiers = on",
        of_bytea: false,
        of_names: true,
    },
    OtherSettings {
        sql: "SET bytea_output = escape; SET quote_all_identifiers = on",
        of_bytea: true,
        of_names: true,
    },
];

/// float4, float8 and the geometric types.
static FLOATS: &[u32] = &[700, 701, 600, 601, 602, 603, 604, 628, 718];
/// `regclass` and the like, whose text is the name of an object.
static NAMES: &[u32] = &[
    24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191,
];
/// Types that all versions write in the same way, apart from `FLOATS`: bool, bytea, name, int8, int2, int2vector, int4,
/// text, oid, tid, xid, cid, oidvector, json, cidr, macaddr8, macaddr, inet, bpchar, varchar, date, time, timestamp,
/// timestamptz, interval, timetz, bit, varbit, numeric, uuid, tsvector, jsonb, xid8.
static STABLE: &[u32] = &[
    16, 17, 19, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30, 114, 650, 774, 829, 869, 1042, 1043, 1082,
    1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 2950, 3614, 3802, 5069,
];

/// The major version since which floating-point numbers are written with the fewest digits that identify them.
const SHORTEST_FLOATS: u32 = 12;
/// Multiranges exist since this version.
const MULTIRANGES: u32 = 140_000;

/// A session that writes values as `pg_dump` does.
pub(super) async fn connect(server: &Server, database: &str) -> Result<Session, DatabaseError> {
    let session = server.connect(database, "accounting").await?;
    session.run(SETTINGS).await?;
    Ok(session)
}

/// Major versions of the server that was dumped, if known, and of the one that restored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Majors {
    pub dumped: Option<u32>,
    pub here: u32,
}

/// What the text of a table's values depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TextForms {
    /// Whether all versions write all of its types in the same way (floating-point numbers: since 12).
    is_stable: bool,
    has_floats: bool,
    has_names: bool,
    has_bytea: bool,
    has_money: bool,
}

impl TextForms {
    /// Looks up the types of the columns of `table`, and those that they consist of: of arrays, domains, ranges and
    /// composite types.
    pub async fn of(session: &Session, table: &str) -> Result<Self, DatabaseError> {
        let sql = types_query(session.version());
        let row = session
            .client()
            .query_one(&sql, &[&table, &STABLE, &FLOATS, &NAMES])
            .await
            .map_err(|e| map_pg_error(&e, "looking up the types of a table"))?;
        Ok(TextForms {
            is_stable: row.get(0),
            has_floats: row.get(1),
            has_names: row.get(2),
            has_bytea: row.get(3),
            has_money: row.get(4),
        })
    }

    /// The columns of `table` that hold floating-point numbers, with the digits that are written of these by default.
    pub async fn float_columns(
        session: &Session,
        table: &str,
    ) -> Result<HashMap<String, i32>, DatabaseError> {
        let sql = format!(
            "{} SELECT a.attname::text, bool_or(part.oid <> 700) \
            FROM part JOIN pg_catalog.pg_attribute a \
                ON a.attrelid = pg_catalog.to_regclass($1::text) AND a.attnum = part.place \
            WHERE part.oid = ANY ($2::pg_catalog.oid[]) GROUP BY a.attname",
            parts_query(session.version())
        );
        let rows = session.client().query(&sql, &[&table, &FLOATS]).await;
        let rows = rows.map_err(|e| map_pg_error(&e, "looking up the types of a table"))?;
        let digits = |is_double: bool| {
            if is_double {
                FLOAT8_DIGITS
            } else {
                FLOAT4_DIGITS
            }
        };
        let columns = rows.iter().map(|row| (row.get(0), digits(row.get(1))));
        Ok(columns.collect())
    }

    /// Whether `pg_dump --extra-float-digits` may have rounded them. Before 12, they were always written differently.
    pub fn may_be_rounded(&self, majors: Majors) -> bool {
        self.has_floats && majors.dumped.is_none_or(|d| d >= SHORTEST_FLOATS)
    }

    pub fn depend_on(&self, settings: &OtherSettings) -> bool {
        (self.has_bytea || !settings.of_bytea) && (self.has_names || !settings.of_names)
    }

    /// Why rows with other text may be the same rows, as a check that is not made; `None` if nothing explains it.
    pub fn why_other_text(&self, majors: Majors) -> Option<Check> {
        let unclear = |why: &str| {
            let what = format!(
                "the number of rows is equal; their content cannot be compared, because {why}"
            );
            Check::new("rows", CheckStatus::NotChecked, what)
        };
        let Majors { dumped, here } = majors;
        if self.has_floats && dumped.is_some_and(|d| d < SHORTEST_FLOATS) {
            let why = "floating-point numbers were formatted differently before PostgreSQL 12";
            return Some(unclear(why).optional());
        }
        let (why, fix) = match dumped.filter(|d| *d != here && !self.is_stable) {
            Some(dumped) => (
                format!(
                    "it differs, and PostgreSQL {here} may write values of its types differently from PostgreSQL {dumped}, which was dumped"
                ),
                format!(
                    "verify on a server of PostgreSQL {dumped} (PG_BINDIR or SCRATCH_DB_HOST); the backup may be good"
                ),
            ),
            None if self.has_money => (
                "it differs, and values of type money are written by lc_monetary, which dumps do not contain".to_owned(),
                "verify on a scratch server with the source's lc_monetary (SCRATCH_DB_HOST); the backup may be good".to_owned(),
            ),
            None => return None,
        };
        let check = unclear(&why).because(FailureReason::VersionIncompatible);
        Some(check.fix(fix))
    }
}

/// The types of a table's columns and those that they consist of, as `part`.
fn parts_query(version: u32) -> String {
    let ranges = if version < MULTIRANGES {
        "r.rngtypid"
    } else {
        "r.rngtypid, r.rngmultitypid"
    };
    format!(
        "WITH RECURSIVE part(place, oid) AS ( \
            SELECT a.attnum, a.atttypid FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = pg_catalog.to_regclass($1::text) \
                AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
            UNION \
            SELECT part.place, inside.oid FROM part JOIN pg_catalog.pg_type t ON t.oid = part.oid CROSS JOIN LATERAL ( \
                SELECT t.typbasetype WHERE t.typtype = 'd' \
                UNION ALL SELECT t.typelem WHERE t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc \
                UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN ({ranges}) \
                UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
            ) inside(oid) \
        )"
    )
}

fn types_query(version: u32) -> String {
    format!(
        "{}, leaf AS ( \
            SELECT t.oid, t.typtype FROM part JOIN pg_catalog.pg_type t ON t.oid = part.oid \
            WHERE t.typtype IN ('b', 'e') AND t.typoutput <> 'pg_catalog.array_out'::pg_catalog.regproc \
        ) \
        SELECT coalesce(bool_and(typtype = 'e' OR oid = ANY ($2::pg_catalog.oid[]) OR oid = ANY ($3::pg_catalog.oid[])), true), \
            coalesce(bool_or(oid = ANY ($3::pg_catalog.oid[])), false), \
            coalesce(bool_or(oid = ANY ($4::pg_catalog.oid[])), false), \
            coalesce(bool_or(oid = 17), false), coalesce(bool_or(oid = 790), false) FROM leaf",
        parts_query(version)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_text_is_excused_only_by_what_the_types_depend_on() {
        let of = |forms: TextForms, dumped: Option<u32>| {
            let check = forms.why_other_text(Majors { dumped, here: 15 })?;
            assert_eq!(check.status, CheckStatus::NotChecked);
            Some((check.required, check.message))
        };
        let plain = TextForms {
            is_stable: true,
            ..TextForms::default()
        };
        let floats = TextForms {
            has_floats: true,
            ..plain
        };
        let other = TextForms::default();
        let money = TextForms {
            has_money: true,
            ..other
        };
        for dumped in [None, Some(9), Some(15), Some(18)] {
            assert_eq!(of(plain, dumped), None, "{dumped:?}");
        }
        assert_eq!(of(floats, Some(13)), None);
        let (required, why) = of(floats, Some(11)).unwrap();
        assert!(!required && why.contains("before PostgreSQL 12"), "{why}");
        for dumped in [13, 18] {
            let (required, why) = of(other, Some(dumped)).unwrap();
            let named = why.contains(&format!("PostgreSQL {dumped}, which was dumped"));
            assert!(required && named, "{why}");
        }
        assert_eq!(of(other, Some(15)), None);
        assert_eq!(of(other, None), None);
        let (required, why) = of(money, Some(15)).unwrap();
        assert!(required && why.contains("lc_monetary"), "{why}");
    }

    #[test]
    fn rows_are_read_again_only_with_settings_that_matter() {
        let of = |has_bytea, has_names| {
            let forms = TextForms {
                has_bytea,
                has_names,
                ..TextForms::default()
            };
            OTHERS.each_ref().map(|settings| forms.depend_on(settings))
        };
        assert_eq!(of(false, false), [false, false, false]);
        assert_eq!(of(true, false), [true, false, false]);
        assert_eq!(of(false, true), [false, true, false]);
        assert_eq!(of(true, true), [true, true, true]);
    }
}
