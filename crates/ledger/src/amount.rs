//! Fixed-point amounts: millionths of a token, of a cost unit or of a dollar.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An amount in millionths of a unit. `Amount::MAX` is 10^18 millionths, a million million units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Amount(u64);

/// An amount outside 0 ..= [`Amount::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("amount is above 10^18 millionths (a million million units)")]
pub struct AmountError;

impl Amount {
    pub const ZERO: Self = Self(0);
    pub const MAX: Self = Self(1_000_000_000_000_000_000);
    const MICROS_PER_UNIT: u64 = 1_000_000;

    /// Millionths of a unit.
    pub const fn from_micros(micros: u64) -> Result<Self, AmountError> {
        if micros > Self::MAX.0 { Err(AmountError) } else { Ok(Self(micros)) }
    }

    /// Whole units, for example tokens.
    pub const fn from_units(units: u64) -> Result<Self, AmountError> {
        match units.checked_mul(Self::MICROS_PER_UNIT) {
            Some(micros) => Self::from_micros(micros),
            None => Err(AmountError),
        }
    }

    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Whole units, rounded down.
    pub const fn units_floor(self) -> u64 {
        self.0 / Self::MICROS_PER_UNIT
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` above [`Amount::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|micros| Self::from_micros(micros).ok())
    }

    /// `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Zero if `other` is larger.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl TryFrom<u64> for Amount {
    type Error = AmountError;

    fn try_from(micros: u64) -> Result<Self, AmountError> {
        Self::from_micros(micros)
    }
}

impl From<Amount> for u64 {
    fn from(amount: Amount) -> Self {
        amount.micros()
    }
}

/// `1.5`, `100`: units, without trailing zeros.
impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, fraction) = (self.0 / Self::MICROS_PER_UNIT, self.0 % Self::MICROS_PER_UNIT);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}
