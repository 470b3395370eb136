//! Plans the order of a restore from the table of contents alone: pre-data, which entry waits for which
//! table, which entries must not run concurrently. The rules are those of `pg_restore -j`
//! (`pg_backup_archiver.c`), stricter where those can fail: what is done to a partitioned table waits for
//! the data of all its partitions.

use std::collections::{HashMap, HashSet};

use super::dependence::Dependence;
use super::pre_data::PreDataPlan;
use super::{ddl, dependency_groups};
use pgdump_archive::{TocEntry, TocSection};

/// Passes of a restore; each is complete before the next starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RestorePass {
    Main,
    /// Privileges, which could revoke what the main pass needs. They run one at a time in the archive's
    /// order: a grant by another role needs that role's own grants.
    Acl,
    /// Materialized views, which may read what privileges protect.
    Refresh,
    /// Event triggers, which would fire for everything before; they run one at a time.
    EventTriggers,
}

impl RestorePass {
    pub(crate) const COUNT: usize = 4;

    /// The pass after this one.
    pub(crate) fn next(self) -> Option<RestorePass> {
        match self {
            RestorePass::Main => Some(RestorePass::Acl),
            RestorePass::Acl => Some(RestorePass::Refresh),
            RestorePass::Refresh => Some(RestorePass::EventTriggers),
            RestorePass::EventTriggers => None,
        }
    }

    /// Whether its entries take effect on everything that runs after them.
    pub(crate) fn affects_later_entries(self) -> bool {
        self == RestorePass::EventTriggers
    }

    /// Whether its entries run one at a time, in the archive's order.
    pub(crate) fn is_serial(self) -> bool {
        matches!(self, RestorePass::Acl | RestorePass::EventTriggers)
    }
}

/// An entry to restore after pre-data.
#[derive(Debug, Clone)]
pub(crate) struct PlanNode {
    /// Index of the entry in the table of contents.
    pub entry: usize,
    pub pass: RestorePass,
    /// The entry's data comes from the archive's data blocks.
    pub is_data: bool,
    /// The rows of a table that this restore has created and that is therefore empty.
    pub can_copy_freeze: bool,
    /// A key of such a table that can be created from an index.
    pub is_key: bool,
    /// Nodes that must finish first.
    pub after: Vec<usize>,
    /// Tables (dump ids) that it locks exclusively.
    pub exclusive: Vec<i32>,
    /// Tables (dump ids) that it may share with other tasks.
    pub shared: Vec<i32>,
    /// Pre-data batches that must be done first; `None` for all of them.
    pub pre_data_batches: Option<Vec<usize>>,
    /// Load turn: all data of lower turns is loaded first.
    pub turn: usize,
    /// Rows that one session loads in one COPY, in the archive's order.
    pub in_order: bool,
}

impl PlanNode {
    /// A task without prerequisites.
    pub(crate) fn of(entry: usize, pass: RestorePass) -> Self {
        PlanNode {
            entry,
            pass,
            is_data: false,
            can_copy_freeze: false,
            is_key: false,
            after: vec![],
            exclusive: vec![],
            shared: vec![],
            pre_data_batches: None,
            turn: 0,
            in_order: false,
        }
    }
}

/// A pseudo lock (no dump id has this value) that serializes index attachments. Two concurrent ones under the same
/// root may miss each other and leave the root's index invalid (fixed in 15.20 and its sibling releases).
const ATTACHING: i32 = 0;

#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The pre-data entries.
    pub pre_data: PreDataPlan,
    pub nodes: Vec<PlanNode>,
}

/// Entries that `pg_restore` into an existing database skips: those about the database itself, and settings of
/// the session.
pub(crate) fn is_skipped(e: &TocEntry) -> bool {
    match e.desc.as_str() {
        "ENCODING" | "STDSTRINGS" | "SEARCHPATH" | "DATABASE" | "DATABASE PROPERTIES" => true,
        "ACL" | "COMMENT" | "SECURITY LABEL" => e.tag.starts_with("DATABASE "),
        _ => e.defn.is_empty() && !e.has_data,
    }
}

