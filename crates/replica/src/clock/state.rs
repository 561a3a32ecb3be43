//! What this node knows of its clock and its peers', and what follows: the time to stamp with, whether it may stand for
//! election, whose clock is right. Asks nobody; `compare` does.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_ledger::TimestampMs;

use super::guard::{Guard, Turn};
use super::sample::{PeerClock, Sample};
use super::source::{Clock, Moment};
use super::stamp::StampClock;
use super::verdict::{Verdict, judge};
use crate::status::Peer;

/// A peer that has not answered for so long may be gone.
const GONE_AFTER_MS: i64 = 3_000;

/// This node's clock as it compares with its peers', for operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClockReport {
    /// How far this node's clock is ahead of the median of the members' (negative: behind), at least; `None`: too few are
    /// known, or they differ and nobody can say whose is wrong.
    pub offset_ms: Option<i64>,
    /// It is off by more than it may be: this node does not lead if another one can.
    pub off: bool,
    /// So far the clock has jumped against the time that batches are stamped with, without being confirmed; 0: it has not.
    pub held_ms: i64,
    pub peers: Vec<PeerOffset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerOffset {
    pub id: u64,
    /// How far this node's clock is ahead of the peer's, at least; `None`: not known.
    pub ahead_ms: Option<i64>,
}

/// What a peer said when it was asked for its clock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Clock(Sample),
    /// Alive, but of a release that does not compare clocks.
    Unaware,
    Silent,
}

/// What changed with a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub turn: Option<Turn>,
    pub verdict: Option<Verdict>,
    pub held_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Clocks {
    pub clock: Clock,
    pub offset_max_ms: i64,
    /// After so long without a leader a node with a wrong clock stands for election too, and one that has just started no
    /// longer waits for its peers' clocks.
    patience_ms: i64,
    /// Held for a look or for the result of a round, never over an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamp: StampClock,
    guard: Guard,
    peers: BTreeMap<u64, Known>,
    expected: Vec<Peer>,
    verdict: Option<Verdict>,
    /// A majority's clocks have been known once.
    judged: bool,
    leader_heard_ms: i64,
}

#[derive(Debug, Default)]
struct Known {
    clock: PeerClock,
    heard_ms: Option<i64>,
}

