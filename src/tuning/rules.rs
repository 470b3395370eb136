//! From settings, and what a restore saw or a backup foretells, to advice. Each rule says when a setting matters at all, so
//! that a server with its defaults and a small restore get no advice.

use super::amounts::{amount, rounded_up, size, time};
use super::gains::{Gain, Measurement, gain_of, measured};
use super::reading::{IndexSizes, Reading, ServerSettings, WAL_LZ4};
use crate::event::{Advice, MOST_ADVICE, MeasuredGain};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A restore shorter than this gets advice only about what it saw itself, in seconds.
const WORTH_SECONDS: f64 = 10.0;
/// The same for a backup that was not restored yet, by the estimated size of its database.
const WORTH_BYTES: u64 = GIB;
/// Checkpoints during a load that nobody needs to think about.
const FEW_CHECKPOINTS: u64 = 1;
/// Up to version 14, counters are up to half a second late, and may then have the checkpoints of CREATE DATABASE, which came
/// before the load.
const EXACT_COUNTERS: u32 = 150_000;
const LATE_CHECKPOINTS: u64 = 2;
/// `checkpoint_timeout` from which on there is nothing to gain, and what is suggested below, in milliseconds.
const LONG_TIMEOUT: u64 = 15 * 60_000;
const SUGGESTED_TIMEOUT: u64 = 30 * 60_000;
/// The default of `checkpoint_timeout`. Without having seen a load, only less is worth a word.
const DEFAULT_TIMEOUT: u64 = 5 * 60_000;
/// The default of `checkpoint_completion_target` since version 14.
const SPREAD: f64 = 0.9;
/// PostgreSQL's default of `maintenance_work_mem`, and the most that is suggested.
const DEFAULT_SORT_MEMORY: u64 = 64 * MIB;
const MOST_SORT_MEMORY: u64 = 2 * GIB;
/// PostgreSQL's default of `shared_buffers`, and what is suggested up to there.
const DEFAULT_BUFFERS: u64 = 128 * MIB;
const SUGGESTED_BUFFERS: u64 = GIB;
/// An index of this size is worth several processes.
const LARGE_INDEX: u64 = 256 * MIB;
/// Memory that merging one more run takes (`tuplesort.c`), and bytes sorted for each byte of a finished B-tree.
const RUN_BYTES: u64 = 34 * 8192;
const SORTED_PER_BYTE: u64 = 3;

/// What a restore saw of the server while it loaded, and built indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    pub seconds: f64,
    /// WAL that the server wrote meanwhile, for whomever.
    pub wal_bytes: Option<u64>,
    pub timed_checkpoints: Option<u64>,
    pub requested_checkpoints: Option<u64>,
    pub indexes: Option<IndexSizes>,
}

impl Load {
    /// What happened between two readings. Counters that were reset meanwhile say nothing.
    pub fn between(before: &Reading, after: &Reading, seconds: f64) -> Self {
        let since = |of: fn(&Reading) -> Option<u64>| of(after)?.checked_sub(of(before)?);
        let requested = since(|r| r.requested_checkpoints);
        let late = if after.settings.version < EXACT_COUNTERS {
            LATE_CHECKPOINTS
        } else {
            0
        };
        Load {
            seconds,
            wal_bytes: since(|r| r.wal_position),
            timed_checkpoints: since(|r| r.timed_checkpoints),
            requested_checkpoints: requested.map(|n| n.saturating_sub(late)),
            indexes: None,
        }
    }

    /// Whether the load was long enough to think about settings.
    pub fn is_worth(&self) -> bool {
        self.seconds >= WORTH_SECONDS
    }
}

/// What the advice is about.
#[derive(Debug, Clone, PartialEq)]
pub enum AdviceSubject {
    /// A backup whose database will have about this many bytes, if that is known.
    Ahead(Option<u64>),
    /// A restore.
    Seen(Load),
}

/// At most a handful of settings that make restores slower, largest measured gain first.
pub fn advise(settings: &ServerSettings, subject: &AdviceSubject) -> Vec<Advice> {
    advise_by(measured(), settings, subject)
}

