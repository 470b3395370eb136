//! What each session does next: a pure state machine over the plan, the pieces that the archive
//! reader has queued and what is finished. No waiting happens here.
//!
//! Sessions are alike. One takes a *lane* of a table (it copies pieces of it, beside other lanes
//! of the same table) or a *task* (an index, a key, …). While data is still arriving, one session
//! is kept free for it, so that a long index build cannot stop the stream.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::plan::{Pass, Plan};

/// What a session may do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Load pieces of this data node until [`Next::Leave`] or [`Next::End`].
    Lane(usize),
    /// Run the statements of this node.
    Task(usize),
    /// Nothing yet; ask again after a change.
    Wait,
    /// Everything is restored.
    Finished,
    /// Nothing runs and nothing can start: entries wait for each other.
    Stuck(usize),
}

/// What a lane does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<P> {
    Piece(P),
    Wait,
    /// Finish this COPY; other work needs the session more.
    Leave,
    /// The table's data has all been taken.
    End,
}

#[derive(Debug)]
struct Queue<P> {
    pieces: VecDeque<(P, bool)>,
    lanes: usize,
    /// Session in the middle of a row: the next piece is its.
    holder: Option<usize>,
    ended: bool,
    /// Bytes queued so far: the weight of what waits for this table.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
}

/// The board that sessions and the archive reader share. `P` is a piece of data.
#[derive(Debug)]
pub struct Schedule<P> {
    plan: Plan,
    state: Vec<State>,
    missing: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// Nodes whose prerequisites are done, by pass: heaviest first, then in the archive's order.
    ready: [BTreeSet<(Reverse<u64>, usize)>; Pass::COUNT],
    queues: HashMap<usize, Queue<P>>,
    arrival: VecDeque<usize>,
    exclusive: HashSet<i32>,
    shared: HashMap<i32, usize>,
    sessions: usize,
    running_tasks: usize,
    /// Archive readers that may still bring data.
    streams: usize,
    /// Nodes come while the stream is read: there is no table of contents.
    growing: bool,
    pass: Pass,
    /// Nodes not finished, by pass.
    left: [usize; Pass::COUNT],
}

impl<P> Schedule<P> {
    /// `sessions` is how many sessions will ask, `streams` how many archive readers bring data. With
    /// `growing`, nodes may be added as long as a stream is open.
    pub fn new(plan: Plan, sessions: usize, streams: usize, growing: bool) -> Self {
        let n = plan.nodes.len();
        let mut dependents = vec![Vec::new(); n];
        let mut left = [0; Pass::COUNT];
        for (i, node) in plan.nodes.iter().enumerate() {
            node.after.iter().for_each(|d| dependents[*d].push(i));
            left[node.pass as usize] += 1;
        }
        let mut s = Schedule {
            missing: plan.nodes.iter().map(|n| n.after.len()).collect(),
            state: vec![State::Waiting; n],
            dependents,
            ready: Default::default(),
            queues: HashMap::new(),
            arrival: VecDeque::new(),
            exclusive: HashSet::new(),
            shared: HashMap::new(),
            sessions,
            running_tasks: 0,
            streams,
            growing,
            pass: Pass::Main,
            left,
            plan,
        };
        (0..n).filter(|i| s.missing[*i] == 0).collect::<Vec<_>>().into_iter().for_each(|i| s.make_ready(i));
        s.advance_pass();
        s
    }

    pub fn node(&self, node: usize) -> &super::plan::Node {
        &self.plan.nodes[node]
    }

    /// Nodes whose data comes from the archive, each with its entry.
    pub fn data_nodes(&self) -> impl Iterator<Item = (usize, usize)> {
        let nodes = self.plan.nodes.iter().enumerate();
        nodes.filter(|(_, n)| n.is_data).map(|(i, n)| (i, n.entry))
    }

    // --- the archive reader's side ---

    /// Adds a node that comes after all it names.
    pub fn add(&mut self, mut node: super::plan::Node) -> usize {
        let index = self.plan.nodes.len();
        node.after.retain(|d| self.state[*d] != State::Done);
        node.after.iter().for_each(|d| self.dependents[*d].push(index));
        self.left[node.pass as usize] += 1;
        self.missing.push(node.after.len());
        self.state.push(State::Waiting);
        self.dependents.push(vec![]);
        let ready = node.after.is_empty();
        self.plan.nodes.push(node);
        if ready {
            self.make_ready(index);
        }
        index
    }

