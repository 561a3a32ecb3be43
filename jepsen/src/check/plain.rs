//! Where an answer and the state part, in as many words as fit on a terminal. All the rest stands in the history, at the
//! event that is named.

use quorate_ledger::Amount;

use super::search::{Step, Told};
use super::tenant::{Ask, Tenant};
use super::words::{Decision, Denied, Reason};

const CHARS_MAX: usize = 300;

/// Of the answer of `step`, which does not fit `state`: what was told, and what would have been expected.
pub fn parted(step: &Step, state: &Tenant) -> String {
    let differ: Vec<String> = step
        .shown()
        .into_iter()
        .filter(|(account, shown)| state.sums(account) != *shown)
        .map(|(account, shown)| format!("{account} {}, told {}", sums(state.sums(account)), sums(shown)))
        .collect();
    let at = step.index.map_or_else(String::new, |index| format!(" at {index}"));
    let status = match step.ask {
        Ask::Read => String::new(),
        _ => format!(" (reservation: {})", state.status(&step.id)),
    };
    let but = if differ.is_empty() { String::new() } else { format!(": {}", differ.join("; ")) };
    cut(format!("event {}: {} was {}{at}{status}{but}", step.event, asked(&step.ask), answered(&step.told)))
}

fn asked(ask: &Ask) -> String {
    match ask {
        Ask::Reserve { charges, .. } => {
            let most = charges.iter().map(|charge| charge.amount);
            format!("reserve {}", amounts(most))
        }
        Ask::Extend { ttl_ms } => format!("extend by {ttl_ms} ms"),
        Ask::Settle { actual } => format!("settle {}", amounts(actual.iter().copied())),
        Ask::Release => "release".to_owned(),
        Ask::Read => "read".to_owned(),
    }
}

fn answered(told: &Told) -> String {
    let decision = match told {
        Told::Answer(answer) => &answer.decision,
        Told::Seen(seen) => return format!("answered for ledger time {}", seen.time_ms),
        Told::Nothing => return "not answered".to_owned(),
    };
    match decision {
        Decision::Granted { deadline_ms, balances } => {
            let held = balances.iter().map(|line| line.amount);
            format!("granted {} until {deadline_ms}", amounts(held))
        }
        Decision::Denied(Denied { asked, available, .. }) => {
            format!("denied {} of {}", unit(*asked), unit(*available))
        }
        Decision::Settled { .. } => "settled".to_owned(),
        Decision::Released => "released".to_owned(),
        Decision::Extended { deadline_ms } => format!("extended until {deadline_ms}"),
        Decision::Refused { reason, how, number } => match reason {
            Reason::StaleId | Reason::FutureId => format!("refused ({reason:?}, by {number} ms)"),
            _ => format!("refused ({reason:?} {how})"),
        },
    }
}

fn sums((spent, reserved): (u64, u64)) -> String {
    format!("{} spent + {} reserved", unit(spent), unit(reserved))
}

fn amounts(micros: impl Iterator<Item = u64>) -> String {
    micros.map(unit).collect::<Vec<_>>().join(" ")
}

fn unit(micros: u64) -> String {
    Amount::from_micros(micros).map_or_else(|_| format!("{micros} micros"), |amount| amount.to_string())
}

fn cut(text: String) -> String {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::{Answer, Limit, Line};
    use super::*;

    fn settled(accounts: usize) -> (Step, Tenant) {
        let name = |number| format!("user/{number}");
        let line =
            |number| Line { account: name(number), limit: 9, spent: 1_500_000, reserved: 0, amount: 1 };
        let limits: Vec<Limit> =
            (0..accounts).map(|number| Limit { account: name(number), limit: 9 }).collect();
        let balances = (0..accounts).map(line).collect();
        let decision = Decision::Settled { balances, overdraft: Vec::new() };
        let step = Step {
            event: 7,
            id: "i".to_owned(),
            ask: Ask::Settle { actual: vec![1_500_000, 4_000_000] },
            told: Told::Answer(Answer { decision, term: 1, index: 8_460 }),
            invoked_us: 0,
            completed_us: 1,
            index: Some(8_460),
            since_ms: 0,
        };
        (step, Tenant::new(&limits))
    }

    #[test]
    fn it_says_in_units_what_was_told_and_what_was_expected() {
        let (step, state) = settled(1);
        assert_eq!(
            parted(&step, &state),
            "event 7: settle 1.5 4 was settled at 8460 (reservation: unknown): \
             user/0 0 spent + 0 reserved, told 1.5 spent + 0 reserved"
        );
    }

    #[test]
    fn it_fits_on_a_terminal_whatever_was_answered() {
        let (step, state) = settled(64);
        let text = parted(&step, &state);
        assert_eq!(text.chars().count(), CHARS_MAX + 1);
        assert!(text.ends_with('…') && text.starts_with("event 7: "));
    }
}