impl Clocks {
    pub fn new(clock: Clock, offset_max_ms: u64, patience_ms: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX / 4);
        let offset_max_ms = signed(offset_max_ms);
        let state = State {
            stamp: StampClock::new(offset_max_ms),
            guard: Guard::default(),
            peers: BTreeMap::new(),
            expected: Vec::new(),
            verdict: None,
            judged: false,
            leader_heard_ms: clock.run_ms(),
        };
        Self { clock, offset_max_ms, patience_ms: signed(patience_ms), state: Mutex::new(state) }
    }

    /// The time of a batch.
    pub fn stamp(&self) -> TimestampMs {
        let moment = self.clock.moment();
        timestamp(self.state.lock().stamp.stamp(moment))
    }

    /// The time of which batches would be stamped.
    pub fn now(&self) -> TimestampMs {
        let moment = self.clock.moment();
        timestamp(self.state.lock().stamp.time(moment))
    }

    /// Those with whom the cluster will be formed: their clocks are worth knowing before it is.
    pub fn expect(&self, peers: &[Peer]) {
        self.state.lock().expected = peers.to_vec();
    }

    pub fn expected(&self) -> Vec<Peer> {
        self.state.lock().expected.clone()
    }

    pub fn is_off(&self) -> bool {
        self.state.lock().guard.is_off()
    }

    /// As far as clocks matter. A wrong one is better than no leader: amounts hold whatever the clocks do.
    pub fn may_stand(&self) -> bool {
        let run_ms = self.clock.run_ms();
        let state = self.state.lock();
        let compared = state.judged || run_ms > self.patience_ms;
        let leaderless = run_ms - state.leader_heard_ms > self.patience_ms;
        (compared && !state.guard.is_off()) || leaderless
    }

    /// To be waited for before this node forms a cluster: its first stamp would be believed as it is.
    pub fn is_compared(&self) -> bool {
        self.clock.run_ms() > self.patience_ms || self.is_judged()
    }

    /// Have a majority's clocks been known once?
    pub fn is_judged(&self) -> bool {
        self.state.lock().judged
    }

    /// Peers whose clock is surely not far from the time that is believed here, and that have answered lately.
    pub fn right_peers(&self) -> Vec<u64> {
        let moment = self.clock.moment();
        let state = self.state.lock();
        let lately =
            |known: &Known| known.heard_ms.is_some_and(|heard| moment.run_ms - heard < GONE_AFTER_MS);
        let right = state.peers.iter().filter(|(_, known)| lately(known));
        let right = right.filter(|(_, known)| {
            self.distance(&state, moment, known).is_some_and(|distance| distance.abs() <= self.offset_max_ms)
        });
        right.map(|(id, _)| *id).collect()
    }

    /// How far the peer's clock is ahead of the time that is believed here, if that is surely too much.
    pub fn wrong_by(&self, id: u64) -> Option<i64> {
        let moment = self.clock.moment();
        let state = self.state.lock();
        let behind = self.distance(&state, moment, state.peers.get(&id)?)?;
        (behind.abs() > self.offset_max_ms).then_some(-behind)
    }

    /// How far the believed time is ahead of a peer's clock.
    fn distance(&self, state: &State, moment: Moment, known: &Known) -> Option<i64> {
        let estimate = known.clock.estimate(moment.run_ms, self.error_max_ms())?;
        Some(estimate.behind_ms(state.stamp.believed_origin(moment)))
    }

    /// An estimate that is vaguer says too little.
    fn error_max_ms(&self) -> i64 {
        self.offset_max_ms / 2
    }

    /// Takes up the answers of a round. `answers` has every other member; without any member (there is no cluster yet, as
    /// far as this node knows) nothing is judged. `leader_heard`: there is a leader, and it lives.
    pub fn hear(
        &self,
        answers: &[(u64, Answer)],
        has_members: bool,
        leader_heard: impl Fn(&[u64]) -> bool,
    ) -> Round {
        let moment = self.clock.moment();
        let mut state = self.state.lock();
        state.peers.retain(|id, _| answers.iter().any(|(asked, _)| asked == id));
        let mut alive = Vec::new();
        for (id, answer) in answers {
            let known = state.peers.entry(*id).or_default();
            match answer {
                Answer::Clock(sample) => known.clock.add(*sample),
                Answer::Unaware => {}
                Answer::Silent => continue,
            }
            known.heard_ms = Some(moment.run_ms);
            alive.push(*id);
        }
        if leader_heard(&alive) {
            state.leader_heard_ms = moment.run_ms;
        }
        if !has_members {
            return Round { turn: None, verdict: None, held_ms: 0 };
        }
        let estimate = |known: &Known| known.clock.estimate(moment.run_ms, self.error_max_ms());
        let others: Vec<_> = state.peers.values().map(estimate).collect();
        let verdict = judge(moment.origin_ms(), &others, self.offset_max_ms);
        state.verdict = Some(verdict);
        state.judged |= verdict.deviation_ms.is_some();
        state.stamp.hear(moment, &verdict);
        let turn = state.guard.hear(&verdict, self.offset_max_ms);
        Round { turn, verdict: Some(verdict), held_ms: state.stamp.held_ms(moment) }
    }

    pub fn report(&self) -> ClockReport {
        let moment = self.clock.moment();
        let state = self.state.lock();
        let peer = |(id, known): (&u64, &Known)| {
            let estimate = known.clock.estimate(moment.run_ms, self.error_max_ms());
            PeerOffset { id: *id, ahead_ms: estimate.map(|clock| clock.behind_ms(moment.origin_ms())) }
        };
        let verdict = state.verdict.filter(|verdict| !verdict.is_open(self.offset_max_ms));
        ClockReport {
            offset_ms: verdict.and_then(|verdict| verdict.deviation_ms),
            off: state.guard.is_off(),
            held_ms: state.stamp.held_ms(moment),
            peers: state.peers.iter().map(peer).collect(),
        }
    }
}

