//! When which fault was there, by the nemesis's own record: `inject:<name>` and `heal:<name>`.

use crate::history::History;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    pub fault: String,
    pub from_us: u64,
    /// `u64::MAX`: it was never healed.
    pub to_us: u64,
    /// Index of the event that healed it, or of the one that brought it about.
    pub event: u64,
}

impl Spell {
    pub fn overlaps(&self, from_us: u64, to_us: u64) -> bool {
        self.from_us <= to_us && from_us <= self.to_us
    }
}

/// Each fault from its injection to its healing. One that is injected again meanwhile goes on.
pub fn spells(history: &History) -> Vec<Spell> {
    let mut spells: Vec<Spell> = Vec::new();
    for event in history.faults() {
        let (did, fault) = event.f.split_once(':').unwrap_or((&event.f, ""));
        let open = spells.iter_mut().rev().find(|spell| spell.fault == fault && spell.to_us == u64::MAX);
        match (did, open) {
            ("inject", None) => spells.push(Spell {
                fault: fault.to_owned(),
                from_us: event.time_us,
                to_us: u64::MAX,
                event: event.index,
            }),
            ("heal", Some(spell)) => (spell.to_us, spell.event) = (event.time_us, event.index),
            _ => {}
        }
    }
    spells
}
