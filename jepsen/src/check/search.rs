//! Is there an order of a tenant's operations that explains every answer? Wing and Gong's search with Lowe's memory of
//! what was seen before ("Testing for linearizability", 2017): an operation may be placed next if none that is left had
//! ended before it began. One without an answer may be placed at any later time, or never; an expiry, once it may be due.
//! Both are placed just in time: only where no answer fits without them, few before many.
//!
//! The answers say where they stand in the log. With [`By::Log`] that order is kept too, which leaves little to search
//! (operations of one entry, of which the answers do not tell the order); with [`By::RealTime`] it is only a hint.

mod guess;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::tenant::{Ask, Tenant};
use super::words::{Account, Answer, Decision, Snapshot};

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Answer(Answer),
    Seen(Snapshot),
    /// It may have taken effect.
    Nothing,
}

impl Told {
    /// What was seen as spent and as reserved, of each account that was shown.
    fn sums(&self) -> Vec<(&str, (u64, u64))> {
        match self {
            Self::Answer(Answer { decision: Decision::Granted { balances, .. }, .. })
            | Self::Answer(Answer { decision: Decision::Settled { balances, .. }, .. }) => {
                balances.iter().map(|line| (line.account.as_str(), (line.spent, line.reserved))).collect()
            }
            Self::Seen(seen) => {
                let sums = |account: &'_ Account| (account.spent, account.reserved);
                seen.accounts.iter().map(|account| (account.account.as_str(), sums(account))).collect()
            }
            // A denial may be an old one.
            Self::Answer(_) | Self::Nothing => Vec::new(),
        }
    }

    fn shows_sums(&self) -> bool {
        !self.sums().is_empty()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Index of its first event.
    pub event: u64,
    pub id: String,
    pub ask: Ask,
    pub told: Told,
    pub invoked_us: u64,
    pub completed_us: u64,
    /// Index in the log; `None`: a denial from applied state, or nobody knows.
    pub index: Option<u64>,
    /// The ledger's time was this or later when it began.
    pub since_ms: u64,
}

impl Step {
    /// Reads come after all writes of the last entry that they saw.
    fn place(&self) -> Option<(u64, bool)> {
        self.index.map(|index| (index, self.ask == Ask::Read))
    }

    /// What the answer says of the ledger's time: it was this or later.
    pub fn time_ms(&self) -> Option<u64> {
        match (&self.told, &self.ask) {
            (Told::Seen(seen), _) => Some(seen.time_ms),
            (
                Told::Answer(Answer { decision: Decision::Granted { deadline_ms, .. }, .. }),
                Ask::Reserve { ttl_ms, .. },
            ) => deadline_ms.checked_sub(*ttl_ms),
            _ => None,
        }
    }

    /// The balances in the answer, also those of a denial: what was spent and what reserved.
    pub fn shown(&self) -> Vec<(&str, (u64, u64))> {
        match &self.told {
            Told::Answer(Answer { decision: Decision::Denied(denied), .. }) => {
                vec![(denied.short.account.as_str(), (denied.short.spent, denied.short.reserved))]
            }
            told => told.sums(),
        }
    }

