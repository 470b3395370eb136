//! Memory for sorting an index's keys.

/// Bytes per row while it is sorted: minimum and typical.
const ROW_BYTES: [u64; 2] = [48, 96];
/// Memory that merging one more run takes (`tuplesort.c`).
const RUN_BYTES: u64 = 34 * 8192;
/// The server's minimum.
const LEAST_KIB: u64 = 1024;

/// A statement that sets the memory, for this transaction, to build what `sql` creates over this many rows. Rows
/// that do not fit into memory are sorted in runs, which are then merged. The smallest memory that still merges
/// every run in one pass is fastest: short runs are sorted in the CPU cache.
pub(super) fn memory_for(sql: &str, rows: u64) -> Option<String> {
    let [least, usual] = ROW_BYTES.map(|bytes| rows.saturating_mul(bytes));
    let kib = (usual.saturating_mul(RUN_BYTES).isqrt() / 1024).max(LEAST_KIB);
    let sorts = [" USING btree ", " PRIMARY KEY (", " UNIQUE ("]
        .iter()
        .any(|words| sql.contains(words));
    (sorts && least / 1024 > kib).then(|| {
        format!(
            "SELECT pg_catalog.set_config('maintenance_work_mem', '{kib}kB', true) WHERE \
             pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) \
             BETWEEN {} AND {least}",
            kib * 1024
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "CREATE INDEX i ON public.t USING btree (a);";

    #[test]
    fn memory_is_the_least_that_merges_in_one_pass() {
        let sql = memory_for(INDEX, 3_000_000).unwrap();
        assert!(
            sql.contains("'8746kB'") && sql.ends_with("BETWEEN 8955904 AND 144000000"),
            "{sql}"
        );
        for rows in [100_000, 3_000_000, 1_000_000_000] {
            let sql = memory_for(INDEX, rows).unwrap();
            let kib: u64 = sql
                .split('\'')
                .nth(3)
                .unwrap()
                .trim_end_matches("kB")
                .parse()
                .unwrap();
            let runs = rows.saturating_mul(96) / (kib * 1024);
            assert!(runs <= kib * 1024 / RUN_BYTES + 1, "{rows}: {runs} runs");
        }
    }

    #[test]
    fn memory_is_set_only_for_sorts_that_do_not_fit() {
        for rows in [0, 1, 20_000] {
            assert_eq!(memory_for(INDEX, rows), None);
        }
        let many = 3_000_000;
        assert_eq!(
            memory_for("CREATE INDEX i ON public.t USING gin (a);", many),
            None
        );
        let key = "ALTER TABLE ONLY t ADD CONSTRAINT k";
        assert_eq!(
            memory_for(&format!("{key} FOREIGN KEY (a) REFERENCES u(a);"), many),
            None
        );
        for kind in ["PRIMARY KEY", "UNIQUE"] {
            assert!(memory_for(&format!("{key} {kind} (a) INCLUDE (b);"), many).is_some());
        }
    }
}
