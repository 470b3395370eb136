//! Plans the order of a restore from the table of contents alone: pre-data, which entry waits for which
//! table, which entries must not run concurrently. The rules are those of `pg_restore -j`
//! (`pg_backup_archiver.c`), stricter where those can fail: what is done to a partitioned table waits for
//! the data of all its partitions.

mod tables;

use std::collections::HashMap;

use self::tables::{Tables, is_of_table_alone};
use super::dependence::Dependence;
use super::dependency_groups;
use super::ids::{BatchId, EntryIndex, NodeId, NodeMap, TableId, sorted};
use super::pre_data::PreDataPlan;
use super::table_locks::{ConstraintStep, LockSet};
use pgdump_archive::{DumpId, EntryKind, TocEntry, TocSection};

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
    /// What it restores.
    pub entry: EntryIndex,
    pub pass: RestorePass,
    /// The entry's data comes from the archive's data blocks.
    pub is_data: bool,
    /// The rows of a table that this restore has created and that is therefore empty.
    pub can_copy_freeze: bool,
    /// A key of such a table that can be created from an index.
    pub is_key: bool,
    /// It takes no longer if the tables that it waits for have more rows.
    pub is_instant: bool,
    /// Nodes that must finish first.
    pub after: Vec<NodeId>,
    /// Tables that it locks exclusively.
    pub exclusive: Vec<TableId>,
    /// Tables that it may share with other tasks.
    pub shared: Vec<TableId>,
    /// Pre-data batches that must be done first; `None` for all of them.
    pub pre_data_batches: Option<Vec<BatchId>>,
    /// Load turn: all data of lower turns is loaded first.
    pub turn: usize,
    /// Rows that one session loads in one COPY, in the archive's order.
    pub in_order: bool,
}