fn advise_by(
    measured: &[Measurement],
    settings: &ServerSettings,
    subject: &AdviceSubject,
) -> Vec<Advice> {
    let rules = TuningRules {
        measured,
        settings,
        subject,
    };
    let all = [
        rules.max_wal_size(),
        rules.checkpoint_timeout(),
        rules.checkpoint_completion_target(),
        rules.maintenance_work_mem(),
        rules.wal_level(),
        rules.max_parallel_maintenance_workers(),
        rules.wal_compression(),
        rules.shared_buffers(),
    ];
    let mut advice: Vec<Advice> = all.into_iter().flatten().collect();
    let share = |a: &Advice| a.gain.as_ref().map_or(0.0, |gain| gain.share);
    // Stable: what is not measured stays in the order above.
    advice.sort_by(|a, b| share(b).total_cmp(&share(a)));
    advice.truncate(MOST_ADVICE);
    advice
}

struct TuningRules<'a> {
    measured: &'a [Measurement],
    settings: &'a ServerSettings,
    subject: &'a AdviceSubject,
}

/// The advice without its gain.
struct Change<'a> {
    setting: &'a str,
    value: String,
    suggested: String,
    reason: String,
}

impl TuningRules<'_> {
    fn load(&self) -> Option<&Load> {
        match self.subject {
            AdviceSubject::Seen(load) => Some(load),
            AdviceSubject::Ahead(_) => None,
        }
    }

    /// Whether the restore is large enough for advice that rests on its size alone.
    fn is_large(&self) -> bool {
        match self.subject {
            AdviceSubject::Seen(load) => load.is_worth(),
            AdviceSubject::Ahead(bytes) => bytes.is_some_and(|b| b >= WORTH_BYTES),
        }
    }

    /// WAL of the restore, in bytes: what was seen; ahead of it, about the size of the database.
    fn wal(&self) -> Option<u64> {
        match self.subject {
            AdviceSubject::Seen(load) => load.wal_bytes,
            AdviceSubject::Ahead(_) if self.is_minimal() => None,
            AdviceSubject::Ahead(bytes) => *bytes,
        }
    }

    fn is_minimal(&self) -> bool {
        self.settings.wal_level.as_deref() == Some("minimal")
    }

    /// The WAL after which a checkpoint is requested, so that the one under way and the next one fit into
    /// `max_wal_size` (`CalculateCheckpointSegments`).
    fn checkpoint_distance(&self) -> Option<u64> {
        let target = self.settings.checkpoint_completion_target.unwrap_or(SPREAD);
        Some((self.settings.max_wal_size? as f64 / (1.0 + target)) as u64)
    }

    /// Checkpoints that the amount of WAL requested, or will request.
    fn requested(&self) -> Option<u64> {
        match self.subject {
            AdviceSubject::Seen(load) => {
                // Others are requested, too: by DROP DATABASE, a base backup, CHECKPOINT.
                let by_wal = self.requested_by_wal().filter(|n| *n <= FEW_CHECKPOINTS);
                let requested = load.requested_checkpoints?;
                Some(by_wal.map_or(requested, |by_wal| requested.min(by_wal)))
            }
            AdviceSubject::Ahead(_) => self.requested_by_wal(),
        }
    }

    /// Checkpoints that the amount of WAL is enough for.
    fn requested_by_wal(&self) -> Option<u64> {
        self.wal()?.checked_div(self.checkpoint_distance()?)
    }

    fn max_wal_size(&self) -> Option<Advice> {
        let (limit, wal, requested) = (self.settings.max_wal_size?, self.wal()?, self.requested()?);
        if requested <= FEW_CHECKPOINTS {
            return None;
        }
        let target = self.settings.checkpoint_completion_target.unwrap_or(SPREAD);
        let enough = (wal as f64 * (1.0 + target)) as u64;
        let suggested = rounded_up(enough.max(limit.saturating_mul(2)), 4 * GIB, 64 * GIB);
        if suggested <= limit {
            return None;
        }
        let pages = match self.settings.full_page_writes {
            Some(false) => "",
            _ => {
                ", and after it changed pages go into the WAL whole again (full_page_writes, which must stay on, as must fsync)"
            }
        };
        let seen = match self.subject {
            AdviceSubject::Seen(_) => {
                format!("the server made {requested} requested checkpoints during the load")
            }
            AdviceSubject::Ahead(_) => {
                format!("the load will request some {requested} checkpoints")
            }
        };
        let change = Change {
            setting: "max_wal_size",
            value: size(limit),
            suggested: size(suggested),
            reason: format!(
                "{seen}: each writes all changed pages{pages}. The server's pg_wal may grow to this size; a reload is enough"
            ),
        };
        self.settle(change, |bad| amount(bad).is_some_and(|bad| limit <= bad))
    }

    fn checkpoint_timeout(&self) -> Option<Advice> {
        let timeout = self.settings.checkpoint_timeout?;
        let (limit, seen) = match self.load() {
            Some(load) => {
                let timed = load.timed_checkpoints.filter(|n| *n > FEW_CHECKPOINTS)?;
                let seen = format!("the server made {timed} checkpoints by time during the load");
                (LONG_TIMEOUT, seen)
            }
            None if self.is_large() => {
                let seen = "the server makes checkpoints more often than by default".to_owned();
                (DEFAULT_TIMEOUT, seen)
            }
            None => return None,
        };
        if timeout >= limit {
            return None;
        }
        let change = Change {
            setting: "checkpoint_timeout",
            value: time(timeout),
            suggested: time(SUGGESTED_TIMEOUT),
            reason: format!(
                "{seen}: each writes all changed pages. Recovery after a crash takes longer with it; a reload is enough"
            ),
        };
        self.settle(change, |bad| amount(bad).is_some_and(|bad| timeout <= bad))
    }

    fn checkpoint_completion_target(&self) -> Option<Advice> {
        let target = self.settings.checkpoint_completion_target?;
        let timed = self.load().and_then(|load| load.timed_checkpoints);
        let checkpoints = self.requested().unwrap_or(0) + timed.unwrap_or(0);
        if target >= SPREAD || checkpoints <= FEW_CHECKPOINTS {
            return None;
        }
        let change = Change {
            setting: "checkpoint_completion_target",
            value: target.to_string(),
            suggested: SPREAD.to_string(),
            reason: "a checkpoint writes its pages in this part of the time until the next one, and the less time it has, the \
                     more the load waits for the disk; a reload is enough"
                .to_owned(),
        };
        self.settle(change, |bad| {
            bad.parse::<f64>().is_ok_and(|bad| target <= bad)
        })
    }

    fn maintenance_work_mem(&self) -> Option<Advice> {
        let memory = self.settings.maintenance_work_mem?;
        let (needed, seen) = match self.load() {
            Some(load) if load.is_worth() => {
                let indexes = load.indexes?;
                let of_btree = indexes.largest_btree.saturating_mul(SORTED_PER_BYTE);
                let to_merge = of_btree.saturating_mul(RUN_BYTES).isqrt();
                if indexes.largest_other > to_merge {
                    let seen = "the largest index that is no B-tree did not fit, and was written in parts that were merged";
                    (indexes.largest_other, seen)
                } else {
                    let seen = "the sorted runs of the largest index did not fit, and were merged more than once";
                    (to_merge, seen)
                }
            }
            None if self.is_large() => {
                (DEFAULT_SORT_MEMORY, "it is less than PostgreSQL's default")
            }
            _ => return None,
        };
        if memory >= needed.min(MOST_SORT_MEMORY) {
            return None;
        }
        let change = Change {
            setting: "maintenance_work_mem",
            value: size(memory),
            suggested: size(rounded_up(needed, DEFAULT_SORT_MEMORY, MOST_SORT_MEMORY)),
            reason: format!(
                "{seen}. Each connection of a restore may use that much; ALTER ROLE … SET maintenance_work_mem for the role that \
                 restores is enough"
            ),
        };
        self.settle(change, |bad| amount(bad).is_some_and(|bad| memory <= bad))
    }

    /// Only for servers from which nobody reads WAL.
    fn wal_level(&self) -> Option<Advice> {
        let level = self.settings.wal_level.clone()?;
        if level == "minimal" || self.settings.is_wal_needed || !self.is_large() {
            return None;
        }
        let change = Change {
            setting: "wal_level",
            value: level.clone(),
            suggested: "minimal".to_owned(),
            reason: "rows and indexes are written twice, into their files and into the WAL. Only for a server that will not have \
                     replicas or an archive while it restores (none is attached now), with max_wal_senders = 0; needs a \
                     restart, and a base backup taken before is of no use for recovery beyond it"
                .to_owned(),
        };
        self.settle(change, |bad| bad == level)
    }

    fn max_parallel_maintenance_workers(&self) -> Option<Advice> {
        let workers = self.settings.max_parallel_maintenance_workers?;
        let is_worth = match self.load() {
            Some(load) => load.indexes.is_some_and(|i| i.largest_btree >= LARGE_INDEX),
            None => true,
        };
        if workers > 0 || !is_worth || !self.is_large() {
            return None;
        }
        let change = Change {
            setting: "max_parallel_maintenance_workers",
            value: workers.to_string(),
            suggested: "2".to_owned(),
            reason: "the index that is built last is built on one core, while the others are idle; a reload is enough".to_owned(),
        };
        self.settle(change, |bad| bad == "0")
    }

    /// Compression costs CPU time, which may be scarcer than the disk: only where it was measured to help.
    fn wal_compression(&self) -> Option<Advice> {
        let compression = self.settings.wal_compression.clone()?;
        let has_lz4 = self.settings.version >= WAL_LZ4;
        if compression != "off" || !has_lz4 || self.is_minimal() || !self.is_large() {
            return None;
        }
        let change = Change {
            setting: "wal_compression",
            value: compression,
            suggested: "lz4".to_owned(),
            reason: "new indexes and whole pages go into the WAL as they are; a reload is enough (lz4 needs a server that is \
                     built with it)"
                .to_owned(),
        };
        self.settle_if_measured(change, |bad| bad == "off")
    }

    /// How much memory the machine has is not known: only where it was measured to help.
    fn shared_buffers(&self) -> Option<Advice> {
        let buffers = self.settings.shared_buffers?;
        if buffers > DEFAULT_BUFFERS || !self.is_large() {
            return None;
        }
        let change = Change {
            setting: "shared_buffers",
            value: size(buffers),
            suggested: size(SUGGESTED_BUFFERS),
            reason: "pages that do not fit are written while the load waits. At most a quarter of the server's memory; needs a \
                     restart"
                .to_owned(),
        };
        self.settle_if_measured(change, |bad| amount(bad).is_some_and(|bad| buffers <= bad))
    }

    /// The advice, with its gain if it was measured; none if it was measured that the change does not help.
    fn settle(&self, change: Change<'_>, is_as_bad: impl Fn(&str) -> bool) -> Option<Advice> {
        match gain_of(self.measured, change.setting, is_as_bad) {
            Gain::None => None,
            Gain::NotMeasured => Some(change.with(None)),
            Gain::Measured(gain) => Some(change.with(Some(gain))),
        }
    }

    fn settle_if_measured(
        &self,
        change: Change<'_>,
        is_as_bad: impl Fn(&str) -> bool,
    ) -> Option<Advice> {
        self.settle(change, is_as_bad)
            .filter(|advice| advice.gain.is_some())
    }
}

