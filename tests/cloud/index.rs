//! Restores that read a backup by blocks: by its own data offsets, or by the index of a proven one; and what wrong offsets
//! and a forged index can do.

use futures::FutureExt;
use serde_json::Value;

use pgdump_archive::{Archive, ArchiveSource, DataOffset, DecryptionKeys, Limits, TocEntry};
use pgrestored::app::App;
use pgrestored::emulator::StorageFault;
use pgrestored::event::{RestoreResult, Verdict};
use pgrestored::job::{BackupRef, OnExisting, RestoreJob, VerifyJob};
use pgrestored::policy::{Selection, Trigger};

use crate::cases;
use crate::support::{OFFSETS_FROM, assert_same, is_full_campaign, job, sample};
use crate::test_env::{BUCKET, PubSubKind, SourceCluster, TestEnv, restore};

const TABLES: [&str; 2] = ["public.t", "public.u"];
const TABLE_ROWS: usize = 2000;
const PIPED: &str = "piped.dump";
const OFFSETS: &str = "offsets.dump";
/// Every so many forgeries, `make test` restores a whole backup by one.
const FOURTH: usize = 4;
/// Nothing here depends on statistics.
const QUICK: (&str, &str) = ("restore-no-analyze", "true");

/// A source with two backups of it: one without data offsets, and one with them.
struct IndexSetup {
    s: SourceCluster,
    env: TestEnv,
    app: App,
    /// What a restore of each table alone gives, without an index.
    honest: Vec<String>,
}

/// A proven backup.
struct IndexedBackup {
    backup: &'static str,
    result: RestoreResult,
    /// The name of the object with its index.
    name: String,
    text: String,
    index: Value,
}

impl IndexSetup {
    async fn new() -> Self {
        let s = SourceCluster::of(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text);
             INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, {TABLE_ROWS}) i;
             CREATE INDEX ON t (v); CREATE TABLE u AS SELECT * FROM t;
             SELECT lo_from_bytea(0, repeat('x', 5000)::bytea)"
        ));
        let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
        let app = env.app(&s.c, &[QUICK]);
        let offsets = std::fs::read(s.c.dump_to_file("src", &[])).unwrap();
        let storage = &env.emulator.storage;
        storage.put(BUCKET, PIPED, s.dump.clone());
        storage.put(BUCKET, OFFSETS, offsets);
        let mut setup = IndexSetup {
            s,
            env,
            app,
            honest: vec![],
        };
        for table in TABLES {
            let part = setup.part(PIPED, table).await;
            let rows = setup
                .s
                .c
                .psql("part", &format!("SELECT count(*) FROM {table}"));
            assert_eq!(rows, TABLE_ROWS.to_string());
            setup.honest.push(part);
        }
        setup
    }

    /// What a database has: all that `pg_dump` writes in a full campaign, otherwise its tables and rows.
    fn content(&self, database: &str) -> String {
        let c = &self.s.c;
        if is_full_campaign() {
            return c.content(database, &[]);
        }
        let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
        let tables = c.psql(database, tables);
        let mut rows = vec!["SELECT 'large objects', count(*), md5(string_agg(encode(lo_get(oid), 'hex'), ',' ORDER BY oid)) FROM pg_largeobject_metadata".to_owned()];
        rows.extend(tables.lines().map(|table| {
            format!("SELECT '{table}', count(*), md5(string_agg(x::text, ',' ORDER BY id)) FROM public.{table} x")
        }));
        c.psql(database, &rows.join(" UNION ALL "))
    }

    /// What a restore of one table gives.
    async fn part(&self, backup: &str, table: &str) -> String {
        let c = &self.s.c;
        c.psql("postgres", "DROP DATABASE IF EXISTS part");
        let job = RestoreJob {
            backup: BackupRef::parse(backup, "").unwrap(),
            selection: Selection {
                tables: vec![table.into()],
                ..Default::default()
            },
            ..job("/x".as_ref(), "part", OnExisting::Fail)
        };
        let manager = &self.app.manager;
        let done = manager.run(&job, Default::default(), Default::default());
        assert_eq!(done.await.result.error, None, "{backup} {table}");
        self.content("part")
    }

    async fn prove(&self, backup: &'static str) -> IndexedBackup {
        let wanted = BackupRef::parse(backup, "").unwrap();
        let request = VerifyJob::new(backup, wanted, Trigger::Command);
        let manager = &self.app.manager;
        let verified = manager.verify_backup(&request, Default::default(), Default::default());
        let result = verified.await.result;
        assert_eq!(result.verdict, Some(Verdict::Verified));
        let storage = &self.env.emulator.storage;
        let names = storage.objects(BUCKET).into_iter().map(|(name, _)| name);
        let folder = format!("{backup}.pgrestored/");
        let mut indexes = names.filter(|n| n.starts_with(&folder) && n.ends_with("index.json"));
        let name = indexes.next().unwrap();
        let text = String::from_utf8(storage.get(BUCKET, &name).unwrap().to_vec()).unwrap();
        let index: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(index["blocks"].as_array().unwrap().len(), 3, "{index}");
        IndexedBackup {
            backup,
            result,
            name,
            text,
            index,
        }
    }

    /// Replaces the index of a backup by a forged one, which is returned.
    fn forge(&self, of: &IndexedBackup, forge: fn(&mut Value)) -> String {
        let storage = &self.env.emulator.storage;
        let mut forged = of.index.clone();
        forge(&mut forged);
        sign_again(&mut forged, &storage.get(BUCKET, of.backup).unwrap());
        let forged = forged.to_string();
        storage.put(BUCKET, &of.name, forged.clone());
        forged
    }
}

