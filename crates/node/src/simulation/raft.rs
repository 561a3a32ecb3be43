//! An abstract Raft: terms, one leader by right and others that believe to lead, entries that are committed, lost, or
//! committed without an answer. What a quorum agrees on is one list; how it agrees is left out (openraft has its own tests).

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quorate_ledger::{Command, Ledger};
use quorate_replica::{Applied, ProposeError, Role};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::world::{ELECTION_MIN, LOST_QUORUM, Underway, World, peer};

const WATCHDOG: Duration = Duration::from_millis(120);

/// Cheap to clone. Held locked for a look or a change, never over an await.
#[derive(Debug, Clone)]
pub(super) struct Raft(Arc<Mutex<World>>);

impl Raft {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock()
    }

    /// Elects whoever can be elected, whenever the leader has been out of reach for long enough.
    pub async fn keep_a_leader(self) {
        loop {
            tokio::time::sleep(WATCHDOG).await;
            let elected = {
                let mut world = self.world();
                let since = match world.leader {
                    Some(leader) if world.can_commit(leader) => continue,
                    Some(leader) => world.nodes[leader].last_ack,
                    None => world.leaderless_since,
                };
                let patience = ELECTION_MIN + world.rng.millis(0, 800);
                let overdue = world.term == 0 || since.elapsed() >= patience;
                let candidates: Vec<usize> =
                    (0..world.nodes.len()).filter(|node| world.connected(*node)).collect();
                (overdue && world.has_quorum()).then(|| *world.rng.pick(&candidates))
            };
            if let Some(node) = elected {
                self.elect(node);
            }
        }
    }

    /// `node` leads from now on. Of what its predecessor had under way, it has a part from the beginning; the rest is lost.
    pub fn elect(&self, node: usize) {
        let mut world = self.world();
        world.acknowledge_leader();
        if world.nodes[node].role == Role::Leader {
            world.step_down(node);
        }
        world.term += 1;
        let term = world.term;
        let sent = world.underway.iter().take_while(|entry| entry.sent).count();
        let kept = world.rng.below(sent + 1);
        let lost = world.underway.len() - kept;
        world.underway.truncate(kept);
        world.saw("election");
        if kept > 0 {
            world.saw("inherited entries");
        }
        if lost > 0 {
            world.saw("lost entries");
        }
        world.note(|| format!("node {} is elected in term {term}: keeps {kept}, {lost} are lost", node + 1));
        world.leader = Some(node);
        let this = &mut world.nodes[node];
        (this.role, this.term, this.leader, this.last_ack) = (Role::Leader, term, Some(node), Instant::now());
        world.announce(node);
        let at = world.clock(node);
        let blank = world.next_id();
        world.underway.push_back(Underway {
            id: blank,
            term,
            at,
            commands: Vec::new(),
            sent: true,
            due: false,
        });
        let ids: Vec<u64> = world.underway.iter().map(|entry| entry.id).collect();
        let others = world.nodes.len();
        drop(world);
        ids.into_iter().for_each(|id| self.write(id));
        (0..others).filter(|other| *other != node).for_each(|other| self.tell(other));
    }

    /// It hears, a little later, who leads.
    fn tell(&self, node: usize) {
        let (raft, delay) = (self.clone(), self.world().rng.delay(60, 1_500));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            raft.world().learn(node);
            raft.plan_apply(node);
        });
    }

    /// The answer comes when the entry is applied at that node, or when it learns that it leads no more.
    pub fn propose(
        &self,
        node: usize,
        commands: Vec<Command>,
    ) -> Result<oneshot::Receiver<Result<Applied, ProposeError>>, ProposeError> {
        let mut world = self.world();
        if !world.believes_to_lead(node) {
            let leader = world.nodes[node].leader.filter(|leader| *leader != node).map(peer);
            return Err(ProposeError::NotLeader { leader });
        }
        if world.quiet(node) > LOST_QUORUM {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let (answer, answered) = oneshot::channel();
        let (id, at, term) = (world.next_id(), world.clock(node), world.nodes[node].term);
        world.note(|| format!("node {} proposes {} in term {term}", node + 1, commands.len()));
        world.nodes[node].answers.insert(id, answer);
        if world.leader == Some(node) && world.term == term {
            let sent = world.can_commit(node);
            world.underway.push_back(Underway { id, term, at, commands, sent, due: false });
            drop(world);
            self.write(id);
        }
        Ok(answered)
    }

    /// A quorum writes the entry, if its leader can still reach one by then.
    fn write(&self, id: u64) {
        let mut world = self.world();
        let (usual, rare) = world.write_ms;
        let (raft, delay) = (self.clone(), world.rng.delay(usual, rare));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(entry) = raft.world().underway.iter_mut().find(|entry| entry.id == id) {
                entry.due = true;
            }
            raft.advance();
        });
    }

    fn advance(&self) {
        let mut world = self.world();
        let mut committed = false;
        while world.leader.is_some_and(|leader| world.can_commit(leader))
            && world.underway.front().is_some_and(|entry| entry.sent && entry.due)
        {
            let Some(entry) = world.underway.pop_front() else { break };
            world.commit(entry);
            committed = true;
        }
        let size = world.nodes.len();
        drop(world);
        if committed {
            (0..size).for_each(|node| self.plan_apply(node));
        }
    }

    /// Soon on the leader, later on others.
    fn plan_apply(&self, node: usize) {
        let mut world = self.world();
        let leads = world.leader == Some(node);
        let this = &world.nodes[node];
        if this.apply_planned || !this.up || !this.linked || this.applied == world.log.len() {
            return;
        }
        world.nodes[node].apply_planned = true;
        let (usual, rare) = if leads { (3, 60) } else { (120, 2_500) };
        let (raft, delay) = (self.clone(), world.rng.delay(usual, rare));
        drop(world);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let mut world = raft.world();
            world.nodes[node].apply_planned = false;
            while world.connected(node) && world.nodes[node].applied < world.log.len() {
                world.apply_next(node);
            }
        });
    }

    /// Cuts a node off from the others, or connects it again.
    pub fn link(&self, node: usize, linked: bool) {
        let mut world = self.world();
        if world.nodes[node].linked == linked {
            return;
        }
        world.note(|| format!("node {} is {}", node + 1, if linked { "connected again" } else { "cut off" }));
        world.acknowledge_leader();
        world.nodes[node].linked = linked;
        drop(world);
        if linked {
            self.back(node);
        }
    }

    /// All that waited for the connection goes on.
    fn back(&self, node: usize) {
        let mut world = self.world();
        let revived: Vec<u64> = match world.leader.filter(|leader| world.can_commit(*leader)) {
            Some(_) => world.underway.iter().filter(|entry| !entry.sent).map(|entry| entry.id).collect(),
            None => Vec::new(),
        };
        for entry in world.underway.iter_mut().filter(|entry| revived.contains(&entry.id)) {
            (entry.sent, entry.due) = (true, false);
        }
        drop(world);
        let size = self.world().nodes.len();
        let hear = if self.world().leader == Some(node) { 0..size } else { node..node + 1 };
        revived.into_iter().for_each(|id| self.write(id));
        // Who came back while the leader was cut off hears of it only now.
        hear.for_each(|other| self.tell(other));
        self.advance();
    }

    /// Everything soft is gone. Whoever waited for an answer hears nothing.
    pub fn crash(&self, node: usize) {
        let mut world = self.world();
        world.note(|| format!("node {} crashes", node + 1));
        world.acknowledge_leader();
        if world.leader == Some(node) {
            world.leaderless_since = world.nodes[node].last_ack;
            world.leader = None;
        }
        let this = &mut world.nodes[node];
        (this.up, this.role, this.leader, this.handing_over) = (false, Role::Stopped, None, None);
        this.incarnation += 1;
        this.answers.clear();
        this.idle_since = Instant::now();
        world.saw("crash");
    }

    /// From its snapshot, through the real serialization, and a part of the log after it.
    pub fn restart(&self, node: usize) {
        let mut world = self.world();
        let (snapshot, index) = world.nodes[node].snapshot.clone();
        let written = serde_json::to_vec(&snapshot).expect("a ledger can be written");
        let ledger: Ledger = serde_json::from_slice(&written).expect("and read again");
        let known = world.nodes[node].applied;
        let until = index + world.rng.below(known - index + 1);
        world.acknowledge_leader();
        let this = &mut world.nodes[node];
        (this.up, this.role, this.ledger, this.applied) = (true, Role::Follower, ledger, index);
        while world.nodes[node].applied < until {
            world.apply_next(node);
        }
        world.compare_digest(node);
        world.announce(node);
        drop(world);
        self.back(node);
    }

    /// Gives up its lease at once; another one, or nobody, takes over.
    pub async fn transfer(&self, to: usize) {
        let (delay, term, leader) = {
            let mut world = self.world();
            let Some(leader) = world.leader.filter(|leader| world.can_commit(*leader) && *leader != to)
            else {
                return;
            };
            world.note(|| format!("node {} hands over to {}", leader + 1, to + 1));
            world.nodes[leader].handing_over = Some(world.term);
            let term = world.term;
            let delay = world.rng.delay(40, 400);
            (delay, term, leader)
        };
        tokio::time::sleep(delay).await;
        let takes_over = {
            let mut world = self.world();
            let same = world.term == term && world.leader == Some(leader);
            same && world.connected(to) && world.has_quorum() && world.rng.percent(85)
        };
        if takes_over {
            self.elect(to);
        }
    }
}