impl PlanNode {
    /// A task without prerequisites.
    pub(crate) fn of(entry: EntryIndex, pass: RestorePass) -> Self {
        PlanNode {
            entry,
            pass,
            is_data: false,
            can_copy_freeze: false,
            is_key: false,
            is_instant: false,
            after: vec![],
            exclusive: vec![],
            shared: vec![],
            pre_data_batches: None,
            turn: 0,
            in_order: false,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The pre-data entries.
    pub pre_data: PreDataPlan,
    pub nodes: NodeMap<PlanNode>,
}

/// Entries that `pg_restore` into an existing database skips: those about the database itself, and settings of
/// the session.
pub(crate) fn is_skipped(e: &TocEntry) -> bool {
    match &e.kind {
        EntryKind::Encoding
        | EntryKind::StdStrings
        | EntryKind::SearchPath
        | EntryKind::Database
        | EntryKind::DatabaseProperties => true,
        EntryKind::Acl | EntryKind::Comment | EntryKind::SecurityLabel => {
            e.tag.starts_with("DATABASE ")
        }
        _ => e.defn.is_empty() && !e.has_data,
    }
}

impl Plan {
    /// `version`: of the server, such as 150018.
    pub(crate) fn new(entries: &[TocEntry], dependence: &Dependence, version: u32) -> Self {
        let tables = Tables::new(entries, version);
        let (mut plan, pre_data) = Plan::of_entries(entries, &tables);
        plan.pre_data = PreDataPlan::new(&dependency_groups::phases(entries, &pre_data));
        plan.add_prerequisites(entries, &tables);
        plan.take_turns(entries, dependence);
        plan
    }

    /// The nodes, without what they wait for, and the entries that are pre-data.
    fn of_entries(entries: &[TocEntry], tables: &Tables<'_>) -> (Plan, Vec<EntryIndex>) {
        let (mut plan, mut pre_data) = (Plan::default(), vec![]);
        for (i, e) in entries.iter().enumerate().filter(|(_, e)| !is_skipped(e)) {
            let (entry, pass) = (EntryIndex(i), pass_of(e, tables));
            let is_early = pass == RestorePass::Main && precedes_data(e, plan.nodes.len());
            if is_early && !e.has_data {
                pre_data.push(entry);
            } else {
                plan.nodes.push(PlanNode {
                    is_data: e.has_data,
                    can_copy_freeze: tables.can_copy_freeze(e),
                    is_key: tables.is_key(e),
                    is_instant: is_instant(e),
                    ..PlanNode::of(entry, pass)
                });
            }
        }
        (plan, pre_data)
    }

    /// An earlier attempt has loaded rows of these entries: their tables are not empty, so COPY may not freeze what it adds.
    pub(crate) fn went_on(&mut self, has_rows: impl Fn(EntryIndex) -> bool) {
        for (_, node) in self.nodes.iter_mut() {
            node.can_copy_freeze &= !has_rows(node.entry);
        }
    }

    fn add_prerequisites(&mut self, entries: &[TocEntry], tables: &Tables<'_>) {
        let ids = self.nodes.iter();
        let node_of: HashMap<DumpId, NodeId> = ids
            .map(|(id, n)| (entries[n.entry.0].dump_id, id))
            .collect();
        let mut batches = self.pre_data.needs(entries);
        for (id, node) in self.nodes.iter_mut() {
            let e = &entries[node.entry.0];
            let before = tables.prerequisites(e);
            let before = before.filter_map(|before| node_of.get(&before).copied());
            node.after = sorted(before.filter(|before| *before != id));
            node.pre_data_batches = batches.remove(&node.entry);
            node.lock(e, tables);
        }
    }

    /// Dependent rows are loaded as if one session restored everything: after all data before them and before
    /// everything after them. `pg_dump` writes sequence values and indexes after all rows; those that may read
    /// rows of any table wait for all rows.
    fn take_turns(&mut self, entries: &[TocEntry], dependence: &Dependence) {
        let mut turn = 0;
        let nodes = self.nodes.iter_mut().map(|(_, node)| node);
        for node in nodes.filter(|node| node.pass == RestorePass::Main) {
            let e = &entries[node.entry.0];
            node.turn = turn;
            if node.is_data && dependence.rows.contains(&e.dump_id) {
                node.take_turn_of_its_own(turn + 1);
                turn += 2;
            } else if !node.is_data && dependence.objects.contains(&e.dump_id) {
                node.turn = usize::MAX;
            } else if e.kind == EntryKind::StatisticsData {
                // Statistics of tables whose rows may be loaded later.
                node.turn = 0;
            }
        }
        self.refresh_in_order(entries, dependence);
    }

    /// A materialized view that may read any other is refreshed after all preceding and before all following ones.
    fn refresh_in_order(&mut self, entries: &[TocEntry], dependence: &Dependence) {
        let (mut before, mut reading) = (vec![], None);
        for (id, node) in self.nodes.iter_mut() {
            let e = &entries[node.entry.0];
            if e.kind != EntryKind::MaterializedViewData {
                continue;
            }
            let after = node.after.drain(..).chain(reading);
            if dependence.objects.contains(&e.dump_id) {
                node.after = sorted(after.chain(before.drain(..)));
                reading = Some(id);
            } else {
                node.after = sorted(after);
                before.push(id);
            }
        }
    }
}

impl PlanNode {
    /// Its rows are loaded by themselves.
    fn take_turn_of_its_own(&mut self, turn: usize) {
        self.turn = turn;
        (self.in_order, self.can_copy_freeze) = (true, false);
        self.pre_data_batches = None;
    }

    fn lock(&mut self, e: &TocEntry, tables: &Tables<'_>) {
        match e.kind {
            EntryKind::IndexAttach => return self.lock_attachment(e, tables),
            EntryKind::Comment | EntryKind::SecurityLabel => return self.lock_described(e, tables),
            _ => {}
        }
        let locked = of_entries(tables.touched_by(e));
        match lock_mode(e) {
            LockMode::Exclusive => self.exclusive = locked,
            LockMode::Shared => self.shared = locked,
            LockMode::None => {}
        }
    }

    /// The server locks the partition's index, which other tasks on the partition may open, and nothing of other partitions.
    fn lock_attachment(&mut self, e: &TocEntry, tables: &Tables<'_>) {
        if let Some((partition, parent)) = tables.attached_by(e) {
            self.exclusive = vec![TableId::Entry(partition)];
            self.shared = vec![TableId::Entry(parent)];
        } else {
            self.exclusive = of_entries(tables.touched_by(e));
        }
        self.exclusive.push(tables.index_tree_of(e));
    }

    /// A comment or label locks its relation as index builds must not, and opens the table of a constraint or trigger. Without
    /// that, two batches with comments could wait for each other.
    fn lock_described(&mut self, e: &TocEntry, tables: &Tables<'_>) {
        self.exclusive = of_entries(tables.relations_of(e));
        self.shared = of_entries(tables.tables_of_described(e));
    }

    /// The indexes among which it attaches one to another.
    pub(crate) fn index_tree(&self) -> Option<TableId> {
        let last = self.exclusive.last().copied();
        last.filter(|table| matches!(table, TableId::IndexTree(_)))
    }

    /// Number of tables that its transaction locks.
    pub(crate) fn locked_tables(&self) -> usize {
        match self.index_tree() {
            // Of the two indexes.
            Some(_) => 2,
            None => self.exclusive.len() + self.shared.len(),
        }
    }

    /// What a task locks that runs this step.
    pub(crate) fn locks(&self, step: ConstraintStep) -> LockSet<'_> {
        let (exclusive, shared): (&[TableId], &[TableId]) = match step {
            ConstraintStep::Index => (&[], &self.exclusive),
            ConstraintStep::Whole | ConstraintStep::Key => (&self.exclusive, &self.shared),
        };
        LockSet { exclusive, shared }
    }
}

/// Whether an entry of the main pass is created before data is loaded; `later` nodes are not.
fn precedes_data(e: &TocEntry, later: usize) -> bool {
    match e.section {
        TocSection::PreData => true,
        // Large objects are created before their data arrives, whatever their section.
        TocSection::Data => matches!(e.kind, EntryKind::Blob | EntryKind::BlobMetadata),
        TocSection::None => later == 0,
        TocSection::PostData => false,
    }
}

fn pass_of(e: &TocEntry, tables: &Tables<'_>) -> RestorePass {
    match &e.kind {
        EntryKind::Acl | EntryKind::AclLanguage | EntryKind::DefaultAcl => RestorePass::Acl,
        EntryKind::MaterializedViewData => RestorePass::Refresh,
        EntryKind::EventTrigger => RestorePass::EventTriggers,
        EntryKind::Comment | EntryKind::SecurityLabel if e.tag.starts_with("EVENT TRIGGER ") => {
            RestorePass::EventTriggers
        }
        EntryKind::StatisticsData if tables.depends_on_refreshed(e) => RestorePass::Refresh,
        _ => RestorePass::Main,
    }
}

/// Whether an entry changes the catalog only, however many rows its table has.
fn is_instant(e: &TocEntry) -> bool {
    let is_instant = matches!(
        e.kind,
        EntryKind::Comment
            | EntryKind::Default
            | EntryKind::IndexAttach
            | EntryKind::Policy
            | EntryKind::PublicationTable
            | EntryKind::RowSecurity
            | EntryKind::Rule
            | EntryKind::SecurityLabel
            | EntryKind::Statistics
            | EntryKind::StatisticsData
            | EntryKind::Trigger
    );
    is_instant || is_of_table_alone(e)
}

fn of_entries(tables: Vec<DumpId>) -> Vec<TableId> {
    tables.into_iter().map(TableId::Entry).collect()
}

enum LockMode {
    Exclusive,
    Shared,
    None,
}

fn lock_mode(e: &TocEntry) -> LockMode {
    match &e.kind {
        EntryKind::Constraint
        | EntryKind::CheckConstraint
        | EntryKind::FkConstraint
        | EntryKind::Rule
        | EntryKind::Trigger
        | EntryKind::Policy
        | EntryKind::RowSecurity
        | EntryKind::Default
        | EntryKind::TableAttach
        | EntryKind::PublicationTable => LockMode::Exclusive,
        // Its lock conflicts with itself and with index builds.
        EntryKind::Statistics | EntryKind::StatisticsData => LockMode::Exclusive,
        // The entry includes CLUSTER ON or REPLICA IDENTITY.
        EntryKind::Index if e.defn.contains("\nALTER TABLE ") => LockMode::Exclusive,
        EntryKind::Index => LockMode::Shared,
        _ => LockMode::None,
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
            dependencies: after.iter().copied().map(DumpId).collect(),
            defn: defn.into(),
            ..TocEntry::bare(id, desc, "x")
        }
    }

