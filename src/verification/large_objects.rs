//! Compares large objects with the archive, by size and CRC32C.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt;

use super::restored_database::{RestoredDatabase, counted};
use super::row_checks::excused;
use super::text_forms::connect;
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Session, map_pg_error};
use crate::progress::Progress;
use crate::proof::{Check, CheckStatus};
use pgdump_archive::ObjectDigest;

/// How many large objects one query reads, and how many bytes of each.
const OBJECTS: usize = 200;
const OBJECT_PART: i32 = 256 << 10;
/// How many large objects one query lists.
const LISTED_OBJECTS: i64 = 10_000;
/// How many that differ are named.
const MAX_NAMED: usize = 20;

/// Compares every large object with the archive's digest.
pub(super) async fn compare(subject: &RestoredDatabase<'_>) -> Result<Vec<Check>, RestoreError> {
    if !subject.content_digest.counts_rows() {
        // Its functions may have made any. The check of rows says so.
        return Ok(vec![]);
    }
    let mut wanted = subject.content_digest.objects();
    let bytes: u64 = wanted.values().map(|o| o.bytes).sum();
    let session = connect(&subject.server.streaming_rows(), subject.database).await?;
    let (mut count, mut after, mut wrong, mut named) = (0, 0, 0u64, Vec::new());
    let mut differs = |oid: u32| {
        wrong += 1;
        if named.len() < MAX_NAMED {
            named.push(oid.to_string());
        }
    };
    loop {
        let page = list_objects(&session, after).await?;
        let Some(last) = page.last() else { break };
        after = *last;
        for batch in page.chunks(OBJECTS) {
            for (oid, is) in read_objects(&session, batch, subject.progress).await? {
                // An object without a byte has no data in the archive.
                if wanted.remove(&oid).unwrap_or_default() != is {
                    differs(oid);
                }
            }
        }
        count += page.len();
    }
    wanted.keys().copied().for_each(&mut differs);
    Ok(match (count, wrong) {
        (0, 0) => vec![],
        (_, 0) => {
            let what = format!(
                "{} with {} {} the archive",
                counted(count, "large object"),
                counted(bytes, "byte"),
                if count == 1 { "matches" } else { "match" }
            );
            vec![Check::new("large objects", CheckStatus::Passed, what)]
        }
        _ => {
            let what = format!(
                "{} {} from the archive: {}",
                counted(wrong, "large object"),
                if wrong == 1 { "differs" } else { "differ" },
                named.join(", ")
            );
            let check = Check::new("large objects", CheckStatus::Failed, what);
            let foreign = subject.content_digest.foreign_statement();
            vec![foreign.map_or(check.clone(), |line| excused(check, line))]
        }
    })
}

/// The next large objects after `after`, by their oid.
async fn list_objects(session: &Session, after: u32) -> Result<Vec<u32>, DatabaseError> {
    let sql =
        "SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid > $1 ORDER BY oid LIMIT $2";
    let rows = session
        .client()
        .query(sql, &[&after, &LISTED_OBJECTS])
        .await;
    let rows = rows.map_err(|e| map_pg_error(&e, "looking at large objects"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

async fn read_objects(
    session: &Session,
    oids: &[u32],
    progress: &Progress,
) -> Result<BTreeMap<u32, ObjectDigest>, DatabaseError> {
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "reading large objects back");
    let sql = "SELECT o, pg_catalog.lo_get(o, $2, $3) FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS x(o)";
    let mut found: BTreeMap<u32, ObjectDigest> =
        oids.iter().map(|o| (*o, ObjectDigest::default())).collect();
    let (mut open, mut offset) = (oids.to_vec(), 0i64);
    while !open.is_empty() {
        let asked = std::mem::take(&mut open);
        let rows = session.rows(sql, &[&asked, &offset, &OBJECT_PART]).await;
        let mut rows = rows.map_err(e)?;
        while let Some(row) = rows.next().await {
            let row = row.map_err(e)?;
            let (oid, part): (u32, &[u8]) = (row.get(0), row.get(1));
            progress.rows_checked.fetch_add(1, Relaxed);
            let o = found.entry(oid).or_default();
            o.bytes += part.len() as u64;
            o.crc32c = o.crc32c.append(part);
            if part.len() == OBJECT_PART as usize {
                open.push(oid);
            }
        }
        offset += i64::from(OBJECT_PART);
    }
    Ok(found)
}