impl World {
    fn next_id(&mut self) -> u64 {
        self.entries_made += 1;
        self.entries_made
    }

    /// Up to now its quorum has answered it: to be called before anything changes that.
    fn acknowledge_leader(&mut self) {
        if let Some(leader) = self.leader.filter(|leader| self.can_commit(*leader)) {
            self.nodes[leader].last_ack = Instant::now();
        }
    }

    fn learn(&mut self, node: usize) {
        let Some(leader) = self.leader else { return };
        if node == leader || !self.connected(node) || !self.connected(leader) {
            return;
        }
        if self.nodes[node].role == Role::Leader {
            self.step_down(node);
        }
        let term = self.term;
        let this = &mut self.nodes[node];
        if (this.role, this.term, this.leader) != (Role::Follower, term, Some(leader)) {
            (this.role, this.term, this.leader) = (Role::Follower, term, Some(leader));
            self.announce(node);
        }
    }

    /// Who waits for an answer here is told that nobody knows; some hear what became of it, if it is on its way.
    fn step_down(&mut self, node: usize) {
        let leader = self.leader.filter(|leader| *leader != node).map(peer);
        for (id, answer) in std::mem::take(&mut self.nodes[node].answers) {
            let alive = self.underway.iter().any(|entry| entry.id == id)
                || self.log[self.nodes[node].applied..].iter().any(|entry| entry.id == id);
            if alive && self.rng.percent(40) {
                self.nodes[node].answers.insert(id, answer);
                continue;
            }
            let error = match self.rng.percent(50) {
                true => ProposeError::NotLeader { leader: leader.clone() },
                false => ProposeError::LostLeadership { leader: leader.clone() },
            };
            let _ = answer.send(Err(error));
            self.saw("left without an answer");
        }
        self.nodes[node].role = Role::Follower;
        self.note_idle(node);
    }
}
