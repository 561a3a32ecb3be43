//! Is this node's clock off? Decided slowly: several rounds in a row, and a way back only well within the limit. No clock in
//! here.

use super::verdict::Verdict;

/// Rounds in a row that say the same.
const ROUNDS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Off { ahead_ms: i64 },
    RightAgain,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Guard {
    off: bool,
    rounds: u8,
}

impl Guard {
    pub fn is_off(self) -> bool {
        self.off
    }

    /// Takes up one round; `Some` if it changes the mind.
    pub fn hear(&mut self, verdict: &Verdict, offset_max_ms: i64) -> Option<Turn> {
        let deviation = verdict.deviation_ms;
        let other_mind = match self.off {
            false => deviation.is_some_and(|deviation| deviation.abs() > offset_max_ms),
            // A verdict that nobody can give is no acquittal: the node may only have been cut off.
            true => {
                verdict.is_confirmed()
                    && deviation.is_some_and(|deviation| deviation.abs() <= offset_max_ms / 2)
            }
        };
        self.rounds = if other_mind { self.rounds + 1 } else { 0 };
        if self.rounds < ROUNDS {
            return None;
        }
        *self = Self { off: !self.off, rounds: 0 };
        Some(match self.off {
            true => Turn::Off { ahead_ms: deviation.unwrap_or_default() },
            false => Turn::RightAgain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: i64 = 500;

    /// One round a character: `x` off, `h` hardly right, `r` right, `?` unknown, `2` two that differ; what is thought
    /// after each: `!` off, `.` not.
    fn rounds(text: &str) -> String {
        let mut guard = Guard::default();
        let round = |round| {
            let verdict = |agreeing, deviation_ms| Verdict { members: 3, known: 3, agreeing, deviation_ms };
            let verdict = match round {
                'x' => verdict(1, Some(-700)),
                'h' => verdict(3, Some(400)),
                'r' => verdict(3, Some(10)),
                '2' => verdict(1, Some(0)),
                _ => verdict(1, None),
            };
            guard.hear(&verdict, MAX);
            if guard.is_off() { '!' } else { '.' }
        };
        text.chars().map(round).collect()
    }

    #[test]
    fn the_mind_changes_after_three_rounds_in_a_row() {
        let table = [
            ("rrrr", "...."),
            ("xxrxx", "....."),
            ("xx?xx", "....."),
            ("xxxx", "..!!"),
            ("hhhh", "...."),
            ("2222", "...."),
            ("xxxrrr", "..!!!."),
            ("xxxrrxrrr", "..!!!!!!."),
            ("xxxhhhh", "..!!!!!"),
            ("xxx????", "..!!!!!"),
            ("xxx2222", "..!!!!!"),
            ("xxxrrrxxx", "..!!!...!"),
        ];
        for (text, minds) in table {
            assert_eq!(rounds(text), minds, "{text}");
        }
    }

    #[test]
    fn a_turn_is_told_once() {
        let mut guard = Guard::default();
        let off = Verdict { members: 3, known: 3, agreeing: 1, deviation_ms: Some(5_000) };
        let turns: Vec<_> = (0..6).filter_map(|_| guard.hear(&off, MAX)).collect();
        assert_eq!(turns, [Turn::Off { ahead_ms: 5_000 }]);
    }
}