    #[test]
    fn tables_that_have_rows_are_not_frozen() {
        let node = |entry| PlanNode {
            is_data: true,
            can_copy_freeze: entry != 1,
            ..PlanNode::of(EntryIndex(entry), RestorePass::Main)
        };
        let mut plan = Plan {
            nodes: (0..4).map(node).collect(),
            ..Plan::default()
        };
        plan.went_on(|entry| entry.0 < 3 && entry.0 > 0);
        let frozen: Vec<bool> = plan.nodes.values().map(|n| n.can_copy_freeze).collect();
        assert_eq!(frozen, [true, false, false, true]);
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
        let plan = Plan::new(&entries, &Dependence::default(), 170000);
        let locks = |id: i32| {
            let node = plan
                .nodes
                .values()
                .find(|n| entries[n.entry.0].dump_id == DumpId(id))
                .unwrap();
            (node.exclusive.as_slice(), node.shared.as_slice())
        };
        let (none, table): (&[TableId], _) = (&[], &[TableId::Entry(DumpId(1))][..]);
        assert_eq!(locks(2), (none, table), "indexes are built concurrently");
        for id in [3, 4, 5, 6, 7, 8] {
            assert_eq!(locks(id), (table, none), "{id}");
        }
    }

    /// A partitioned table (1) with two partitions, the second of which (3) has a partition itself (4); an index tree (11 to
    /// 14) and another one of two indexes (21, 22).
    fn attachments() -> Vec<TocEntry> {
        let index = "CREATE INDEX x ON a USING btree (a);";
        let mut entries = vec![entry(
            1,
            "TABLE",
            &[],
            "CREATE TABLE t () PARTITION BY RANGE (a);",
        )];
        entries.extend((2..5).map(|id| entry(id, "TABLE", &[], "CREATE TABLE t ();")));
        for (id, parent, partition) in [(5, 1, 2), (6, 1, 3), (7, 3, 4)] {
            let tag = format!("t{partition}");
            entries[partition - 1].tag = tag.clone();
            let of = [parent, partition].map(|table| i32::try_from(table).unwrap());
            let attach = TocEntry {
                tag,
                ..entry(id, "TABLE ATTACH", &of, "ALTER TABLE …;")
            };
            entries.push(attach);
        }
        for (id, table) in [(11, 1), (12, 2), (13, 3), (14, 4), (21, 1), (22, 2)] {
            entries.push(entry(id, "INDEX", &[table], index));
        }
        let sql = "ALTER INDEX x ATTACH PARTITION y;";
        entries.push(entry(31, "INDEX ATTACH", &[12, 11, 2, 1], sql));
        entries.push(entry(32, "INDEX ATTACH", &[13, 11, 3, 1], sql));
        entries.push(entry(33, "INDEX ATTACH", &[14, 13, 4, 3], sql));
        // Dumps of old versions do not name the tables.
        entries.push(entry(34, "INDEX ATTACH", &[22, 21], sql));
        entries
    }

