//! When which fault was there, by the nemesis's own record: `begin:NAME`, `inject:NAME` and `heal:NAME`.

use serde::Serialize;

use crate::history::{Event, History};

/// A fault, from the moment at which it began to be brought about until it was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spell {
    pub fault: String,
    /// What was done, and to whom.
    pub done: String,
    pub from_us: u64,
    /// `u64::MAX`: it was never healed.
    pub to_us: u64,
    /// Index of the event that healed it, or of the one with which it began.
    pub event: u64,
}

impl Spell {
    pub fn overlaps(&self, from_us: u64, to_us: u64) -> bool {
        self.from_us <= to_us && from_us <= self.to_us
    }
}

/// One that is brought about again before it is healed goes on.
pub fn spells(history: &History) -> Vec<Spell> {
    let mut spells: Vec<Spell> = Vec::new();
    let said = |event: &Event| event.value.as_str().map_or_else(|| event.value.to_string(), str::to_owned);
    for event in history.faults() {
        let Some((did, fault)) = event.f.split_once(':') else { continue };
        let open = spells.iter_mut().rev().find(|spell| spell.fault == fault && spell.to_us == u64::MAX);
        match (did, open) {
            ("begin" | "inject", None) => spells.push(Spell {
                fault: fault.to_owned(),
                done: said(event),
                from_us: event.time_us,
                to_us: u64::MAX,
                event: event.index,
            }),
            ("inject", Some(spell)) => spell.done = said(event),
            ("heal", Some(spell)) => (spell.to_us, spell.event) = (event.time_us, event.index),
            _ => {}
        }
    }
    spells
}