/// The cases share a cluster and the proof of a backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_index_costs_time_and_no_rows() {
    let g = IndexSetup::new().await;
    let storage = &g.env.emulator.storage;
    let before = storage.reads();
    let done = restore(&g.app, PIPED, "forward").await;
    assert_eq!(done.failure, None);
    assert_eq!(storage.reads() - before, 1, "one sequential read");
    // Before there is an index.
    let own = "a backup with offsets";
    cases::each([(own, own_offsets_are_enough(&g).boxed_local())]).await;
    let piped = g.prove(PIPED).await;
    let offsets = g.prove(OFFSETS).await;
    cases::each([
        (
            "a verified backup is restored through its index",
            a_verified_backup_is_restored_through_its_index(&g, &piped).boxed_local(),
        ),
        (
            "a selection without offsets",
            a_selection_is_restored_completely(&g, &piped, 0).boxed_local(),
        ),
        (
            "a selection with offsets",
            a_selection_is_restored_completely(&g, &offsets, 1).boxed_local(),
        ),
    ])
    .await;
}

/// A large archive with data offsets is read by blocks at its first restore. Offsets that are wrong cost time and no rows, and
/// damage is what it is for one reader.
async fn own_offsets_are_enough(g: &IndexSetup) {
    let storage = &g.env.emulator.storage;
    let app = g.env.app(&g.s.c, &[QUICK, (OFFSETS_FROM, "0")]);
    let before = storage.reads();
    let done = restore(&app, OFFSETS, "by_offsets").await;
    assert_eq!(done.result.error, None);
    // One read each for the head, and all small blocks together.
    assert_eq!(storage.reads() - before, 2);
    g.s.assert_restored("by_offsets");
    let good = storage.get(BUCKET, OFFSETS).unwrap().to_vec();
    let crc32c = pgdump_archive::Crc32c::of(&good);
    let known = done.result.backup.crc32c.unwrap();
    assert_eq!(known, pgrestored::backup::encode_crc32c(crc32c));
    // A byte that is damaged in transit.
    let at = good.len() as u64 / 2;
    storage.fail_next_reads((0..20).map(|_| StorageFault::Flip(at)));
    assert!(restore(&app, OFFSETS, "flipped").await.failure.is_some());
    storage.clear_faults();
    // Two tables have each other's offset.
    let fields = offsets_of(&good);
    let [first, second, ..] = &fields[..] else {
        panic!("{fields:?}");
    };
    let mut swapped = good.clone();
    swapped[first.clone()].copy_from_slice(&good[second.clone()]);
    swapped[second.clone()].copy_from_slice(&good[first.clone()]);
    storage.put(BUCKET, "swapped.dump", swapped);
    let before = storage.reads();
    let done = restore(&app, "swapped.dump", "swapped").await;
    assert_eq!(done.result.error, None);
    assert_eq!(storage.reads() - before, 3, "and once more in order");
    assert_same(&g.content("swapped"), &g.content("src"), "swapped");
    // Damage in the object.
    let mut damaged = good;
    damaged[at as usize] ^= 0x10;
    storage.put(BUCKET, "damaged.dump", damaged);
    let [ours, theirs] = [
        restore(&app, "damaged.dump", "damaged").await,
        restore(&g.app, "damaged.dump", "damaged").await,
    ]
    .map(|done| done.result.error.map(|e| (e.reason, e.message)));
    assert!(ours.is_some());
    assert_eq!(ours, theirs);
    assert!(!g.s.c.databases().contains(&"damaged".to_owned()));
    g.s.c.psql("postgres", "DROP DATABASE by_offsets");
    g.s.c.psql("postgres", "DROP DATABASE swapped");
}

