//! What a restore takes, from what its parts cost: a small model, without PostgreSQL. Text flows from the
//! link through the archive's reader to COPY; each table that is complete has its indexes built, one core
//! each, while others load.
//!
//! Left out: the disk (it is taken for fast enough), waits for locks and for the log, helpers of an index
//! build, and that sorting costs a little more than in proportion.

/// What the parts of a restore cost, as measured. Text is COPY text, before compression.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Costs {
    /// Seconds that do not grow with the backup.
    pub fixed: f64,
    /// MB of text in a MB of the archive.
    pub expansion: f64,
    /// MB of text a second that one reader takes out of an archive.
    pub reader: f64,
    /// Processor seconds of the client for a MB of text.
    pub client: f64,
    /// Processor seconds of the server for a MB of text: COPY.
    pub copy: f64,
    /// The same: indexes and keys.
    pub build: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub server_cores: f64,
    /// `None`: the client runs on the server's cores.
    pub client_cores: Option<f64>,
    /// MB of the archive a second.
    pub link: f64,
    /// Readers of one backup: several only of a directory.
    pub readers: f64,
}

/// A table: MB of text, and how many indexes share the cost of building.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub text: f64,
    pub indexes: usize,
}

/// Seconds in which each was what the rest waited for.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Outcome {
    pub seconds: f64,
    pub link: f64,
    pub reader: f64,
    /// The client's cores.
    pub client: f64,
    /// The server's cores, while data comes.
    pub copy: f64,
    /// Indexes after the last data.
    pub tail: f64,
}

impl Outcome {
    /// What it waited for most.
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
pub fn simulate(costs: &Costs, machine: &Machine, tables: &[Table]) -> Outcome {
    let sessions = machine.server_cores.max(1.0);
    let mut out = Outcome {
        seconds: costs.fixed,
        ..Outcome::default()
    };
    let mut waiting = std::collections::VecDeque::from_iter(tables.iter().copied());
    // Processor seconds left of each index that is ready or being built, longest first.
    let mut builds: Vec<f64> = vec![];
    while let Some(table) = waiting.front().copied() {
        // One session is kept free for the data.
        let building = builds.len().min(sessions as usize - 1);
        let lanes = sessions - building as f64;
        // Sessions and the reader share the cores that they have together.
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
    // One core each, longest first.
    let mut cores = vec![0.0_f64; sessions as usize];
    for build in builds {
        cores.sort_by(f64::total_cmp);
        cores[0] += build;
    }
    out.tail = cores.into_iter().fold(0.0, f64::max);
    out.seconds += out.tail;
    out
}
