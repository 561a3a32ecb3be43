//! After a long silence much may have happened that nobody was told: calls without an answer, expiries. Tried one by one
//! they are too many; the next answer's sums say which of them it was.

use std::collections::BTreeMap;

use super::{OutOfTries, Search};
use crate::check::fates::{Fate, combinations};
use crate::check::tenant::{Ask, Tenant};

/// What may happen to a reservation without being seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Unanswered(usize),
    Expiry,
}

/// Ends of one reservation, and sums that may be looked at for one comparison with a state.
const ENDS_MAX: usize = 12;
const NODES_A_TRY: u64 = 256;

impl Search<'_> {
    /// One of `wanted`, after whatever adds up to just what it shows.
    pub(super) fn place_guessed(
        &mut self,
        state: &Tenant,
        wanted: &[usize],
        left: usize,
    ) -> Result<bool, OutOfTries> {
        for wanted in wanted {
            let shown = self.steps[*wanted].told.sums();
            if shown.is_empty() {
                continue;
            }
            let sums = |state: &Tenant| -> Vec<i128> {
                let of = |(account, _): &(&str, (u64, u64))| state.sums(account);
                shown.iter().map(of).flat_map(|(spent, reserved)| [spent.into(), reserved.into()]).collect()
            };
            let less = |sums: Vec<i128>, by: &[i128]| -> Vec<i128> {
                sums.iter().zip(by).map(|(sum, by)| sum - by).collect()
            };
            let now = sums(state);
            let (ids, fates) = self.fates(state, *wanted, |after| less(sums(after), &now));
            let target =
                shown.iter().flat_map(|(_, (spent, reserved))| [(*spent).into(), (*reserved).into()]);
            let (found, looked_at) = combinations(&fates, &less(target.collect(), &now));
            self.tries = self.tries.checked_sub(looked_at / NODES_A_TRY).ok_or(OutOfTries)?;
            for combination in found {
                let chosen =
                    ids.iter().zip(fates.iter().zip(combination).map(|(fates, place)| &fates[place].moves));
                let moves: Vec<(&String, Move)> =
                    chosen.flat_map(|(id, moves)| moves.iter().map(move |one| (id, *one))).collect();
                let end =
                    moves.iter().try_fold(state.clone(), |state, (id, one)| self.moved(&state, id, *one));
                let Some(after) = end.map_or(Ok(None), |state| self.after(&state, *wanted))? else {
                    continue;
                };
                let unanswered = moves.iter().filter_map(|(_, one)| match one {
                    Move::Unanswered(step) => Some(*step),
                    Move::Expiry => None,
                });
                let steps: Vec<usize> = unanswered.chain([*wanted]).collect();
                if self.with(&steps, &after, left - 1)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Of each reservation that can have moved, what may have become of it by `wanted`, which is a part of it for its own;
    /// `delta`: what a state differs by from this one.
    fn fates(
        &self,
        state: &Tenant,
        wanted: usize,
        delta: impl Fn(&Tenant) -> Vec<i128>,
    ) -> (Vec<String>, Vec<Vec<Fate<Move>>>) {
        let horizon = self.horizon();
        let own = &self.steps[wanted];
        let due: Vec<(u64, String)> = self.due(state).map(|(id, from)| (from, id.to_owned())).collect();
        let mut moves: BTreeMap<(u64, &str), Vec<Move>> = BTreeMap::new();
        let deadline = |id: &str| due.iter().find(|(_, due)| due == id).map_or(u64::MAX, |(from, _)| *from);
        if own.ask != Ask::Read {
            moves.entry((deadline(&own.id), &own.id)).or_default();
        }
        for (from, id) in &due {
            moves.entry((*from, id)).or_default().push(Move::Expiry);
        }
        for (index, step) in self.steps.iter().enumerate() {
            if !step.is_required() && !self.placed[index] && step.invoked_us <= horizon {
                moves.entry((deadline(&step.id), &step.id)).or_default().push(Move::Unanswered(index));
            }
        }
        let fates = moves.into_iter().map(|((_, id), moves)| {
            let mut ends = vec![(Vec::new(), state.clone())];
            let mut at = 0;
            while let Some((taken, end)) = ends.get(at).cloned() {
                at += 1;
                for one in moves.iter().filter(|one| !taken.contains(*one)) {
                    let Some(after) = self.moved(&end, id, *one) else { continue };
                    if ends.len() < ENDS_MAX && ends.iter().all(|(_, known)| *known != after) {
                        ends.push((taken.iter().copied().chain([*one]).collect(), after));
                    }
                }
            }
            let fate = |(moves, end): (Vec<Move>, Tenant)| {
                let end = if id == own.id {
                    end.unanswered(id, &own.ask, own.since_ms).unwrap_or(end)
                } else {
                    end
                };
                Fate { moves, delta: delta(&end) }
            };
            (id.to_owned(), ends.into_iter().map(fate).collect::<Vec<_>>())
        });
        let matters = |(id, fates): &(String, Vec<Fate<Move>>)| {
            *id == own.id || fates.iter().any(|fate| fate.delta.iter().any(|by| *by != 0))
        };
        fates.filter(matters).unzip()
    }

    fn moved(&self, state: &Tenant, id: &str, one: Move) -> Option<Tenant> {
        match one {
            Move::Unanswered(step) => {
                let step = &self.steps[step];
                state.unanswered(id, &step.ask, step.since_ms)
            }
            Move::Expiry => state.expired(id),
        }
    }
}