impl Change<'_> {
    fn with(self, gain: Option<MeasuredGain>) -> Advice {
        Advice {
            setting: self.setting.to_owned(),
            value: self.value,
            suggested: self.suggested,
            reason: self.reason,
            gain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with PostgreSQL's defaults, without replicas and archive.
    fn defaults(version: u32) -> ServerSettings {
        ServerSettings {
            version,
            max_wal_size: Some(GIB),
            checkpoint_timeout: Some(DEFAULT_TIMEOUT),
            checkpoint_completion_target: Some(if version >= 140_000 { 0.9 } else { 0.5 }),
            maintenance_work_mem: Some(64 * MIB),
            shared_buffers: Some(128 * MIB),
            wal_level: Some("replica".into()),
            wal_compression: Some("off".into()),
            full_page_writes: Some(true),
            max_parallel_maintenance_workers: Some(2),
            is_wal_needed: true,
        }
    }

    fn long(load: Load) -> AdviceSubject {
        AdviceSubject::Seen(Load {
            seconds: 60.0,
            ..load
        })
    }

    fn named(advice: &[Advice]) -> Vec<&str> {
        advice.iter().map(|a| a.setting.as_str()).collect()
    }

    fn measurement(setting: &str, bad: &str, good: &str, share: f64) -> Measurement {
        Measurement {
            setting: setting.into(),
            dataset: "events".into(),
            bad: bad.into(),
            good: good.into(),
            share,
            machine: "2 cores, PostgreSQL 15".into(),
        }
    }

    #[test]
    fn small_restores_get_no_advice() {
        for version in [130_000, 150_000, 180_000] {
            let bad = ServerSettings {
                max_wal_size: Some(32 * MIB),
                checkpoint_timeout: Some(30_000),
                maintenance_work_mem: Some(MIB),
                max_parallel_maintenance_workers: Some(0),
                is_wal_needed: false,
                ..defaults(version)
            };
            let short = AdviceSubject::Seen(Load {
                seconds: 1.0,
                wal_bytes: Some(5 * MIB),
                timed_checkpoints: Some(0),
                requested_checkpoints: Some(1),
                indexes: None,
            });
            for subject in [
                short,
                AdviceSubject::Ahead(Some(MIB)),
                AdviceSubject::Ahead(None),
            ] {
                assert_eq!(advise_by(&[], &bad, &subject), [], "{subject:?}");
            }
        }
    }

    #[test]
    fn what_a_role_may_not_see_is_not_advised() {
        let load = Load {
            wal_bytes: Some(100 * GIB),
            requested_checkpoints: Some(100),
            timed_checkpoints: Some(100),
            ..Load::default()
        };
        assert_eq!(advise_by(&[], &ServerSettings::default(), &long(load)), []);
    }

    #[test]
    fn checkpoints_that_were_requested_ask_for_more_wal() {
        let load = Load {
            wal_bytes: Some(10 * GIB),
            requested_checkpoints: Some(19),
            timed_checkpoints: Some(0),
            ..Load::default()
        };
        for version in [130_000, 150_000, 180_000] {
            let advice = advise_by(&[], &defaults(version), &long(load.clone()));
            let (first, suggested) = (&advice[0], if version < 140_000 { "16GB" } else { "32GB" });
            assert_eq!(first.setting, "max_wal_size");
            assert_eq!(
                (first.value.as_str(), first.suggested.as_str()),
                ("1GB", suggested)
            );
            assert!(
                first.reason.contains("19 requested checkpoints"),
                "{first:?}"
            );
            assert!(
                first
                    .reason
                    .contains("full_page_writes, which must stay on"),
                "{first:?}"
            );
            assert_eq!(first.gain, None);
            // Since version 14, checkpoints are spread by default.
            let spread = named(&advice).contains(&"checkpoint_completion_target");
            assert_eq!(spread, version < 140_000);
        }
        // A backup of the same size foretells them.
        let ahead = AdviceSubject::Ahead(Some(10 * GIB));
        let advice = advise_by(&[], &defaults(150_000), &ahead);
        assert_eq!(named(&advice), ["max_wal_size"]);
        assert!(
            advice[0].reason.contains("some 19 checkpoints"),
            "{advice:?}"
        );
        let minimal = ServerSettings {
            wal_level: Some("minimal".into()),
            ..defaults(150_000)
        };
        assert_eq!(advise_by(&[], &minimal, &ahead), []);
    }

    /// Other restores on the server drop databases meanwhile.
    #[test]
    fn checkpoints_for_which_the_wal_is_too_little_ask_for_nothing() {
        let load = long(Load {
            wal_bytes: Some(200 * MIB),
            requested_checkpoints: Some(9),
            ..Load::default()
        });
        for version in [130_000, 150_000] {
            let advice = advise_by(&[], &defaults(version), &load);
            assert_eq!(advice, [], "{version}");
        }
    }

    #[test]
    fn checkpoints_by_time_ask_for_longer_spaces() {
        let load = |timed| {
            long(Load {
                timed_checkpoints: Some(timed),
                requested_checkpoints: Some(0),
                wal_bytes: Some(GIB),
                ..Load::default()
            })
        };
        let settings = defaults(170_000);
        assert_eq!(advise_by(&[], &settings, &load(1)), []);
        let advice = advise_by(&[], &settings, &load(3));
        assert_eq!(named(&advice), ["checkpoint_timeout"]);
        assert_eq!(advice[0].suggested, "30min");
        let rare = ServerSettings {
            checkpoint_timeout: Some(LONG_TIMEOUT),
            ..settings
        };
        assert_eq!(advise_by(&[], &rare, &load(3)), []);
    }

    #[test]
    fn sort_memory_is_advised_for_what_did_not_fit() {
        let with = |largest_btree, largest_other| {
            long(Load {
                indexes: Some(IndexSizes {
                    largest_btree,
                    largest_other,
                }),
                ..Load::default()
            })
        };
        let settings = defaults(150_000);
        // Runs in 64 MB merge in one pass up to some 5 GB of index.
        assert_eq!(advise_by(&[], &settings, &with(4 * GIB, 60 * MIB)), []);
        for (subject, suggested) in [
            (with(40 * GIB, 0), "256MB"),
            (with(0, 300 * MIB), "512MB"),
            (with(0, 300 * GIB), "2GB"),
        ] {
            let advice = advise_by(&[], &settings, &subject);
            assert_eq!(named(&advice), ["maintenance_work_mem"]);
            assert_eq!(advice[0].suggested, suggested, "{subject:?}");
        }
    }

    #[test]
    fn a_lower_wal_level_is_only_for_servers_whose_wal_nobody_needs() {
        let alone = ServerSettings {
            is_wal_needed: false,
            ..defaults(150_000)
        };
        let subject = long(Load::default());
        assert_eq!(named(&advise_by(&[], &alone, &subject)), ["wal_level"]);
        assert_eq!(advise_by(&[], &defaults(150_000), &subject), []);
    }

    #[test]
    fn gains_are_only_those_that_were_measured() {
        let all = [
            measurement("max_wal_size", "1GB", "16GB", 0.123),
            measurement("wal_compression", "off", "lz4", 0.3),
            measurement("shared_buffers", "128MB", "1GB", -0.01),
        ];
        let load = long(Load {
            wal_bytes: Some(10 * GIB),
            requested_checkpoints: Some(19),
            ..Load::default()
        });
        let advice = advise_by(&all, &defaults(150_000), &load);
        // The largest gain first, and nothing that was measured not to help.
        assert_eq!(named(&advice), ["wal_compression", "max_wal_size"]);
        let gain = advice[1].gain.as_ref().unwrap();
        assert_eq!(gain.share, 0.12);
        assert!(gain.source.contains("16GB instead of 1GB"), "{gain:?}");
        // A better value than the measured bad one has no number.
        let better = ServerSettings {
            max_wal_size: Some(2 * GIB),
            wal_compression: Some("on".into()),
            ..defaults(150_000)
        };
        let advice = advise_by(&all, &better, &load);
        assert_eq!(named(&advice), ["max_wal_size"]);
        assert_eq!(advice[0].gain, None);
        // What may also cost time is not advised without a measurement.
        let advice = advise_by(&[], &defaults(150_000), &load);
        assert_eq!(named(&advice), ["max_wal_size"]);
    }

    #[test]
    fn advice_is_at_most_a_handful() {
        let worst = ServerSettings {
            checkpoint_timeout: Some(30_000),
            checkpoint_completion_target: Some(0.1),
            maintenance_work_mem: Some(MIB),
            max_parallel_maintenance_workers: Some(0),
            is_wal_needed: false,
            ..defaults(130_000)
        };
        let load = long(Load {
            wal_bytes: Some(100 * GIB),
            requested_checkpoints: Some(200),
            timed_checkpoints: Some(20),
            indexes: Some(IndexSizes {
                largest_btree: 10 * GIB,
                largest_other: GIB,
            }),
            ..Load::default()
        });
        let advice = advise_by(&[], &worst, &load);
        assert_eq!(advice.len(), MOST_ADVICE);
        let unsafe_ones = ["fsync", "full_page_writes", "synchronous_commit"];
        assert!(
            advice
                .iter()
                .all(|a| !unsafe_ones.contains(&a.setting.as_str()))
        );
    }

    #[test]
    fn counters_that_were_reset_say_nothing() {
        let reading = |requested, position| Reading {
            settings: defaults(150_000),
            requested_checkpoints: Some(requested),
            wal_position: Some(position),
            ..Reading::default()
        };
        let load = Load::between(&reading(7, 100), &reading(9, 350), 3.0);
        assert_eq!(load.requested_checkpoints, Some(2));
        assert_eq!(load.wal_bytes, Some(250));
        assert_eq!(load.timed_checkpoints, None);
        let old = |requested| Reading {
            settings: defaults(140_000),
            requested_checkpoints: Some(requested),
            ..Reading::default()
        };
        let late = Load::between(&old(7), &old(9), 3.0);
        assert_eq!(late.requested_checkpoints, Some(0));
        let reset = Load::between(&reading(7, 100), &reading(1, 350), 3.0);
        assert_eq!(reset.requested_checkpoints, None);
    }
}