    /// The data of `node` starts to arrive, or goes on after other data.
    pub fn begin(&mut self, node: usize) {
        if self.queues.contains_key(&node) {
            return;
        }
        let queue = Queue { pieces: VecDeque::new(), lanes: 0, holder: None, ended: false, bytes: 0 };
        self.queues.insert(node, queue);
        self.arrival.push_back(node);
        self.state[node] = State::Running;
    }

    /// Queues a piece of `weight` bytes; with `splittable`, any lane may take the next one.
    pub fn push(&mut self, node: usize, piece: P, weight: u64, splittable: bool) {
        if let Some(q) = self.queues.get_mut(&node) {
            q.bytes += weight;
            q.pieces.push_back((piece, splittable));
        }
    }

    /// All data of `node` has arrived.
    pub fn end(&mut self, node: usize) {
        if let Some(q) = self.queues.get_mut(&node) {
            q.ended = true;
        }
        self.finish_if_loaded(node);
    }

    /// An archive reader has come to its end; after the last one, every data node has had its data.
    pub fn stream_ended(&mut self) {
        self.streams = self.streams.saturating_sub(1);
        if self.streams == 0 {
            self.growing = false;
            self.advance_pass();
        }
    }

    /// Whether data may still arrive.
    pub fn is_stream_open(&self) -> bool {
        self.streams > 0
    }

    /// Whether every piece of `node` has been taken.
    pub fn is_drained(&self, node: usize) -> bool {
        self.queues.get(&node).is_none_or(|q| q.pieces.is_empty())
    }

    // --- the sessions' side ---

    pub fn next(&mut self, session: usize) -> Work {
        if let Some(node) = self.lane_to_join(session) {
            if let Some(q) = self.queues.get_mut(&node) {
                q.lanes += 1;
            }
            return Work::Lane(node);
        }
        if self.may_run_task()
            && let Some(node) = self.take_task()
        {
            return Work::Task(node);
        }
        match self.left.iter().sum::<usize>() {
            0 if !self.is_stream_open() => Work::Finished,
            1.. if self.stalled() => Work::Stuck(self.first_waiting()),
            _ => Work::Wait,
        }
    }

    /// The next piece for a lane of `node`.
    pub fn take(&mut self, node: usize, session: usize) -> Next<P> {
        let other_data = self.lane_to_join(session).is_some_and(|n| n != node);
        let others_need_us = other_data || (self.may_run_task() && self.heaviest_runnable().is_some());
        let Some(q) = self.queues.get_mut(&node) else { return Next::End };
        if q.holder.is_some_and(|h| h != session) {
            return if others_need_us { Next::Leave } else { Next::Wait };
        }
        match q.pieces.pop_front() {
            Some((piece, splittable)) => {
                q.holder = (!splittable).then_some(session);
                Next::Piece(piece)
            }
            None if q.ended => Next::End,
            // The last lane stays for what comes next, unless data waits elsewhere.
            None if q.holder.is_none() && (other_data || (q.lanes > 1 && others_need_us)) => Next::Leave,
            None => Next::Wait,
        }
    }

    /// A lane's COPY is complete on the server.
    pub fn lane_done(&mut self, node: usize) {
        if let Some(q) = self.queues.get_mut(&node) {
            q.lanes -= 1;
        }
        self.finish_if_loaded(node);
    }