impl Plan {
    pub(crate) fn new(entries: &[TocEntry], dependence: &Dependence) -> Self {
        let (mut plan, mut pre_data) = (Plan::default(), vec![]);
        let mut node_of = HashMap::new();
        let tables = Tables::new(entries);
        for (i, e) in entries.iter().enumerate().filter(|(_, e)| !is_skipped(e)) {
            let pass = pass_of(e, &tables);
            let early = match e.section {
                TocSection::PreData => true,
                // Large objects are created before their data arrives, whatever their section.
                TocSection::Data if matches!(e.desc.as_str(), "BLOB" | "BLOB METADATA") => true,
                TocSection::None => plan.nodes.is_empty(),
                TocSection::Data | TocSection::PostData => false,
            };
            if early && pass == RestorePass::Main && !e.has_data {
                pre_data.push(i);
            } else {
                node_of.insert(e.dump_id, plan.nodes.len());
                plan.nodes.push(PlanNode {
                    is_data: e.has_data,
                    can_copy_freeze: tables.can_copy_freeze(e),
                    is_key: tables.is_key(e),
                    ..PlanNode::of(i, pass)
                });
            }
        }
        plan.pre_data = PreDataPlan::new(&dependency_groups::stages(entries, &pre_data));
        let mut batches = plan.pre_data.needs(entries);
        for (i, node) in plan.nodes.iter_mut().enumerate() {
            let e = &entries[node.entry];
            node.pre_data_batches = batches.remove(&node.entry);
            node.after = tables
                .prerequisites(e)
                .filter_map(|id| node_of.get(&id).copied())
                .collect();
            node.after.retain(|n| *n != i);
            node.after.sort_unstable();
            node.after.dedup();
            let touched = e.dependencies.iter().flat_map(|id| tables.locked_by(*id));
            let mut touched: Vec<i32> =
                touched.flat_map(|id| tables.with_descendants(id)).collect();
            touched.sort_unstable();
            touched.dedup();
            if e.desc == "INDEX ATTACH" {
                touched.push(ATTACHING);
            }
            match locks(e) {
                LockMode::Exclusive => node.exclusive = touched,
                LockMode::Shared => node.shared = touched,
                LockMode::None => {}
            }
        }
        plan.take_turns(entries, dependence);
        plan
    }

    /// Dependent rows are loaded as if one session restored everything: after all data before them and before
    /// everything after them. `pg_dump` writes sequence values and indexes after all rows; those that may read
    /// rows of any table wait for all rows.
    fn take_turns(&mut self, entries: &[TocEntry], dependence: &Dependence) {
        let mut turn = 0;
        for node in self
            .nodes
            .iter_mut()
            .filter(|n| n.pass == RestorePass::Main)
        {
            let e = &entries[node.entry];
            node.turn = turn;
            if node.is_data && dependence.rows.contains(&e.dump_id) {
                node.turn = turn + 1;
                turn += 2;
                (node.in_order, node.can_copy_freeze, node.pre_data_batches) = (true, false, None);
            } else if !node.is_data && dependence.objects.contains(&e.dump_id) {
                node.turn = usize::MAX;
            } else if e.desc == "STATISTICS DATA" {
                // Statistics of tables whose rows may be loaded later.
                node.turn = 0;
            }
        }
        self.refresh_in_order(entries, dependence);
    }

    /// A materialized view that may read any other is refreshed after all preceding and before all following ones.
    fn refresh_in_order(&mut self, entries: &[TocEntry], dependence: &Dependence) {
        let (mut before, mut reading): (Vec<usize>, Option<usize>) = (vec![], None);
        for (i, node) in self.nodes.iter_mut().enumerate() {
            let e = &entries[node.entry];
            if e.desc != "MATERIALIZED VIEW DATA" {
                continue;
            }
            let reads = dependence.objects.contains(&e.dump_id);
            node.after.extend(reading);
            node.after.extend(if reads {
                std::mem::take(&mut before)
            } else {
                vec![]
            });
            node.after.sort_unstable();
            node.after.dedup();
            if reads {
                reading = Some(i)
            } else {
                before.push(i)
            }
        }
    }
}

fn pass_of(e: &TocEntry, tables: &Tables<'_>) -> RestorePass {
    match e.desc.as_str() {
        "ACL" | "ACL LANGUAGE" | "DEFAULT ACL" => RestorePass::Acl,
        "MATERIALIZED VIEW DATA" => RestorePass::Refresh,
        "EVENT TRIGGER" => RestorePass::EventTriggers,
        "COMMENT" | "SECURITY LABEL" if e.tag.starts_with("EVENT TRIGGER ") => {
            RestorePass::EventTriggers
        }
        "STATISTICS DATA"
            if e.dependencies
                .iter()
                .any(|id| tables.refreshed.contains(id)) =>
        {
            RestorePass::Refresh
        }
        _ => RestorePass::Main,
    }
}

enum LockMode {
    Exclusive,
    Shared,
    None,
}