    /// Attaching an index locks nothing of other partitions, so that their indexes can be built meanwhile. Attaching to any
    /// level changes the root's index.
    #[test]
    fn index_attachments_lock_one_partition_and_the_tree_of_indexes() {
        let entries = attachments();
        let plan = Plan::new(&entries, &Dependence::default(), 170000);
        let table = |id| TableId::Entry(DumpId(id));
        for (id, partition, parent, tree) in [
            (31, 2, 1, 11),
            (32, 3, 1, 11),
            (33, 4, 3, 11),
            (34, 2, 1, 21),
        ] {
            let mut nodes = plan.nodes.values();
            let node = nodes
                .find(|n| entries[n.entry.0].dump_id == DumpId(id))
                .unwrap();
            let tree = TableId::IndexTree(DumpId(tree));
            assert_eq!(node.exclusive, [table(partition), tree], "{id}");
            assert_eq!(node.shared, [table(parent)], "{id}");
            assert!(
                node.is_instant && node.index_tree() == Some(tree) && node.locked_tables() == 2
            );
        }
    }

    /// Otherwise attaching a partition of it would make the server validate the index of the root, with a lock of the root's
    /// table that no other partition can be loaded under.
    #[test]
    fn an_index_is_complete_before_it_is_attached() {
        let entries = attachments();
        let plan = Plan::new(&entries, &Dependence::default(), 170000);
        let node_of = |id| {
            let mut nodes = plan.nodes.iter();
            let of_entry = |n: &PlanNode| entries[n.entry.0].dump_id == DumpId(id);
            nodes.find(|(_, n)| of_entry(n)).unwrap()
        };
        let inner = node_of(33).0;
        assert!(
            node_of(32).1.after.contains(&inner),
            "13 has a part of its own"
        );
        for other in [31, 33, 34] {
            let after = &node_of(other).1.after;
            assert!(
                after
                    .iter()
                    .all(|id| entries[plan.nodes[*id].entry.0].kind == EntryKind::Index),
                "{other}"
            );
        }
    }

