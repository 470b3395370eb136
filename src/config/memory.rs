//! Memory limits: of this worker, and of what the readers of one archive may keep.

use std::path::{Path, PathBuf};

use super::raw::RawConfig;
use super::values::{ConfigErrors, non_empty};

const MIB: u64 = 1 << 20;
/// Memory that the worker needs before it opens any archive.
const BASE: u64 = 96 * MIB;
/// Memory that each restore needs for buffers and decompressors, in addition to its queue and to what
/// is kept of its archive.
const PER_JOB: u64 = 40 * MIB;
/// What the readers of an archive may keep that is opened for its database's name alone, one at a time and beside the
/// jobs: the window of `xz -9`, and what the readers need besides.
pub(crate) const NAME_BUDGET: u64 = 72 * MIB;
/// Memory that the server of a sandbox is started with: its shared buffers, and what one build of an index may take.
pub(crate) const SANDBOX_SHARED_BUFFERS_MIB: u64 = 256;
pub(crate) const SANDBOX_MAINTENANCE_MIB: u64 = 128;
const PER_SANDBOX: u64 = (SANDBOX_SHARED_BUFFERS_MIB + SANDBOX_MAINTENANCE_MIB) * MIB;
/// Limit on a machine without a cgroup limit.
const MOST_UNASKED: u64 = 2048 * MIB;
/// Smallest budget, whatever the limit: with less, no dump of a real database could be read.
const LEAST_BUDGET: u64 = 32 * MIB;

/// Bytes that the readers of one archive may keep: half of each job's share, because the rest of the
/// program holds copies of some of it. `sandboxes`: how many of them may run at once.
pub(super) fn archive_budget(
    raw: &RawConfig,
    jobs: usize,
    queue_bytes: usize,
    sandboxes: usize,
    errors: &mut ConfigErrors,
) -> u64 {
    let asked = non_empty(&raw.restore_memory_mib)
        .map(|_| errors.at_least_one("RESTORE_MEMORY_MIB", &raw.restore_memory_mib, 1) as u64);
    let limit = asked.map_or_else(
        || limit(Path::new("/"), sandboxes as u64),
        |mib| mib.saturating_mul(MIB),
    );
    budget_of(limit, jobs as u64, queue_bytes as u64)
}

fn budget_of(limit: u64, jobs: u64, queue_bytes: u64) -> u64 {
    let jobs = jobs.max(1);
    let fixed = jobs
        .saturating_mul(queue_bytes.saturating_add(PER_JOB))
        .saturating_add(BASE + NAME_BUDGET);
    (limit.saturating_sub(fixed) / jobs.saturating_mul(2)).max(LEAST_BUDGET)
}

/// The cgroup's limit without what sandboxes take of it or, if it has none, half of the machine's memory, at most 2 GiB.
fn limit(root: &Path, sandboxes: u64) -> u64 {
    let machine = read_machine(root).unwrap_or(MOST_UNASKED);
    match cgroup_limits(root).into_iter().min() {
        Some(limit) if limit < machine => {
            limit.saturating_sub(sandboxes.saturating_mul(PER_SANDBOX))
        }
        _ => (machine / 2).min(MOST_UNASKED),
    }
}

fn read_machine(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

/// Every limit on this process: of its own cgroup and its ancestors, of versions 1 and 2.
fn cgroup_limits(root: &Path) -> Vec<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        // Number, controllers, path; version 2 lists no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's; then the mount itself is the group.
        let mut group = PathBuf::from(path.trim_start_matches('/'));
        loop {
            let limit = std::fs::read_to_string(root.join(mount).join(&group).join(file)).ok();
            found.extend(limit.and_then(|t| t.trim().parse::<u64>().ok()));
            if !group.pop() {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let gib = (
            "proc/meminfo",
            "MemTotal:       8388608 kB\nMemFree: 1 kB\n",
        );
        for (name, text) in std::iter::once(&gib).chain(files) {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_cgroup_limit_applies() {
        let of = |files: &[(&str, &str)]| limit(machine(files).path(), 0) / MIB;
        let v2 = ("proc/self/cgroup", "0::/pod/worker\n");
        assert_eq!(of(&[]), 2048);
        assert_eq!(
            of(&[v2, ("sys/fs/cgroup/pod/worker/memory.max", "536870912\n")]),
            512
        );
        assert_eq!(
            of(&[v2, ("sys/fs/cgroup/pod/worker/memory.max", "max\n")]),
            2048
        );
        let outer = ("sys/fs/cgroup/pod/memory.max", "268435456\n");
        assert_eq!(
            of(&[
                v2,
                outer,
                ("sys/fs/cgroup/pod/worker/memory.max", "536870912\n")
            ]),
            256
        );
        let v1 = (
            "proc/self/cgroup",
            "9:name=systemd:/\n4:cpu,memory:/docker/1f\n0::/\n",
        );
        assert_eq!(
            of(&[
                v1,
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n")
            ]),
            1024
        );
        // Version 1 reports this number if there is no limit.
        assert_eq!(
            of(&[
                v1,
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n"
                )
            ]),
            2048
        );
        // A limit above the machine's memory.
        assert_eq!(
            of(&[
                v2,
                ("sys/fs/cgroup/pod/worker/memory.max", "99999999999999\n")
            ]),
            2048
        );
        assert_eq!(
            of(&[v2, ("sys/fs/cgroup/pod/worker/memory.max", "4294967296\n")]),
            4096
        );
    }

    #[test]
    fn sandboxes_have_their_part_of_the_cgroup() {
        let group = [
            ("proc/self/cgroup", "0::/worker\n"),
            ("sys/fs/cgroup/worker/memory.max", "2147483648\n"),
        ];
        let of = |files: &[(&str, &str)], sandboxes| limit(machine(files).path(), sandboxes) / MIB;
        assert_eq!(
            (of(&group, 0), of(&group, 1), of(&group, 2)),
            (2048, 1664, 1280)
        );
        assert_eq!(of(&group, 100), 0);
        // Half of the machine is left to them anyway.
        assert_eq!(of(&[], 2), 2048);
    }

    #[test]
    fn the_archive_budget_leaves_memory_for_the_worker() {
        let budget = |limit: u64, jobs| budget_of(limit * MIB, jobs, 32 * MIB) / MIB;
        assert_eq!(
            (budget(512, 1), budget(1024, 1), budget(2048, 1)),
            (136, 392, 904)
        );
        assert_eq!((budget(1024, 4), budget(64, 1), budget(0, 1)), (71, 32, 32));
        assert_eq!(budget_of(u64::MAX, u64::MAX, u64::MAX), LEAST_BUDGET);
    }
}
