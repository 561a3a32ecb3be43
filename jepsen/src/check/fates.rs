//! What may have become of reservations between two answers, when many calls had none: instead of trying one order after
//! the other, finds the combinations of ends whose sums are exactly what the next answer shows. A guess: whether it can
//! have been so is decided by who asked, on the state itself.

/// A guess has to be found among so many.
const NODES_MAX: u64 = 20_000;
/// Different combinations with the same sums.
const FOUND_MAX: usize = 32;

/// What may have become of one reservation: how much the sums move, one by one. The first is mostly "nothing".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate<M> {
    pub moves: Vec<M>,
    pub delta: Vec<i128>,
}

/// One fate for each, as places in its list, so that all deltas add up to `target`: those with few moves first. And how much
/// was looked at for it.
pub fn combinations<M>(all: &[Vec<Fate<M>>], target: &[i128]) -> (Vec<Vec<usize>>, u64) {
    // Those that differ little are decided first: an account with two reservations leaves less to try than one with twenty.
    let mut order: Vec<usize> = (0..all.len()).collect();
    let moved = |of: usize| -> Vec<usize> {
        let moves = |sum: &usize| all[of].iter().any(|fate| fate.delta.get(*sum).is_some_and(|by| *by != 0));
        (0..target.len()).filter(moves).collect()
    };
    let mut crowd = vec![0_usize; target.len()];
    for of in 0..all.len() {
        moved(of).into_iter().for_each(|sum| crowd[sum] += 1);
    }
    order.sort_by_key(|of| {
        let narrowest = moved(*of).into_iter().min_by_key(|sum| (crowd[*sum], *sum));
        (narrowest.map_or(0, |sum| crowd[sum]), narrowest, *of)
    });
    // What those from here on can move each sum by, at least and at most.
    let mut bounds = vec![vec![(0_i128, 0_i128); target.len()]; order.len() + 1];
    for at in (0..order.len()).rev() {
        let (here, later) = bounds.split_at_mut(at + 1);
        for (sum, (bound, (least, most))) in here[at].iter_mut().zip(&later[0]).enumerate() {
            let deltas = || all[order[at]].iter().map(|fate| fate.delta.get(sum).copied().unwrap_or(0));
            *bound = (least + deltas().min().unwrap_or(0), most + deltas().max().unwrap_or(0));
        }
    }
    let mut walk = Walk { all, order, bounds, nodes: 0, chosen: vec![0; all.len()], found: Vec::new() };
    walk.from(0, target.to_vec());
    let moves =
        |found: &Vec<usize>| -> usize { found.iter().zip(all).map(|(fate, of)| of[*fate].moves.len()).sum() };
    walk.found.sort_by_key(moves);
    (walk.found, walk.nodes)
}

struct Walk<'a, M> {
    all: &'a [Vec<Fate<M>>],
    order: Vec<usize>,
    bounds: Vec<Vec<(i128, i128)>>,
    nodes: u64,
    chosen: Vec<usize>,
    found: Vec<Vec<usize>>,
}

impl<M> Walk<'_, M> {
    fn from(&mut self, at: usize, missing: Vec<i128>) {
        self.nodes += 1;
        let reachable =
            missing.iter().zip(&self.bounds[at]).all(|(by, (least, most))| (least..=most).contains(&by));
        if !reachable || self.nodes > NODES_MAX || self.found.len() == FOUND_MAX {
            return;
        }
        let Some(of) = self.order.get(at).copied() else {
            self.found.push(self.chosen.clone());
            return;
        };
        for (place, fate) in self.all[of].iter().enumerate() {
            self.chosen[of] = place;
            let left = missing.iter().zip(&fate.delta).map(|(by, moved)| by - moved).collect();
            self.from(at + 1, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(deltas: &[&[i128]]) -> Vec<Fate<()>> {
        let fate = |(place, delta): (usize, &&[i128])| Fate { moves: vec![(); place], delta: delta.to_vec() };
        deltas.iter().enumerate().map(fate).collect()
    }

    #[test]
    fn what_adds_up_is_found_and_nothing_else() {
        let all = [one(&[&[0, 0], &[5, -5]]), one(&[&[0, 0], &[3, -3], &[0, -3]]), one(&[&[0, 0], &[8, -8]])];
        assert_eq!(combinations(&all, &[0, 0]).0, [[0, 0, 0]]);
        assert_eq!(combinations(&all, &[8, -8]).0, [[0, 0, 1], [1, 1, 0]]);
        assert_eq!(combinations(&all, &[13, -16]).0, [[1, 2, 1]]);
        assert!(combinations(&all, &[4, -4]).0.is_empty());
        assert_eq!(combinations::<()>(&[], &[0]).0, [[0; 0]]);
        assert!(combinations::<()>(&[], &[1]).0.is_empty());
    }

    /// Forty of them, each with an account of its own and one of all: 3^40 combinations, one that fits.
    #[test]
    fn many_are_decided_by_the_sums_of_few() {
        let all: Vec<Vec<Fate<()>>> = (0..40_usize)
            .map(|number| {
                let amount = 1 + number as i128;
                let delta = |spent: i128| {
                    let mut delta = vec![0; 11];
                    (delta[number / 4], delta[10]) = (spent, spent);
                    delta
                };
                vec![delta(0), delta(amount), delta(-amount)]
                    .into_iter()
                    .map(|delta| Fate { moves: Vec::new(), delta })
                    .collect()
            })
            .collect();
        let wanted: Vec<usize> = (0..40).map(|number| number % 3).collect();
        let mut target = vec![0; 11];
        for (of, fate) in all.iter().zip(&wanted) {
            target.iter_mut().zip(&of[*fate].delta).for_each(|(sum, by)| *sum += by);
        }
        assert!(!combinations(&all, &target).0.is_empty());
    }
}