    /// `pg_dump` lets the index of a partition depend on that of its parent. If it locked the parent with all partitions, one
    /// session would build all of them.
    #[test]
    fn indexes_of_partitions_are_built_concurrently() {
        let mut entries = attachments();
        let only = "CREATE INDEX x ON ONLY s.t USING btree (a);";
        entries.push(entry(41, "INDEX", &[1], only));
        entries.push(entry(
            42,
            "INDEX",
            &[2, 41],
            "CREATE INDEX x ON s.t USING btree (a);",
        ));
        let key = "ALTER TABLE ONLY t\n    ADD CONSTRAINT x PRIMARY KEY (a);";
        entries.push(entry(43, "CONSTRAINT", &[1], key));
        entries.push(entry(44, "CONSTRAINT", &[2, 43], key));
        let rows = |id, table| TocEntry {
            section: TocSection::Data,
            has_data: true,
            namespace: Some("s".to_owned()),
            copy_stmt: "COPY s.x (a) FROM stdin;".to_owned(),
            ..entry(id, "TABLE DATA", &[table], "")
        };
        entries.extend([rows(51, 2), rows(52, 3)]);
        let tables = |ids: &[i32]| -> Vec<TableId> {
            ids.iter().map(|id| TableId::Entry(DumpId(*id))).collect()
        };
        // Version 18 looks for NOT NULL in all partitions.
        for (version, locked_for_key) in [(170000, tables(&[1])), (180000, tables(&[1, 2, 3, 4]))] {
            let plan = Plan::new(&entries, &Dependence::default(), version);
            let node = |id| {
                let mut nodes = plan.nodes.values();
                nodes
                    .find(|n| entries[n.entry.0].dump_id == DumpId(id))
                    .unwrap()
            };
            assert_eq!(node(41).shared, tables(&[1]));
            assert!(node(41).is_instant && !node(43).is_instant);
            assert_eq!(node(42).shared, tables(&[2]));
            assert_eq!(node(43).exclusive, locked_for_key, "{version}");
            assert_eq!(node(44).exclusive, tables(&[2]));
            let after = |id| -> Vec<i32> {
                let id_of = |node: &NodeId| entries[plan.nodes[*node].entry.0].dump_id.0;
                node(id).after.iter().map(id_of).collect()
            };
            assert_eq!(after(41), [0; 0], "it is empty");
            assert_eq!((after(42), after(43)), (vec![41, 51], vec![51, 52]));
        }
    }

    #[test]
    fn comments_lock_what_they_describe() {
        let entries = [
            entry(1, "TABLE", &[], "CREATE TABLE t ();"),
            entry(2, "TABLE", &[], "CREATE TABLE u ();"),
            entry(3, "TRIGGER", &[2], "CREATE TRIGGER x …;"),
            entry(4, "FUNCTION", &[1], "CREATE FUNCTION f …;"),
            entry(11, "COMMENT", &[1], "COMMENT ON COLUMN t.a IS 'x';"),
            entry(12, "COMMENT", &[3], "COMMENT ON TRIGGER x ON u IS 'x';"),
            entry(13, "COMMENT", &[4], "COMMENT ON FUNCTION f IS 'x';"),
            entry(14, "SECURITY LABEL", &[2], "SECURITY LABEL ON TABLE u …;"),
        ];
        let plan = Plan::new(&entries, &Dependence::default(), 170000);
        let locks = |id: i32| {
            let of = |locks: &[TableId]| locks.to_vec();
            let node = plan
                .nodes
                .values()
                .find(|n| entries[n.entry.0].dump_id == DumpId(id))
                .unwrap();
            (of(&node.exclusive), of(&node.shared))
        };
        let [t, u] = [1, 2].map(|id| TableId::Entry(DumpId(id)));
        assert_eq!(locks(11), (vec![t], vec![]));
        assert_eq!(locks(12), (vec![], vec![u]));
        assert_eq!(locks(13), (vec![], vec![]));
        assert_eq!(locks(14), (vec![u], vec![]));
    }

    /// Otherwise tables that they do not lock may have an index built while they run.
    #[test]
    fn an_attachment_of_unknown_tables_locks_all() {
        let index = "CREATE INDEX x ON a USING btree (a);";
        let entries = [
            entry(1, "TABLE", &[], ""),
            entry(2, "TABLE", &[], ""),
            entry(3, "INDEX", &[1], index),
            entry(
                4,
                "INDEX ATTACH",
                &[3, 9, 1, 2],
                "ALTER INDEX x ATTACH PARTITION y;",
            ),
        ];
        let plan = Plan::new(&entries, &Dependence::default(), 170000);
        let attachment = plan.nodes.values().last().unwrap();
        let [one, two] = [1, 2].map(|id| TableId::Entry(DumpId(id)));
        let tree = TableId::IndexTree(DumpId(3));
        assert_eq!(attachment.exclusive, [one, two, tree]);
        assert!(attachment.shared.is_empty());
    }
}
