//! Reads the settings and counters that matter from a server: one query, whose failure is nobody's failure.

use super::amounts::in_unit;
use crate::postgres::{Session, map_pg_error};

/// The settings that are read. The view lacks those that a role may not see.
const NAMES: [&str; 10] = [
    "archive_mode",
    "checkpoint_completion_target",
    "checkpoint_timeout",
    "full_page_writes",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_wal_size",
    "shared_buffers",
    "wal_compression",
    "wal_level",
];

/// The first version with `pg_stat_checkpointer`, whose counters were in `pg_stat_bgwriter` before.
const CHECKPOINTER: u32 = 170_000;
/// The first version that compresses WAL with lz4, if it is built with it.
pub(super) const WAL_LZ4: u32 = 150_000;

/// The settings of a server that decide how fast it restores; `None` for those that the role may not see.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerSettings {
    /// `server_version_num`.
    pub version: u32,
    /// In bytes, as are all sizes here.
    pub max_wal_size: Option<u64>,
    /// In milliseconds.
    pub checkpoint_timeout: Option<u64>,
    /// From 0 to 1.
    pub checkpoint_completion_target: Option<f64>,
    pub maintenance_work_mem: Option<u64>,
    pub shared_buffers: Option<u64>,
    pub wal_level: Option<String>,
    pub wal_compression: Option<String>,
    pub full_page_writes: Option<bool>,
    pub max_parallel_maintenance_workers: Option<u64>,
    /// Whether a replica, a replication slot or an archive needs the WAL; also if that is not known.
    pub is_wal_needed: bool,
}

/// Settings and counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    pub settings: ServerSettings,
    /// Checkpoints since the counters were reset: those that were due by time, and those that were requested, because of
    /// the amount of WAL above all.
    pub timed_checkpoints: Option<u64>,
    pub requested_checkpoints: Option<u64>,
    /// Position in the WAL, in bytes.
    pub wal_position: Option<u64>,
}

/// The sizes of the largest indexes of a database, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexSizes {
    pub largest_btree: u64,
    /// Of another kind, such as GIN.
    pub largest_other: u64,
}

/// What is read: name, value and unit of each.
fn query(version: u32) -> String {
    let (view, timed, requested) = if version >= CHECKPOINTER {
        ("pg_stat_checkpointer", "num_timed", "num_requested")
    } else {
        ("pg_stat_bgwriter", "checkpoints_timed", "checkpoints_req")
    };
    let names = NAMES.join("', '");
    format!(
        "SELECT name, setting, coalesce(unit, '') FROM pg_settings WHERE name IN ('{names}')
        UNION ALL SELECT 'timed checkpoints', {timed}::text, '' FROM {view}
        UNION ALL SELECT 'requested checkpoints', {requested}::text, '' FROM {view}
        UNION ALL SELECT 'wal position', pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::text, ''
        UNION ALL SELECT 'followers', ((SELECT count(*) FROM pg_stat_replication)
            + (SELECT count(*) FROM pg_replication_slots))::text, ''"
    )
}

/// The sizes as CREATE INDEX has recorded them, so that no file is looked at.
const INDEX_SIZES: &str = "SELECT
        coalesce(max(c.relpages) FILTER (WHERE a.amname = 'btree'), 0)::int8 * current_setting('block_size')::int8,
        coalesce(max(c.relpages) FILTER (WHERE a.amname <> 'btree'), 0)::int8 * current_setting('block_size')::int8
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE c.relkind = 'i'";

/// Reads settings and counters; any database will do. `None` if the server does not answer: advice is not worth an error.
pub async fn read(session: &Session) -> Option<Reading> {
    let sql = query(session.version());
    match session.client().query(sql.as_str(), &[]).await {
        Ok(rows) => {
            let rows: Vec<[String; 3]> = rows
                .iter()
                .filter_map(|row| Some([text(row, 0)?, text(row, 1)?, text(row, 2)?]))
                .collect();
            Some(Reading::of(session.version(), &rows))
        }
        Err(e) => {
            let error = map_pg_error(&e, "reading the server's settings");
            tracing::debug!(%error, "no advice about the server's settings");
            None
        }
    }
}

fn text(row: &tokio_postgres::Row, column: usize) -> Option<String> {
    row.try_get::<_, Option<String>>(column).ok().flatten()
}