/// Where the table of contents has the offsets of the data.
fn offsets_of(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let origin = ArchiveSource::once(std::io::Cursor::new(bytes.to_vec()));
    let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap();
    let field = |entry: &TocEntry| {
        let DataOffset::At(offset) = entry.offset else {
            return None;
        };
        let stored = [&[2][..], &offset.to_le_bytes()].concat();
        let at = bytes.windows(stored.len()).position(|w| w == stored)?;
        Some(at + 1..at + stored.len())
    };
    archive.entries().iter().filter_map(field).collect()
}

/// A verified backup is restored by blocks although it has no data offsets, with the same integrity check. Without
/// `CAMPAIGN=full`, only every fourth forgery of the index is tried, and only the first and the last damage.
async fn a_verified_backup_is_restored_through_its_index(g: &IndexSetup, proven: &IndexedBackup) {
    let (c, storage) = (&g.s.c, &g.env.emulator.storage);
    let before = storage.reads();
    let done = restore(&g.app, PIPED, "by_blocks").await;
    assert_eq!(done.result.error, None);
    // One read each for the index, the head, and all small blocks together.
    assert_eq!(storage.reads() - before, 3);
    g.s.assert_restored("by_blocks");
    assert_eq!(done.result.backup.crc32c, proven.result.backup.crc32c);
    // A byte that is damaged in transit is detected, whichever block it is in.
    let size: u64 = done.result.backup.size.unwrap().parse().unwrap();
    for at in sample([10, size / 3, size / 2, size - 1500], 3) {
        storage.fail_next_reads((0..20).map(|_| StorageFault::Flip(at)));
        let target = format!("damaged_{at}");
        let failed = restore(&g.app, PIPED, &target).await.failure;
        storage.clear_faults();
        assert!(failed.is_some(), "byte {at}");
        assert!(!c.databases().contains(&target));
    }
    // An index about other bytes is not used; a database that was created with it under the target's name is dropped.
    let app = g.env.app(c, &[QUICK, ("restore-in-place", "always")]);
    let other = proven.text.replacen("\"crc32c\":", "\"crc32c\":1", 2);
    for (target, index) in [("without", other), ("without_garbage", "garbage".into())] {
        storage.put(BUCKET, &proven.name, index);
        let done = restore(&app, PIPED, target).await;
        assert_eq!(done.failure, None, "{target}");
    }
    // A forged index with correct checksums only costs time.
    let whole = g.content("src");
    for (nth, forge) in sample(FORGERIES, FOURTH).enumerate() {
        let forged = g.forge(proven, forge);
        let target = format!("forged_{nth}");
        let done = restore(&app, PIPED, &target).await;
        assert_eq!(done.result.error, None, "{forged}");
        assert_same(&g.content(&target), &whole, &forged);
        c.psql("postgres", &format!("DROP DATABASE {target}"));
    }
    storage.put(BUCKET, &proven.name, proven.text.clone());
}