fn locks(e: &TocEntry) -> LockMode {
    match e.desc.as_str() {
        "CONSTRAINT" | "CHECK CONSTRAINT" | "FK CONSTRAINT" | "RULE" | "TRIGGER" | "POLICY"
        | "ROW SECURITY" | "DEFAULT" | "INDEX ATTACH" | "TABLE ATTACH" | "PUBLICATION TABLE" => {
            LockMode::Exclusive
        }
        // Its lock conflicts with itself and with index builds.
        "STATISTICS" | "STATISTICS DATA" => LockMode::Exclusive,
        // The entry includes CLUSTER ON or REPLICA IDENTITY.
        "INDEX" if e.defn.contains("\nALTER TABLE ") => LockMode::Exclusive,
        "INDEX" => LockMode::Shared,
        _ => LockMode::None,
    }
}

/// Which entries are relations, which have their data, and which are their partitions or inheriting tables.
struct Tables<'a> {
    by_id: HashMap<i32, &'a TocEntry>,
    relations: HashSet<i32>,
    /// Materialized views and their data, which is loaded in a later pass.
    refreshed: HashSet<i32>,
    data_of: HashMap<i32, Vec<i32>>,
    children: HashMap<i32, Vec<i32>>,
}

impl<'a> Tables<'a> {
    fn new(entries: &'a [TocEntry]) -> Self {
        let ids = |wanted: &[&str]| -> HashSet<i32> {
            entries
                .iter()
                .filter(|e| wanted.contains(&e.desc.as_str()))
                .map(|e| e.dump_id)
                .collect()
        };
        let relations = ids(&["TABLE", "MATERIALIZED VIEW", "FOREIGN TABLE"]);
        let refreshed = ids(&["MATERIALIZED VIEW", "MATERIALIZED VIEW DATA"]);
        let by_id: HashMap<i32, &TocEntry> = entries.iter().map(|e| (e.dump_id, e)).collect();
        let mut data_of: HashMap<i32, Vec<i32>> = HashMap::new();
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for e in entries {
            let tables = || {
                e.dependencies
                    .iter()
                    .copied()
                    .filter(|id| relations.contains(id))
            };
            match e.desc.as_str() {
                "TABLE DATA" => {
                    tables().for_each(|t| data_of.entry(t).or_default().push(e.dump_id));
                }
                "TABLE" => {
                    tables().for_each(|parent| children.entry(parent).or_default().push(e.dump_id))
                }
                // A partition is attached after it was created: the entry depends on both tables and has the
                // name of the partition.
                "TABLE ATTACH" => {
                    let is_child =
                        |id: &i32| by_id[id].tag == e.tag && by_id[id].namespace == e.namespace;
                    let (child, parents): (Vec<i32>, Vec<i32>) = tables().partition(is_child);
                    parents
                        .into_iter()
                        .for_each(|p| children.entry(p).or_default().extend(&child));
                }
                _ => {}
            }
        }
        Tables {
            by_id,
            relations,
            refreshed,
            data_of,
            children,
        }
    }

    /// Whether these are the rows of a table that the archive creates, copied into that very table.
    fn can_copy_freeze(&self, e: &TocEntry) -> bool {
        e.desc == "TABLE DATA"
            && ddl::copies_into_own_table(e)
            && self.heap_of(e).is_some_and(|t| {
                let is_its = t.tag == e.tag && t.namespace == e.namespace;
                is_its && !t.defn.contains("autovacuum_enabled")
            })
    }

    fn is_key(&self, e: &TocEntry) -> bool {
        e.desc == "CONSTRAINT" && ddl::key_as_index(e).is_some() && self.heap_of(e).is_some()
    }

    /// The ordinary table that an entry depends on, if the archive creates it.
    fn heap_of(&self, e: &TocEntry) -> Option<&TocEntry> {
        let mut below = e
            .dependencies
            .iter()
            .filter_map(|id| self.by_id.get(id).copied());
        let table = below.find(|t| t.desc == "TABLE")?;
        // Other access methods need not support COPY's FREEZE.
        let is_heap = table
            .table_am
            .as_deref()
            .is_none_or(|am| matches!(am, "" | "heap"));
        let is_plain =
            table.relkind.is_none_or(|kind| kind == 'r') && !table.defn.contains("PARTITION BY");
        (is_heap && is_plain).then_some(table)
    }