/// The largest indexes of the session's database; `None` if the server does not answer.
pub async fn index_sizes(session: &Session) -> Option<IndexSizes> {
    let row = session.client().query_one(INDEX_SIZES, &[]).await.ok()?;
    let size = |column| u64::try_from(row.try_get::<_, i64>(column).ok()?).ok();
    Some(IndexSizes {
        largest_btree: size(0)?,
        largest_other: size(1)?,
    })
}

impl Reading {
    /// What these rows of the query say: name, value and unit of each.
    fn of(version: u32, rows: &[[String; 3]]) -> Self {
        let row = |name: &str| rows.iter().find(|r| r[0] == name);
        let word = |name: &str| row(name).map(|r| r[1].clone());
        let amount = |name: &str| {
            let [_, value, unit] = row(name)?;
            in_unit(value.parse().ok()?, unit)
        };
        let is_set = |name: &str| word(name).map(|value| value == "on");
        let has_archive = word("archive_mode").is_none_or(|mode| mode != "off");
        let has_followers = amount("followers").is_none_or(|n| n > 0);
        Reading {
            settings: ServerSettings {
                version,
                max_wal_size: amount("max_wal_size"),
                checkpoint_timeout: amount("checkpoint_timeout"),
                checkpoint_completion_target: word("checkpoint_completion_target")
                    .and_then(|value| value.parse().ok()),
                maintenance_work_mem: amount("maintenance_work_mem"),
                shared_buffers: amount("shared_buffers"),
                wal_level: word("wal_level"),
                wal_compression: word("wal_compression"),
                full_page_writes: is_set("full_page_writes"),
                max_parallel_maintenance_workers: amount("max_parallel_maintenance_workers"),
                is_wal_needed: has_archive || has_followers,
            },
            timed_checkpoints: amount("timed checkpoints"),
            requested_checkpoints: amount("requested checkpoints"),
            wal_position: amount("wal position"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(all: &[(&str, &str, &str)]) -> Vec<[String; 3]> {
        let rows = all.iter();
        rows.map(|(name, value, unit)| [*name, *value, *unit].map(str::to_owned))
            .collect()
    }

    #[test]
    fn counters_are_read_where_each_version_has_them() {
        for version in [130_000, 140_000, 150_018, 160_000] {
            let sql = query(version);
            assert!(
                sql.contains("checkpoints_req::text, '' FROM pg_stat_bgwriter"),
                "{sql}"
            );
            assert!(!sql.contains("pg_stat_checkpointer"), "{sql}");
        }
        for version in [170_000, 180_001] {
            let sql = query(version);
            assert!(
                sql.contains("num_requested::text, '' FROM pg_stat_checkpointer"),
                "{sql}"
            );
            assert!(!sql.contains("pg_stat_bgwriter"), "{sql}");
        }
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let read = Reading::of(
            150_018,
            &rows(&[
                ("max_wal_size", "1024", "MB"),
                ("checkpoint_timeout", "300", "s"),
                ("checkpoint_completion_target", "0.9", ""),
                ("shared_buffers", "16384", "8kB"),
                ("maintenance_work_mem", "65536", "kB"),
                ("full_page_writes", "on", ""),
                ("archive_mode", "off", ""),
                ("followers", "0", ""),
                ("requested checkpoints", "7", ""),
                ("wal position", "25769803776", ""),
            ]),
        );
        let settings = &read.settings;
        assert_eq!(settings.max_wal_size, Some(1 << 30));
        assert_eq!(settings.checkpoint_timeout, Some(300_000));
        assert_eq!(settings.checkpoint_completion_target, Some(0.9));
        assert_eq!(settings.shared_buffers, Some(128 << 20));
        assert_eq!(settings.maintenance_work_mem, Some(64 << 20));
        assert_eq!(settings.full_page_writes, Some(true));
        assert!(!settings.is_wal_needed);
        assert_eq!(read.requested_checkpoints, Some(7));
        assert_eq!(read.wal_position, Some(24 << 30));
        assert_eq!(read.timed_checkpoints, None);
    }

    #[test]
    fn what_a_role_may_not_see_is_not_known() {
        let read = Reading::of(180_000, &[]);
        let unknown = ServerSettings {
            version: 180_000,
            is_wal_needed: true,
            ..ServerSettings::default()
        };
        assert_eq!(read.settings, unknown);
        let archived = [("archive_mode", "always", ""), ("followers", "0", "")];
        assert!(
            Reading::of(150_000, &rows(&archived))
                .settings
                .is_wal_needed
        );
        let followed = [("archive_mode", "off", ""), ("followers", "1", "")];
        assert!(
            Reading::of(150_000, &rows(&followed))
                .settings
                .is_wal_needed
        );
    }
}
