//! A policy as commands: one if it is small, else parts that each fit a log entry.

use quorate_ledger::{BudgetRule, Command, DOCUMENT_PART_MAX_BYTES};
use quorate_replica::{BATCH_MAX_BYTES, size_bound};

/// What is put, and the version that it follows.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub number: u128,
    pub expected_version: u64,
    pub rules: Vec<BudgetRule>,
    pub document: String,
    pub by: String,
    pub comment: String,
}

impl Upload {
    /// In the order in which they must be applied. The last one puts the policy in force.
    pub fn commands(self) -> Vec<Command> {
        let Self { number, expected_version, rules, document, by, comment } = self;
        let put = |staged, rules, document| Command::PutPolicy {
            expected_version: Some(expected_version),
            rules,
            document,
            staged,
            by: by.clone(),
            comment: comment.clone(),
        };
        let whole = put(None, rules.clone(), document.clone());
        if fits(&whole) {
            return vec![whole];
        }
        let mut commands = Vec::new();
        let mut stage = |rules, document| {
            let part = u32::try_from(commands.len()).unwrap_or(u32::MAX);
            commands.push(Command::StagePolicy { upload: number, part, rules, document });
        };
        let mut rest = rules.as_slice();
        while !rest.is_empty() {
            let count = rules_that_fit(rest, number);
            let (now, later) = rest.split_at(count);
            stage(now.to_vec(), String::new());
            rest = later;
        }
        let mut rest = document.as_str();
        while !rest.is_empty() {
            let (now, later) =
                rest.split_at(rest.floor_char_boundary(DOCUMENT_PART_MAX_BYTES.min(PART_BYTES)));
            stage(Vec::new(), now.to_owned());
            rest = later;
        }
        commands.push(put(Some(number), Vec::new(), String::new()));
        commands
    }
}

/// Leaves room for what stands beside it in a log entry.
const PART_BYTES: usize = 48 * 1024;

fn fits(command: &Command) -> bool {
    let document = match command {
        Command::PutPolicy { document, .. } | Command::StagePolicy { document, .. } => document.len(),
        _ => 0,
    };
    document <= DOCUMENT_PART_MAX_BYTES && size_bound(command) <= BATCH_MAX_BYTES
}

/// At least one: a single rule always fits.
fn rules_that_fit(rules: &[BudgetRule], number: u128) -> usize {
    let size = |rule: &BudgetRule| {
        size_bound(&Command::StagePolicy {
            upload: number,
            part: 0,
            rules: vec![rule.clone()],
            document: String::new(),
        })
    };
    let mut bytes = 0;
    let fitting = rules.iter().take_while(|rule| {
        bytes += size(rule);
        bytes <= PART_BYTES
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Amount, Unit, Window};

    use super::*;

    fn upload(rules: usize, document: &str) -> Upload {
        let rule = |number| BudgetRule::new(format!("{number}"), Unit::Tokens, Amount::ZERO, Window::Day);
        Upload {
            number: 7,
            expected_version: 3,
            rules: (0..rules).map(rule).collect(),
            document: document.to_owned(),
            by: String::new(),
            comment: String::new(),
        }
    }

    #[test]
    fn a_small_policy_is_one_command() {
        let commands = upload(3, "kind: Budget").commands();
        assert!(matches!(&commands[..], [Command::PutPolicy { staged: None, .. }]), "{commands:?}");
    }

    #[test]
    fn a_large_one_comes_in_parts_that_fit_and_make_the_whole() {
        let text = "ä".repeat(300_000);
        let commands = upload(20_000, &text).commands();
        let (mut rules, mut document) = (0, String::new());
        for (index, command) in commands.iter().enumerate() {
            assert!(size_bound(command) <= BATCH_MAX_BYTES);
            match command {
                Command::StagePolicy { upload: 7, part, rules: some, document: more } => {
                    assert_eq!(*part as usize, index);
                    rules += some.len();
                    document.push_str(more);
                }
                Command::PutPolicy { staged: Some(7), expected_version: Some(3), .. } => {
                    assert_eq!(index + 1, commands.len());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(rules == 20_000 && document == text);
    }
}