    /// The tables that are locked while this entry runs: itself, or the table of an index or key.
    fn locked_by(&self, id: i32) -> Vec<i32> {
        if self.relations.contains(&id) {
            return vec![id];
        }
        let of_table = self
            .by_id
            .get(&id)
            .filter(|e| matches!(e.desc.as_str(), "INDEX" | "CONSTRAINT"));
        let tables = of_table.into_iter().flat_map(|e| &e.dependencies);
        tables
            .copied()
            .filter(|id| self.relations.contains(id))
            .collect()
    }

    fn with_descendants(&self, table: i32) -> Vec<i32> {
        let (mut found, mut known, mut next) = (vec![table], HashSet::from([table]), 0);
        while let Some(id) = found.get(next) {
            let below = self.children.get(id).into_iter().flatten();
            let new: Vec<i32> = below.copied().filter(|c| known.insert(*c)).collect();
            found.extend(new);
            next += 1;
        }
        found
    }

    /// Dump ids that precede `e`: its own dependencies and, unless it is data itself, the data of every table
    /// that it depends on.
    fn prerequisites<'b>(&'b self, e: &'b TocEntry) -> impl Iterator<Item = i32> + 'b {
        let tables = e
            .dependencies
            .iter()
            .filter(|id| !e.has_data && self.relations.contains(id));
        let data = tables
            .flat_map(|id| self.with_descendants(*id))
            .flat_map(|t| self.data_of.get(&t).into_iter().flatten().copied());
        let direct = e.dependencies.iter().copied().filter(|_| !e.has_data);
        direct.chain(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i32, desc: &str, after: &[i32], defn: &str) -> TocEntry {
        let section = if desc == "TABLE" {
            TocSection::PreData
        } else {
            TocSection::PostData
        };
        TocEntry {
            section,
            dependencies: after.to_vec(),
            defn: defn.into(),
            ..TocEntry::bare(id, desc, "x")
        }
    }

    /// Two sessions could deadlock: statistics of an index lock its table.
    #[test]
    fn tasks_that_conflict_with_index_builds_lock_exclusively() {
        let index = "CREATE INDEX x ON t USING btree (a);\n";
        let entries = [
            entry(1, "TABLE", &[], "CREATE TABLE t ();"),
            entry(2, "INDEX", &[1], index),
            entry(3, "STATISTICS DATA", &[2], "SELECT 1;"),
            entry(4, "STATISTICS DATA", &[1], "SELECT 1;"),
            entry(5, "STATISTICS", &[1], "CREATE STATISTICS x ON a, b FROM t;"),
            entry(
                6,
                "CONSTRAINT",
                &[1],
                "ALTER TABLE ONLY t ADD CONSTRAINT x UNIQUE (a);",
            ),
            entry(7, "STATISTICS DATA", &[6], "SELECT 1;"),
            entry(
                8,
                "INDEX",
                &[1],
                &format!("{index}\nALTER TABLE ONLY t REPLICA IDENTITY USING INDEX x;\n"),
            ),
        ];
        let plan = Plan::new(&entries, &Dependence::default());
        let locks = |id: i32| {
            let node = plan
                .nodes
                .iter()
                .find(|n| entries[n.entry].dump_id == id)
                .unwrap();
            (node.exclusive.as_slice(), node.shared.as_slice())
        };
        assert_eq!(
            locks(2),
            (&[][..], &[1][..]),
            "indexes are built concurrently"
        );
        for id in [3, 4, 5, 6, 7, 8] {
            assert_eq!(locks(id), (&[1][..], &[][..]), "{id}");
        }
    }

    /// Two levels of partitions: attaching to either changes the root's index.
    #[test]
    fn index_attachments_are_serialized() {
        let entries = [
            entry(1, "TABLE", &[], ""),
            entry(2, "TABLE", &[], ""),
            entry(3, "INDEX", &[1], "CREATE INDEX x ON a USING btree (a);"),
            entry(4, "INDEX", &[2], "CREATE INDEX x ON b USING btree (a);"),
            entry(5, "INDEX ATTACH", &[3], "ALTER INDEX x ATTACH PARTITION y;"),
            entry(6, "INDEX ATTACH", &[4], "ALTER INDEX x ATTACH PARTITION z;"),
        ];
        let plan = Plan::new(&entries, &Dependence::default());
        let locks = |id: i32| {
            &plan
                .nodes
                .iter()
                .find(|n| entries[n.entry].dump_id == id)
                .unwrap()
                .exclusive
        };
        assert!(
            locks(5).iter().any(|table| locks(6).contains(table)),
            "{:?} {:?}",
            locks(5),
            locks(6)
        );
    }
}