/// A forged index cannot make a selective restore lose data, neither if blocks can be skipped, because the archive has
/// offsets, nor if all are read. Without `CAMPAIGN=full`, each forgery that no restore of the whole tries is tried once, in
/// turn with each table and form, and each table by the honest index of one form.
async fn a_selection_is_restored_completely(g: &IndexSetup, proven: &IndexedBackup, form: usize) {
    let backup = proven.backup;
    for (t, (table, honest)) in TABLES.iter().zip(&g.honest).enumerate() {
        if t != form && !is_full_campaign() {
            continue;
        }
        let what = format!("{backup} {table} by its index");
        assert_same(&g.part(backup, table).await, honest, &what);
    }
    for (i, forge) in FORGERIES.into_iter().enumerate() {
        let forged = g.forge(proven, forge);
        for (t, (table, honest)) in TABLES.iter().zip(&g.honest).enumerate() {
            // Eight are left, two for each table and form.
            let turn = (i - i / FOURTH) % 4;
            let is_its_turn = i % FOURTH != 0 && turn == 2 * form + t;
            if !is_its_turn && !is_full_campaign() {
                continue;
            }
            let what = format!("{backup} {table} {forged}");
            assert_same(&g.part(backup, table).await, honest, &what);
        }
    }
}

/// What an attacker who may write objects can do to an index.
const FORGERIES: [fn(&mut Value); 11] = [
    |i| (0..3).for_each(|b| i["blocks"][b]["bytes"] = u64::MAX.into()),
    |i| (0..3).for_each(|b| i["blocks"][b]["rows"] = 0.into()),
    |i| move_bound(i, "/blocks/0", "/blocks/1", -10),
    |i| move_bound(i, "/blocks/0", "/blocks/1", 10),
    |i| move_bound(i, "/head", "/blocks/0", -20),
    |i| {
        let first = i["blocks"][0]["dump_id"].take();
        i["blocks"][0]["dump_id"] = std::mem::replace(&mut i["blocks"][1]["dump_id"], first);
    },
    |i| i["blocks"][1]["dump_id"] = i["blocks"][0]["dump_id"].clone(),
    |i| i["blocks"][1]["dump_id"] = (-7).into(),
    |i| i["blocks"][0]["length"] = u64::MAX.into(),
    |i| swallow(i, 0),
    |i| swallow(i, 1),
];

/// Extends a block over the next one, which is removed from the index.
fn swallow(index: &mut Value, nth: usize) {
    let gone = index["blocks"].as_array_mut().unwrap().remove(nth + 1);
    let length = &mut index["blocks"][nth]["length"];
    *length = (length.as_u64().unwrap() + gone["length"].as_u64().unwrap()).into();
}

/// Moves the boundary between two consecutive parts.
fn move_bound(index: &mut Value, before: &str, after: &str, by: i64) {
    let mut add = |part: &str, field: &str, by: i64| {
        let value = index.pointer_mut(part).unwrap().get_mut(field).unwrap();
        *value = (value.as_i64().unwrap() + by).into();
    };
    add(before, "length", by);
    add(after, "offset", by);
    add(after, "length", -by);
}

/// Recomputes the checksum of each part.
fn sign_again(index: &mut Value, whole: &[u8]) {
    let parts = 1 + index["blocks"].as_array().unwrap().len();
    for n in 0..parts {
        let part = if n == 0 {
            &mut index["head"]
        } else {
            &mut index["blocks"][n - 1]
        };
        let (offset, length) = (
            part["offset"].as_u64().unwrap(),
            part["length"].as_u64().unwrap(),
        );
        let bytes = whole
            .get(offset as usize..)
            .and_then(|b| b.get(..length as usize));
        if let Some(bytes) = bytes {
            part["crc32c"] = crc32c::crc32c(bytes).into();
        }
    }
}