    /// A task's statements are complete on the server.
    pub fn task_done(&mut self, node: usize) {
        self.running_tasks -= 1;
        let n = &self.plan.nodes[node];
        for t in &n.exclusive {
            self.exclusive.remove(t);
        }
        for t in &n.shared {
            if let Some(count) = self.shared.get_mut(t) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(t);
                }
            }
        }
        self.finish(node);
    }

    // --- inside ---

    fn finish_if_loaded(&mut self, node: usize) {
        let loaded = self.queues.get(&node).is_some_and(|q| q.ended && q.lanes == 0 && q.pieces.is_empty());
        if loaded && self.missing[node] == 0 && self.state[node] != State::Done {
            self.arrival.retain(|n| *n != node);
            self.finish(node);
        }
    }

    fn finish(&mut self, node: usize) {
        self.state[node] = State::Done;
        self.left[self.plan.nodes[node].pass as usize] -= 1;
        for d in std::mem::take(&mut self.dependents[node]) {
            self.missing[d] -= 1;
            if self.missing[d] == 0 {
                self.make_ready(d);
            }
        }
        self.advance_pass();
    }

    fn make_ready(&mut self, node: usize) {
        let n = &self.plan.nodes[node];
        if n.is_data {
            self.finish_if_loaded(node);
        } else {
            // Everything it waits for is loaded, so its weight is final.
            let weight = match n.pass.is_serial() {
                true => 0,
                false => n.after.iter().filter_map(|d| self.queues.get(d)).map(|q| q.bytes).sum(),
            };
            self.ready[n.pass as usize].insert((Reverse(weight), node));
        }
    }

    fn advance_pass(&mut self) {
        while !self.growing && self.left[self.pass as usize] == 0 {
            match self.pass.next() {
                Some(next) => self.pass = next,
                None => return,
            }
        }
    }

    /// The oldest table with pieces that no lane is about to take.
    fn lane_to_join(&self, session: usize) -> Option<usize> {
        self.arrival.iter().copied().find(|n| {
            let Some(q) = self.queues.get(n) else { return false };
            let free = q.holder.is_none_or(|h| h == session) && self.missing[*n] == 0;
            free && !q.pieces.is_empty() && (q.lanes == 0 || q.pieces.len() >= 2)
        })
    }

    fn may_run_task(&self) -> bool {
        // Where nodes grow, tasks that are ready stand before the data to come.
        !self.is_stream_open() || self.growing || self.running_tasks + 1 < self.sessions
    }

    fn runnable(&self, node: usize) -> bool {
        let n = &self.plan.nodes[node];
        !n.exclusive.iter().any(|t| self.exclusive.contains(t) || self.shared.contains_key(t))
            && !n.shared.iter().any(|t| self.exclusive.contains(t))
    }

    fn heaviest_runnable(&self) -> Option<(Reverse<u64>, usize)> {
        if self.pass.is_serial() && self.running_tasks > 0 {
            return None;
        }
        self.ready[self.pass as usize].iter().find(|(_, n)| self.runnable(*n)).copied()
    }

    fn take_task(&mut self) -> Option<usize> {
        let key = self.heaviest_runnable()?;
        self.ready[self.pass as usize].remove(&key);
        let node = key.1;
        self.state[node] = State::Running;
        self.running_tasks += 1;
        let n = &self.plan.nodes[node];
        self.exclusive.extend(&n.exclusive);
        for t in &n.shared {
            *self.shared.entry(*t).or_insert(0) += 1;
        }
        Some(node)
    }

    /// Nothing runs, nothing is queued, the stream is over, and yet something waits.
    fn stalled(&self) -> bool {
        !self.is_stream_open()
            && self.running_tasks == 0
            && self.arrival.is_empty()
            && self.heaviest_runnable().is_none()
    }

    fn first_waiting(&self) -> usize {
        self.state.iter().position(|s| *s == State::Waiting).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Node;
    use super::*;

    fn node(entry: usize, pass: Pass, is_data: bool, after: &[usize], exclusive: &[i32]) -> Node {
        Node { entry, pass, is_data, after: after.to_vec(), exclusive: exclusive.to_vec(), shared: vec![] }
    }

    /// Random plans, random order of events: no node starts before its prerequisites, none beside
    /// another that holds its table, every node finishes, every piece is taken once and in order.
    #[test]
    fn every_schedule_is_complete_and_in_order() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let n = rng.usize(1..40);
            let nodes: Vec<Node> = (0..n)
                .map(|i| {
                    let is_data = i < n / 3;
                    let pass = match (is_data, rng.u8(0..10)) {
                        (true, _) | (_, 0..8) => Pass::Main,
                        (_, 8) => Pass::Acl,
                        _ => [Pass::Refresh, Pass::EventTriggers][rng.usize(0..2)],
                    };
                    let after: Vec<usize> =
                        if is_data { vec![] } else { (0..i).filter(|_| rng.u8(0..6) == 0).collect() };
                    let exclusive: Vec<i32> =
                        if rng.bool() && !is_data { vec![rng.i32(0..3)] } else { vec![] };
                    node(i, pass, is_data, &after, &exclusive)
                })
                .collect();
            // A node of an earlier pass must not wait for one of a later pass.
            let passes: Vec<Pass> = nodes.iter().map(|n| n.pass).collect();
            let nodes: Vec<Node> = nodes
                .into_iter()
                .map(|mut n| {
                    n.after.retain(|d| passes[*d] <= n.pass);
                    n
                })
                .collect();
            run(&mut rng, nodes);
        }
    }

    fn run(rng: &mut fastrand::Rng, nodes: Vec<Node>) {
        let sessions = rng.usize(1..5);
        let plan = Plan { pre_data: vec![], nodes: nodes.clone() };
        let mut s: Schedule<u32> = Schedule::new(plan, sessions, 1, false);
        let mut feed: VecDeque<(usize, u32)> =
            (0..nodes.len()).filter(|i| nodes[*i].is_data).map(|i| (i, rng.u32(0..6))).collect();
        let mut sent: HashMap<usize, u32> = HashMap::new();
        let mut taken: HashMap<usize, Vec<u32>> = HashMap::new();
        let mut doing: Vec<Option<Work>> = (0..sessions).map(|_| None).collect();
        let mut done = HashSet::new();
        let mut open: Option<(usize, u32)> = None;
        for _ in 0..100_000 {
            if rng.u8(0..3) == 0 {
                match (open, feed.front().copied()) {
                    (None, None) => s.stream_ended(),
                    (None, Some((node, count))) => {
                        feed.pop_front();
                        s.begin(node);
                        open = Some((node, count));
                    }
                    (Some((node, 0)), _) => {
                        s.end(node);
                        open = None;
                    }
                    (Some((node, left)), _) => {
                        let number = sent.entry(node).or_insert(0);
                        s.push(node, *number, 1, left == 1 || rng.bool());
                        *number += 1;
                        open = Some((node, left - 1));
                    }
                }
            }
            let who = rng.usize(0..sessions);
            match doing[who].take() {
                None => match s.next(who) {
                    Work::Finished => {
                        assert_eq!(s.left, [0; Pass::COUNT]);
                        for (node, count) in sent {
                            let mut got = taken.remove(&node).unwrap_or_default();
                            got.sort_unstable();
                            assert_eq!(got, (0..count).collect::<Vec<_>>());
                        }
                        return;
                    }
                    Work::Wait => {}
                    Work::Stuck(n) => panic!("stuck at {n}"),
                    Work::Task(t) => {
                        assert!(nodes[t].after.iter().all(|d| s.state[*d] == State::Done));
                        for other in doing.iter().flatten() {
                            if let Work::Task(o) = other {
                                assert!(nodes[t].exclusive.iter().all(|x| !nodes[*o].exclusive.contains(x)));
                                assert_eq!(nodes[t].pass, nodes[*o].pass);
                                assert!(!nodes[t].pass.is_serial());
                            }
                        }
                        assert!(done.insert(t), "node {t} twice");
                        doing[who] = Some(Work::Task(t));
                    }
                    lane => doing[who] = Some(lane),
                },
                Some(Work::Task(t)) => s.task_done(t),
                Some(Work::Lane(node)) => match s.take(node, who) {
                    Next::Piece(p) => {
                        taken.entry(node).or_default().push(p);
                        doing[who] = Some(Work::Lane(node));
                    }
                    Next::Wait => doing[who] = Some(Work::Lane(node)),
                    Next::Leave | Next::End => s.lane_done(node),
                },
                Some(_) => {}
            }
        }
        panic!("not finished");
    }

    #[test]
    fn one_table_is_shared_and_one_session_stays_free_for_data() {
        let nodes = vec![
            node(0, Pass::Main, true, &[], &[]),
            node(1, Pass::Main, false, &[], &[]),
            node(2, Pass::Main, false, &[], &[]),
        ];
        let mut s: Schedule<u32> = Schedule::new(Plan { pre_data: vec![], nodes }, 2, 1, false);
        assert_eq!(s.next(0), Work::Task(1));
        assert_eq!(s.next(1), Work::Wait, "kept for data");
        s.begin(0);
        for i in 0..4 {
            s.push(0, i, 1, true);
        }
        s.task_done(1);
        assert_eq!((s.next(0), s.next(1)), (Work::Lane(0), Work::Lane(0)));
        assert_eq!((s.take(0, 0), s.take(0, 1)), (Next::Piece(0), Next::Piece(1)));
    }

    #[test]
    fn a_row_in_pieces_stays_on_one_session() {
        let nodes = vec![node(0, Pass::Main, true, &[], &[])];
        let mut s: Schedule<u32> = Schedule::new(Plan { pre_data: vec![], nodes }, 2, 1, false);
        s.begin(0);
        s.push(0, 0, 1, false);
        s.push(0, 1, 1, true);
        s.push(0, 2, 1, true);
        assert_eq!((s.next(0), s.next(1)), (Work::Lane(0), Work::Lane(0)));
        assert_eq!(s.take(0, 1), Next::Piece(0));
        assert_eq!(s.take(0, 0), Next::Wait);
        assert_eq!(s.take(0, 1), Next::Piece(1));
        assert_eq!(s.take(0, 0), Next::Piece(2));
    }

    #[test]
    fn entries_that_wait_for_each_other_are_reported() {
        let nodes = vec![node(0, Pass::Main, false, &[1], &[]), node(1, Pass::Main, false, &[0], &[])];
        let mut s: Schedule<u32> = Schedule::new(Plan { pre_data: vec![], nodes }, 1, 1, false);
        s.stream_ended();
        assert_eq!(s.next(0), Work::Stuck(0));
    }
}
