//! Which candidate is reserved for, while budgets of the candidates' own are short: the next one before a refusal, and
//! what may come of it before the client hears no.
//!
//! First every candidate is asked for all that the request wants, without waiting. Only when each of them is short may
//! one shorten the answer (where the request named no limit, or its budget clamps), and only when none can, one may let
//! the request wait. Pure: it knows candidates by their number, and nothing of budgets.

use crate::refusal::Refusal;

/// What else might come of a candidate that is short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hope {
    /// It has room for a shorter answer.
    pub(crate) shorter: bool,
    /// Only reservations are in the way, and its budget lets requests wait.
    pub(crate) waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Whole,
    Shorter,
    Waiting,
}

#[derive(Debug)]
struct Passed {
    candidate: usize,
    refusal: Refusal,
    hope: Hope,
}

#[derive(Debug)]
pub(crate) struct Passing {
    /// Still to be asked in this stage; the first is.
    queue: Vec<usize>,
    /// Candidates that rest while others are there: not asked, and kept for when they come back.
    resting: Vec<usize>,
    passed: Vec<Passed>,
    stage: Stage,
}

impl Passing {
    /// `ready` and `resting` candidates, each in the order in which to try them. Where none is ready, those that rest are.
    pub(crate) fn new(ready: Vec<usize>, resting: Vec<usize>) -> Self {
        let (queue, resting) = if ready.is_empty() { (resting, ready) } else { (ready, resting) };
        // One alone need not be asked twice.
        let stage = if queue.len() > 1 { Stage::Whole } else { Stage::Waiting };
        Self { queue, resting, passed: Vec::new(), stage }
    }

    /// The one that is reserved for, and those that may follow if it fails.
    pub(crate) fn left(&self) -> Vec<usize> {
        self.queue.iter().chain(&self.resting).copied().collect()
    }

    /// Those that were short, and are not to be tried.
    pub(crate) fn passed(&self) -> Vec<usize> {
        let passed = self.passed.iter().map(|passed| passed.candidate);
        passed.filter(|candidate| !self.queue.contains(candidate)).collect()
    }

    /// Its own budgets may make the answer shorter.
    pub(crate) fn may_shorten(&self) -> bool {
        self.stage != Stage::Whole
    }

    /// Its own budgets may let the request wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Leaves the candidate that was asked.
    ///
    /// # Errors
    /// All are short: the refusal with the earliest time to try again, the first of several.
    pub(crate) fn pass(&mut self, refusal: Refusal, hope: Hope) -> Result<(), Refusal> {
        if self.queue.is_empty() {
            return Err(refusal);
        }
        let candidate = self.queue.remove(0);
        let known = self.passed.iter_mut().find(|passed| passed.candidate == candidate);
        match known {
            // Asked for less, it was still short: there is nothing shorter.
            Some(known) => (known.refusal, known.hope) = (refusal, Hope { shorter: false, ..hope }),
            None => self.passed.push(Passed { candidate, refusal, hope }),
        }
        while self.queue.is_empty() {
            let hopeful = |hope: fn(&Hope) -> bool| {
                let hopeful = self.passed.iter().filter(move |passed| hope(&passed.hope));
                hopeful.map(|passed| passed.candidate)
            };
            (self.queue, self.stage) = match self.stage {
                Stage::Whole => (hopeful(|hope| hope.shorter).collect(), Stage::Shorter),
                Stage::Shorter => (hopeful(|hope| hope.waits).take(1).collect(), Stage::Waiting),
                Stage::Waiting => return Err(self.earliest()),
            };
        }
        Ok(())
    }

    fn earliest(&mut self) -> Refusal {
        let passed = std::mem::take(&mut self.passed).into_iter().map(|passed| passed.refusal);
        let after = |refusal: &Refusal| (refusal.retry_after().is_none(), refusal.retry_after());
        passed.min_by_key(after).unwrap_or(Refusal::Internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any refusal that says when to try again; `None`: one that does not.
    fn short(ms: Option<u64>) -> Refusal {
        match ms {
            Some(retry_after_ms) => Refusal::ClusterUnavailable { retry_after_ms },
            None => Refusal::NoModel,
        }
    }

    const NONE: Hope = Hope { shorter: false, waits: false };
    const SHORTER: Hope = Hope { shorter: true, waits: false };
    const WAITS: Hope = Hope { shorter: false, waits: true };

    #[test]
    fn the_next_one_is_asked_for_all_before_any_is_asked_for_less() {
        let mut passing = Passing::new(vec![4, 2, 7], vec![9]);
        assert_eq!(
            (passing.left(), passing.may_shorten(), passing.may_wait()),
            (vec![4, 2, 7, 9], false, false)
        );
        passing.pass(short(Some(5_000)), Hope { shorter: true, waits: true }).unwrap();
        assert_eq!(passing.left(), [2, 7, 9]);
        passing.pass(short(Some(2_000)), SHORTER).unwrap();
        assert!(!passing.may_shorten());
        passing.pass(short(None), NONE).unwrap();
        assert_eq!((passing.left(), passing.may_shorten(), passing.may_wait()), (vec![4, 2, 9], true, false));
        passing.pass(short(Some(5_000)), Hope { shorter: true, waits: true }).unwrap();
        passing.pass(short(Some(2_000)), SHORTER).unwrap();
        assert_eq!((passing.left(), passing.may_wait()), (vec![4, 9], true));
        assert_eq!(passing.pass(short(Some(9_000)), NONE), Err(short(Some(2_000))));
    }

    #[test]
    fn the_refusal_is_the_one_with_the_earliest_retry() {
        for (passed, wanted) in [
            ([Some(3_000), Some(2_000)], Some(2_000)),
            ([None, Some(2_000)], Some(2_000)),
            ([None, None], None),
        ] {
            let mut passing = Passing::new(vec![0, 1], Vec::new());
            passing.pass(short(passed[0]), NONE).unwrap();
            assert_eq!(passing.pass(short(passed[1]), NONE), Err(short(wanted)));
        }
    }

    #[test]
    fn one_alone_may_do_anything_at_once_and_is_asked_once() {
        for (ready, resting) in [(vec![3], vec![5]), (Vec::new(), vec![3])] {
            let mut passing = Passing::new(ready, resting);
            assert!(passing.may_shorten() && passing.may_wait());
            assert_eq!(passing.left()[0], 3);
            assert_eq!(passing.pass(short(Some(1_000)), WAITS), Err(short(Some(1_000))));
        }
    }

    #[test]
    fn nobody_is_asked_without_end() {
        let all = Hope { shorter: true, waits: true };
        let mut passing = Passing::new((0..100).collect(), vec![100]);
        let passes = (0..).take_while(|_| passing.pass(short(Some(1)), all).is_ok()).count();
        assert_eq!(passes, 200, "a hundred for all, a hundred for less, one waiting");
        assert_eq!(Passing::new(Vec::new(), Vec::new()).pass(short(None), all), Err(short(None)));
    }
}