    fn is_required(&self) -> bool {
        self.told != Told::Nothing
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Log,
    RealTime,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Order,
    /// There is none. Where the best attempt ended: the state, and those that should have come next.
    Contradiction {
        state: Box<Tenant>,
        next: Vec<usize>,
    },
    /// None was found within the budget of tries.
    GaveUp {
        state: Box<Tenant>,
        next: Vec<usize>,
    },
}

/// How many without an answer may be placed at once, and whether also where an answer fits without them. An order that
/// needs much to be invented is looked for last; with the last of these, every order is.
const PASSES: [(usize, bool); 5] =
    [(1, false), (4, false), (usize::MAX, false), (1, true), (usize::MAX, true)];

/// `tries`: how many answers may be compared with a state, in each pass.
pub fn search(start: &Tenant, steps: &[Step], by: By, tries: u64) -> Found {
    let mut search = Search::new(steps, by);
    let left = steps.iter().filter(|step| step.is_required()).count();
    let mut all_seen = false;
    for (spree, everywhere) in PASSES {
        (search.spree, search.everywhere, search.tries) = (spree, everywhere, tries);
        search.cut = false;
        search.seen.clear();
        search.placed.fill(false);
        search.set = 0;
        match search.place(start, left) {
            Ok(true) => return Found::Order,
            Ok(false) if search.cut => {}
            Ok(false) => {
                all_seen = true;
                break;
            }
            Err(OutOfTries) => {}
        }
    }
    let (_, state, next) = search.best.unwrap_or((0, start.clone(), Vec::new()));
    let state = Box::new(state);
    if all_seen { Found::Contradiction { state, next } } else { Found::GaveUp { state, next } }
}

struct OutOfTries;

struct Search<'a> {
    steps: &'a [Step],
    by: By,
    accounts: Accounts,
    tries: u64,
    spree: usize,
    everywhere: bool,
    /// Something was not looked at because of these.
    cut: bool,
    placed: Vec<bool>,
    /// Of what is placed: the exclusive or of a random number for each.
    set: u64,
    numbers: Vec<u64>,
    hasher: RandomState,
    /// Hashes stand for what they are of: two of 64 bits each, so no order is missed by chance.
    seen: HashSet<(u64, u64)>,
    /// The fewest that were left: how many, the state, and which could have come next.
    best: Option<(usize, Tenant, Vec<usize>)>,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step], by: By) -> Self {
        let hasher = RandomState::new();
        let numbers = (0..steps.len()).map(|step| hasher.hash_one(step)).collect();
        Self {
            steps,
            by,
            accounts: Accounts::new(steps),
            tries: 0,
            spree: 1,
            everywhere: false,
            cut: false,
            placed: vec![false; steps.len()],
            set: 0,
            numbers,
            hasher,
            seen: HashSet::new(),
            best: None,
        }
    }

    /// Places all that is left; false: there is no way from here.
    fn place(&mut self, state: &Tenant, left: usize) -> Result<bool, OutOfTries> {
        if left == 0 {
            return Ok(true);
        }
        let hash = self.hash(state);
        if !self.seen.insert((self.set, hash)) {
            return Ok(false);
        }
        let next = self.next();
        if self.best.as_ref().is_none_or(|(best, ..)| left < *best) {
            self.best = Some((left, state.clone(), next.clone()));
        }
        let mut fitting = Vec::new();
        for step in &next {
            if let Some(after) = self.after(state, *step)? {
                // What changes nothing may as well come now: whoever can be explained later, can be now.
                if after == *state {
                    return self.with(&[*step], &after, left - 1);
                }
                fitting.push((*step, after));
            }
        }
        // Those of one entry may have come in any order, and some answers fit anywhere: what shows balances goes first.
        let first = next.first().and_then(|step| self.steps[*step].place());
        let fitted: Vec<usize> = fitting.iter().map(|(step, _)| *step).collect();
        let is_stuck = next.iter().any(|step| self.steps[*step].place() == first && !fitted.contains(step));
        fitting.sort_by_key(|(step, _)| !self.steps[*step].told.shows_sums());
        for (step, after) in fitting {
            if self.with(&[step], &after, left - 1)? {
                return Ok(true);
            }
        }
        if !is_stuck && !self.everywhere {
            self.cut = true;
            return Ok(false);
        }
        self.place_unanswered(state, &next, &fitted, left)
    }

    /// Those without an answer that let one of `next` fit, by their number, each time with the one that fits.
    fn place_unanswered(
        &mut self,
        state: &Tenant,
        next: &[usize],
        fitted: &[usize],
        left: usize,
    ) -> Result<bool, OutOfTries> {
        // What fits without them is, unless every order is wanted, not what they are for.
        let wanted: Vec<usize> =
            next.iter().copied().filter(|step| self.everywhere || !fitted.contains(step)).collect();
        self.cut |= wanted.len() < next.len();
        if self.place_guessed(state, &wanted, left)? {
            return Ok(true);
        }
        let mut frontier = vec![(Vec::new(), state.clone())];
        let mut met = HashSet::new();
        // What is due expires together, the earliest deadline first.
        let mut due: Vec<(u64, String)> = self.due(state).map(|(id, from)| (from, id.to_owned())).collect();
        due.sort_unstable();
        let mut expired = state.clone();
        for (_, id) in due {
            let Some(after) = expired.expired(&id).filter(|after| !self.is_beyond(after, &wanted)) else {
                break;
            };
            met.insert((0, self.hash(&after)));
            if self.place_wanted(&[], &after, &wanted, left)? {
                return Ok(true);
            }
            frontier.push((Vec::new(), after.clone()));
            expired = after;
        }
        for _ in 0..self.spree {
            let mut further = Vec::new();
            for (taken, state) in frontier {
                for (step, after) in self.options(&state, &taken, &wanted) {
                    self.tries = self.tries.checked_sub(1).ok_or(OutOfTries)?;
                    let taken: Vec<usize> = taken.iter().copied().chain(step).collect();
                    let set = taken.iter().fold(0, |set, step| set ^ self.numbers[*step]);
                    if !met.insert((set, self.hash(&after))) {
                        continue;
                    }
                    if self.place_wanted(&taken, &after, &wanted, left)? {
                        return Ok(true);
                    }
                    if !self.is_beyond(&after, &wanted) {
                        further.push((taken, after));
                    }
                }
            }
            if further.is_empty() {
                return Ok(false);
            }
            frontier = further;
        }
        self.cut = true;
        Ok(false)
    }

    /// One of `wanted`, after those that were `taken`.
    fn place_wanted(
        &mut self,
        taken: &[usize],
        state: &Tenant,
        wanted: &[usize],
        left: usize,
    ) -> Result<bool, OutOfTries> {
        for step in wanted {
            if let Some(after) = self.after(state, *step)? {
                let steps: Vec<usize> = taken.iter().chain([step]).copied().collect();
                if self.with(&steps, &after, left - 1)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Those that may expire now. Later reads tell a time by which it must have been due.
    fn due<'s>(&self, state: &'s Tenant) -> impl Iterator<Item = (&'s str, u64)> + use<'s> {
        let seen = self.left().filter_map(|(_, step)| match &step.told {
            Told::Seen(snapshot) => Some(snapshot.time_ms),
            _ => None,
        });
        let latest = seen.min().unwrap_or(u64::MAX);
        state.open().filter(move |(_, from)| *from <= latest)
    }

    /// More is spent than any of `next` has seen, and nothing takes it back.
    fn is_beyond(&self, state: &Tenant, next: &[usize]) -> bool {
        let ends = self.steps.iter().enumerate().filter(|(index, step)| {
            !step.is_required() && !self.placed[*index] && !matches!(step.ask, Ask::Reserve { .. })
        });
        let correctable: HashSet<&str> = ends.map(|(_, step)| step.id.as_str()).collect();
        next.iter().map(|step| &self.steps[*step]).all(|step| {
            // Its own expiry it corrects itself.
            let back = |id: &str| correctable.contains(id) || id == step.id;
            step.told.sums().iter().any(|(account, (spent, _))| state.surely_spent(account, back) > *spent)
        })
    }

    fn with(&mut self, steps: &[usize], after: &Tenant, left: usize) -> Result<bool, OutOfTries> {
        steps.iter().for_each(|step| self.flip(*step));
        let placed = self.place(after, left)?;
        steps.iter().for_each(|step| self.flip(*step));
        Ok(placed)
    }

    fn flip(&mut self, step: usize) {
        self.placed[step] = !self.placed[step];
        self.set ^= self.numbers[step];
    }

    fn hash(&self, state: &Tenant) -> u64 {
        self.hasher.hash_one(state)
    }

    fn after(&mut self, state: &Tenant, step: usize) -> Result<Option<Tenant>, OutOfTries> {
        let step = &self.steps[step];
        if let Told::Answer(answer) = &step.told
            && !state.may_be_answered(&step.id, answer)
        {
            return Ok(None);
        }
        self.tries = self.tries.checked_sub(1).ok_or(OutOfTries)?;
        Ok(match &step.told {
            Told::Answer(answer) => state.answered(&step.id, &step.ask, answer),
            Told::Seen(snapshot) => state.read(snapshot),
            Told::Nothing => state.unanswered(&step.id, &step.ask, step.since_ms),
        })
    }

    fn left(&self) -> impl Iterator<Item = (usize, &'a Step)> {
        let steps = self.steps.iter().enumerate();
        steps.filter(|(index, step)| step.is_required() && !self.placed[*index])
    }

    /// The first end of those that are left: what began after it comes after it.
    fn horizon(&self) -> u64 {
        self.left().map(|(_, step)| step.completed_us).min().unwrap_or(u64::MAX)
    }

    /// Those with an answer that may come next.
    fn next(&self) -> Vec<usize> {
        let horizon = self.horizon();
        let first = self.left().filter_map(|(_, step)| step.place()).min();
        let in_log = |step: &Step| self.by == By::RealTime || step.index.is_none() || step.place() == first;
        let may = self.left().filter(|(_, step)| step.invoked_us <= horizon && in_log(step));
        let mut next: Vec<usize> = may.map(|(index, _)| index).collect();
        next.sort_by_key(|step| (self.steps[*step].place(), self.steps[*step].invoked_us));
        next
    }

    /// What may come next without an answer, and changes something that one of `next` may be about.
    fn options(&self, state: &Tenant, taken: &[usize], next: &[usize]) -> Vec<(Option<usize>, Tenant)> {
        let horizon = self.horizon();
        let unanswered: Vec<(usize, &Step)> = self
            .steps
            .iter()
            .enumerate()
            .filter(|(index, step)| {
                let free = !self.placed[*index] && !taken.contains(index);
                !step.is_required() && free && step.invoked_us <= horizon
            })
            .collect();
        let due: Vec<&str> = self.due(state).map(|(id, _)| id).collect();
        let ids = unanswered.iter().map(|(_, step)| step.id.as_str()).chain(due.iter().copied());
        let matters = self.accounts.reach(next.iter().map(|step| &self.steps[*step]), ids);
        let matters = |id: &str| self.accounts.of(id) & matters != 0;
        let unanswered = unanswered.into_iter().filter(|(_, step)| matters(&step.id));
        let unanswered = unanswered.filter_map(|(index, step)| {
            state.unanswered(&step.id, &step.ask, step.since_ms).map(|after| (Some(index), after))
        });
        let expiries = due.into_iter().filter(|id| matters(id));
        let expiries = expiries.filter_map(|id| state.expired(id).map(|after| (None, after)));
        unanswered.chain(expiries).collect()
    }
}

/// Which accounts each reservation is about: a bit for each, the last one for all beyond the 63rd.
struct Accounts(HashMap<String, u64>);

impl Accounts {
    fn new(steps: &[Step]) -> Self {
        let mut bits: HashMap<&str, u64> = HashMap::new();
        let mut accounts: HashMap<String, u64> = HashMap::new();
        for step in steps {
            let Ask::Reserve { charges, .. } = &step.ask else { continue };
            for charge in charges {
                let new = 1 << bits.len().min(63);
                let bit = bits.entry(&charge.account).or_insert(new);
                *accounts.entry(step.id.clone()).or_default() |= *bit;
            }
        }
        Self(accounts)
    }

    fn of(&self, id: &str) -> u64 {
        self.0.get(id).copied().unwrap_or(0)
    }

    /// The accounts of `next`, those of all `ids` that share one with them, and so on.
    fn reach<'a>(
        &self,
        mut next: impl Iterator<Item = &'a Step>,
        ids: impl Iterator<Item = &'a str> + Clone,
    ) -> u64 {
        let first = next.try_fold(0, |all, step| (step.ask != Ask::Read).then(|| all | self.of(&step.id)));
        let Some(mut reached) = first else { return u64::MAX };
        loop {
            let touching = ids.clone().map(|id| self.of(id)).filter(|accounts| accounts & reached != 0);
            let more = touching.fold(reached, |all, accounts| all | accounts);
            if more == reached {
                return reached;
            }
            reached = more;
        }
    }
}
