//! The share of what was asked that every charge of a reservation gets: exact, and one for all.

use std::cmp::Ordering;

use crate::{Amount, Charge};

/// The part of (amount - at_least) that is granted, as a fraction of 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    numerator: u64,
    denominator: u64,
}

impl Share {
    pub const WHOLE: Self = Self { numerator: 1, denominator: 1 };

    /// The largest share that `available`, which is at least `at_least`, has room for.
    pub fn of(charge: &Charge, available: Amount) -> Self {
        let denominator = charge.amount.saturating_sub(charge.at_least).micros();
        let numerator = available.saturating_sub(charge.at_least).micros();
        if numerator >= denominator { Self::WHOLE } else { Self { numerator, denominator } }
    }

    /// at_least + share × (amount - at_least), rounded down. Both factors are below 2^60.
    pub fn amount(self, charge: &Charge) -> Amount {
        let span = u128::from(charge.amount.saturating_sub(charge.at_least).micros());
        let part = span * u128::from(self.numerator) / u128::from(self.denominator);
        let part = u64::try_from(part).ok().and_then(|micros| Amount::from_micros(micros).ok());
        charge.at_least.checked_add(part.unwrap_or_default()).unwrap_or(charge.amount)
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = u128::from(self.numerator) * u128::from(other.denominator);
        left.cmp(&(u128::from(other.numerator) * u128::from(self.denominator)))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
