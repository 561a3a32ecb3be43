//! Tells a replay from another request under the same id.

use crate::{Adjustment, Amount, Charge};

/// 128 bits over the fields of a request: two different requests under one id share them by chance once in 2^64 ids or
/// rarer. Not a defence against an attacker: whoever may use the id could as well send the same fields.
#[derive(Debug)]
pub(crate) struct Fingerprint(u128);

/// An odd multiplier with well spread bits (that of PCG64).
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Fingerprint {
    pub fn of_reserve(charges: &[Charge], ttl_ms: u64) -> u128 {
        let mut print = Self::new(0);
        print.number(ttl_ms);
        for charge in charges {
            print.text(&charge.budget);
            print.text(&charge.subject);
            print.number(charge.amount.micros());
            print.number(charge.at_least.micros());
        }
        print.0
    }

    pub fn of_adjustment(budget: &str, subject: &str, adjustment: &Adjustment) -> u128 {
        let (kind, amount) = match adjustment {
            Adjustment::TopUp(amount) => (1, *amount),
            Adjustment::Reset => (2, Amount::ZERO),
            Adjustment::OverrideLimit(limit) => (3, *limit),
            Adjustment::ClearOverride => (4, Amount::ZERO),
        };
        let mut print = Self::new(kind);
        print.text(budget);
        print.text(subject);
        print.number(amount.micros());
        print.0
    }

    /// What spreads the back-off of circuits.
    pub fn of_opening(backend: &str, model: &str, openings: u32) -> u128 {
        let mut print = Self::new(5);
        print.text(backend);
        print.text(model);
        print.number(openings.into());
        print.0
    }

    fn new(kind: u64) -> Self {
        let mut print = Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        print.number(kind);
        print
    }

    /// Each step is a bijection of the state, so requests that differ in one word never collide.
    fn number(&mut self, number: u64) {
        let mixed = (self.0 ^ u128::from(number)).wrapping_mul(MULTIPLIER);
        self.0 = mixed ^ (mixed >> 64);
    }

    /// With its length, so that no two lists of texts run into each other.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        for word in text.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            self.number(u64::from_le_bytes(bytes));
        }
    }
}
