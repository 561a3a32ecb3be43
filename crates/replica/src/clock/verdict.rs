//! Whose clock is wrong? That of a node that is far from the median of those that are known, if a majority is. No clock in
//! here.
//!
//! With an even number of clocks any time between the two in the middle is a median: two nodes that differ cannot say which
//! of them is wrong, nor can two and two. If all jump together, nobody is wrong.

use super::sample::Estimate;

/// What one round of comparing says. All counts have this node among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub members: usize,
    /// Of so many members the clock is known.
    pub known: usize,
    /// So many clocks are within the limit of this node's.
    pub agreeing: usize,
    /// How far this node's clock is ahead of the median (negative: behind), at least; `None`: too few are known.
    pub deviation_ms: Option<i64>,
}

impl Verdict {
    pub fn majority(self) -> usize {
        self.members / 2 + 1
    }

    /// A majority of all members has the time that this node has.
    pub fn is_confirmed(self) -> bool {
        self.agreeing >= self.majority()
    }

    /// Clocks differ, and nobody can say whose is wrong.
    pub fn is_open(self, offset_max_ms: i64) -> bool {
        self.agreeing < self.known
            && !self.is_confirmed()
            && self.deviation_ms.is_none_or(|deviation| deviation.abs() <= offset_max_ms)
    }
}

/// `others`: one for each other member, `None` where its clock is not known.
pub(crate) fn judge(own_origin_ms: i64, others: &[Option<Estimate>], offset_max_ms: i64) -> Verdict {
    // How far this node is ahead of each clock, itself included; never more than is sure.
    let mut ahead: Vec<i64> = others.iter().flatten().map(|other| other.behind_ms(own_origin_ms)).collect();
    ahead.push(0);
    ahead.sort_unstable();
    let (members, known) = (others.len() + 1, ahead.len());
    let verdict = Verdict {
        members,
        known,
        agreeing: ahead.iter().filter(|ahead| ahead.abs() <= offset_max_ms).count(),
        deviation_ms: None,
    };
    let (lower, upper) = (ahead[(known - 1) / 2], ahead[known / 2]);
    // The median that is nearest.
    let deviation = 0_i64.clamp(lower, upper);
    Verdict { deviation_ms: (known >= verdict.majority()).then_some(deviation), ..verdict }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: i64 = 500;

    fn others(origins: &[Option<i64>]) -> Vec<Option<Estimate>> {
        let estimate = |origin_ms: i64| Estimate { origin_ms, error_ms: 10 };
        origins.iter().map(|origin| origin.map(estimate)).collect()
    }

    #[test]
    fn the_median_decides_if_a_majority_is_known() {
        type Row = (i64, &'static [Option<i64>], Option<i64>, bool, bool);
        let table: [Row; 17] = [
            // (own clock, the others', deviation, confirmed by a majority, open)
            (0, &[], Some(0), true, false),
            (9_000, &[], Some(0), true, false),
            (0, &[Some(0), Some(0)], Some(0), true, false),
            (5_000, &[Some(0), Some(0)], Some(4_990), false, false),
            (-5_000, &[Some(0), Some(0)], Some(-4_990), false, false),
            (0, &[Some(0), Some(5_000)], Some(0), true, false),
            (5_000, &[Some(5_000), Some(5_000)], Some(0), true, false),
            // Within the error it may be the same.
            (8, &[Some(0), Some(0)], Some(0), true, false),
            // Three different ones: the middle one is right, and has no majority.
            (0, &[Some(-5_000), Some(5_000)], Some(0), false, true),
            (5_000, &[Some(-5_000), Some(0)], Some(4_990), false, false),
            // Two of three: no verdict, but agreement counts.
            (5_000, &[Some(0), None], Some(0), false, true),
            (0, &[Some(0), None], Some(0), true, false),
            // Alone of three: nothing is known.
            (0, &[None, None], None, false, false),
            // Two against two.
            (0, &[Some(0), Some(5_000), Some(5_000)], Some(0), false, true),
            // Two of five known: too few.
            (5_000, &[Some(0), None, None, None], None, false, true),
            // Three of five: the two others agree.
            (5_000, &[Some(0), Some(0), None, None], Some(4_990), false, false),
            // Two nodes.
            (5_000, &[Some(0)], Some(0), false, true),
        ];
        for (own, origins, deviation, confirmed, open) in table {
            let verdict = judge(own, &others(origins), MAX);
            assert_eq!(verdict.deviation_ms, deviation, "{own} {origins:?}");
            assert_eq!(verdict.is_confirmed(), confirmed, "{own} {origins:?}");
            assert_eq!(verdict.is_open(MAX), open, "{own} {origins:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Nothing but the difference of clocks counts.
        #[test]
        fn if_all_jump_together_nothing_happens(
            own in -9_000..9_000_i64,
            origins in proptest::collection::vec(proptest::option::of(-9_000..9_000_i64), 0..6),
            jump in -1_000_000_000..1_000_000_000_i64,
        ) {
            let jumped: Vec<_> = origins.iter().map(|origin| origin.map(|origin| origin + jump)).collect();
            prop_assert_eq!(judge(own, &others(&origins), MAX), judge(own + jump, &others(&jumped), MAX));
        }

        /// A node in a majority that agrees is never told that it is off, whatever the minority's clocks are.
        #[test]
        fn a_minority_never_convicts_the_majority(
            right in proptest::collection::vec(-100..100_i64, 3),
            wrong in proptest::collection::vec(-1_000_000..1_000_000_i64, 0..=2),
        ) {
            let others: Vec<_> =
                right[1..].iter().chain(&wrong).map(|origin| Some(Estimate { origin_ms: *origin, error_ms: 5 })).collect();
            let verdict = judge(right[0], &others, MAX);
            prop_assert!(verdict.is_confirmed());
            prop_assert!(verdict.deviation_ms.unwrap().abs() <= 200);
        }

        /// There is always one that may lead.
        #[test]
        fn never_are_all_off(origins in proptest::collection::vec(-9_000..9_000_i64, 1..8)) {
            let off = (0..origins.len()).filter(|own| {
                let others: Vec<_> = (0..origins.len())
                    .filter(|other| other != own)
                    .map(|other| Some(Estimate { origin_ms: origins[other], error_ms: 0 }))
                    .collect();
                judge(origins[*own], &others, MAX).deviation_ms.unwrap().abs() > MAX
            });
            prop_assert!(off.count() < origins.len());
        }
    }
}