fn timestamp(ms: i64) -> TimestampMs {
    TimestampMs(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const PATIENCE_MS: u64 = 3_600_000;

    /// A node whose wall clock stands still unless it is set, and its view of two peers.
    fn clocks() -> (Arc<AtomicU64>, Clocks) {
        let wall = Arc::new(AtomicU64::new(1_000_000_000));
        let read = wall.clone();
        let clock = Clock::new(move || read.load(Ordering::Relaxed));
        (wall, Clocks::new(clock, 500, PATIENCE_MS))
    }

    fn hear(clocks: &Clocks, peers: [Option<i64>; 2]) -> Round {
        let now = clocks.clock.run_ms();
        let answer = |wall: Option<i64>| {
            wall.map_or(Answer::Silent, |wall| Answer::Clock(Sample::new(now, now, wall)))
        };
        clocks.hear(&[(2, answer(peers[0])), (3, answer(peers[1]))], true, |alive| alive.contains(&2))
    }

    #[test]
    fn a_node_that_is_off_does_not_stand_and_knows_who_is_right() {
        let (wall, clocks) = clocks();
        let base = 1_000_000_000;
        assert!(!clocks.may_stand(), "nothing is known yet");
        hear(&clocks, [Some(base), Some(base)]);
        assert!(clocks.may_stand() && clocks.is_judged());
        assert_eq!(clocks.right_peers(), [2, 3]);
        wall.fetch_add(60_000, Ordering::Relaxed);
        assert!(clocks.now().0 < 1_000_030_000, "an unconfirmed jump");
        assert!(clocks.report().held_ms > 59_000);
        let turns: Vec<_> = (0..5).filter_map(|_| hear(&clocks, [Some(base), Some(base)]).turn).collect();
        assert!(matches!(turns[..], [Turn::Off { ahead_ms: 59_000..=60_000 }]), "{turns:?}");
        assert!(!clocks.may_stand());
        assert!(clocks.stamp().0 < 1_000_030_000);
        // It is itself that is wrong, so the others are right.
        assert_eq!(clocks.right_peers(), [2, 3]);
        assert_eq!(clocks.wrong_by(2), None);
        let report = clocks.report();
        assert!(report.off && report.offset_ms.unwrap() > 59_000, "{report:?}");
        assert!(report.peers.iter().all(|peer| peer.ahead_ms.unwrap() > 59_000), "{report:?}");
        wall.fetch_sub(60_000, Ordering::Relaxed);
        let turns: Vec<_> = (0..5).filter_map(|_| hear(&clocks, [Some(base), Some(base)]).turn).collect();
        assert_eq!(turns, [Turn::RightAgain]);
        assert!(clocks.may_stand());
    }

    #[test]
    fn of_two_that_differ_nobody_is_wrong() {
        let (_, clocks) = clocks();
        let rounds: Vec<_> = (0..5).map(|_| hear(&clocks, [Some(1_000_060_000), None])).collect();
        assert!(rounds.iter().all(|round| round.turn.is_none()));
        assert!(rounds[4].verdict.unwrap().is_open(500));
        assert!(clocks.may_stand());
        assert_eq!(clocks.report().offset_ms, None);
        assert!(clocks.wrong_by(2).is_some(), "as far as this node can tell");
    }

    #[test]
    fn without_members_nothing_is_judged() {
        let (_, clocks) = clocks();
        let round = clocks.hear(&[], false, |_| false);
        assert!(round.verdict.is_none());
        assert!(!clocks.may_stand());
        // A cluster of one.
        clocks.hear(&[], true, |_| false);
        assert!(clocks.may_stand());
        assert_eq!(clocks.report().offset_ms, Some(0));
    }

    #[test]
    fn a_wrong_clock_is_better_than_no_leader() {
        let wall = Clock::new(|| 1_000_000_000);
        let clocks = Clocks::new(wall, 500, 0);
        for _ in 0..3 {
            let now = clocks.clock.run_ms();
            let answer = Answer::Clock(Sample::new(now, now, 2_000_000_000));
            clocks.hear(&[(2, answer), (3, answer)], true, |_| false);
        }
        assert!(clocks.is_off());
        while clocks.clock.run_ms() < 2 {
            std::hint::spin_loop();
        }
        assert!(clocks.may_stand());
    }
}
