//! A small model that computes the time of a restore from the cost of its parts, without PostgreSQL. Text flows
//! from the network through the archive reader to COPY. Once a table is complete, its indexes are built, on one
//! core each, while other tables load.
//!
//! Not modelled: the disk (assumed to be fast enough), waits for locks and for WAL, parallel index builds, and that
//! sorting costs slightly more than linear time.

/// Measured costs of the parts of a restore. Text means uncompressed COPY text.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Costs {
    /// Seconds that do not depend on the size of the backup.
    pub fixed: f64,
    /// MB of text per MB of archive.
    pub expansion: f64,
    /// MB of text per second that one reader extracts from an archive.
    pub reader: f64,
    /// CPU seconds of the client per MB of text.
    pub client: f64,
    /// CPU seconds of the server per MB of text, for COPY.
    pub copy: f64,
    /// CPU seconds of the server per MB of text, for indexes and keys.
    pub build: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub server_cores: f64,
    /// `None` if the client runs on the server's cores.
    pub client_cores: Option<f64>,
    /// MB of archive per second.
    pub link: f64,
    /// Number of readers of one backup: several for a directory, and for a custom archive that says where its data is.
    pub readers: f64,
}

/// A table: MB of text, and the number of indexes among which the build cost is divided.
#[derive(Debug, Clone, Copy)]
pub struct ModelTable {
    pub text: f64,
    pub indexes: usize,
}

/// For each resource, the seconds during which it was the bottleneck.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct BottleneckTimes {
    pub seconds: f64,
    pub link: f64,
    pub reader: f64,
    /// The client's cores.
    pub client: f64,
    /// The server's cores, while data arrives.
    pub copy: f64,
    /// Index builds after the last data.
    pub tail: f64,
}

impl BottleneckTimes {
    /// The resource that was the bottleneck for most of the time.
    pub fn bound(&self) -> &'static str {
        let parts = [
            (self.link, "the link"),
            (self.reader, "the archive's one reader"),
            (self.client, "the client's cores"),
            (self.copy, "the server's cores, loading"),
            (self.tail, "indexes after the last row"),
        ];
        parts
            .into_iter()
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or("", |p| p.1)
    }
}

/// Restores `tables`, in this order, with as many sessions as the server has cores.
pub fn simulate(costs: &Costs, machine: &Machine, tables: &[ModelTable]) -> BottleneckTimes {
    let sessions = machine.server_cores.max(1.0);
    let mut out = BottleneckTimes {
        seconds: costs.fixed,
        ..BottleneckTimes::default()
    };
    let mut waiting = std::collections::VecDeque::from_iter(tables.iter().copied());
    // Remaining CPU seconds of each index that is ready or being built, longest first.
    let mut builds: Vec<f64> = vec![];
    while let Some(table) = waiting.front().copied() {
        // One session is kept free for the data.
        let building = builds.len().min(sessions as usize - 1);
        let lanes = sessions - building as f64;
        // Sessions and the reader share the client's cores.
        let share = match machine.client_cores {
            Some(_) => 1.0,
            None => (machine.server_cores / (sessions + 1.0)).min(1.0),
        };
        let (cores_rate, client_rate) = match machine.client_cores {
            Some(client) => (lanes * share / costs.copy, client / costs.client),
            None => {
                let left = machine.server_cores - building as f64 * share;
                (left / (costs.copy + costs.client), f64::INFINITY)
            }
        };
        let limits = [
            machine.link * costs.expansion,
            machine.readers * costs.reader,
            client_rate,
            cores_rate.min(lanes / costs.copy),
        ];
        let rate = limits.into_iter().fold(f64::INFINITY, f64::min);
        let loaded = table.text / rate;
        let built = builds
            .iter()
            .take(building)
            .copied()
            .fold(f64::INFINITY, f64::min)
            / share;
        let step = loaded.min(built);
        out.seconds += step;
        let bounds = [
            &mut out.link,
            &mut out.reader,
            &mut out.client,
            &mut out.copy,
        ];
        if let Some((bound, _)) = bounds
            .into_iter()
            .zip(limits)
            .min_by(|a, b| a.1.total_cmp(&b.1))
        {
            *bound += step;
        }
        builds
            .iter_mut()
            .take(building)
            .for_each(|b| *b -= step * share);
        builds.retain(|b| *b > 1e-9);
        if let Some(front) = waiting.front_mut() {
            front.text -= step * rate;
            if loaded <= built {
                let whole = tables[tables.len() - waiting.len()];
                let each = whole.text * costs.build / whole.indexes.max(1) as f64;
                builds.extend(std::iter::repeat_n(each, whole.indexes));
                builds.sort_by(|a, b| b.total_cmp(a));
                waiting.pop_front();
            }
        }
    }
    // Longest first, on one core each.
    let mut cores = vec![0.0_f64; sessions as usize];
    for build in builds {
        cores.sort_by(f64::total_cmp);
        cores[0] += build;
    }
    out.tail = cores.into_iter().fold(0.0, f64::max);
    out.seconds += out.tail;
    out
}
