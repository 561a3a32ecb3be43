//! Time and reservation ids. Both come from outside: the ledger makes neither.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Unix time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    pub fn saturating_add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`, 0 if it is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A UUIDv7: 48 bits of Unix milliseconds, then version, variant and random bits (RFC 9562, section 5.7).
/// Ids order by the time in them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u128", into = "u128")]
pub struct ReservationId(u128);

/// Version or variant are not those of a UUIDv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a UUIDv7")]
pub struct NotAnId;

impl ReservationId {
    /// `None` if version or variant are not those of a UUIDv7.
    pub fn from_u128(value: u128) -> Option<Self> {
        let version = (value >> 76) & 0xf;
        let variant = (value >> 62) & 0b11;
        (version == 7 && variant == 0b10).then_some(Self(value))
    }

    /// `None` unless these are the 16 bytes of a UUIDv7, big-endian.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_u128(u128::from_be_bytes(bytes.try_into().ok()?))
    }

    pub fn as_u128(self) -> u128 {
        self.0
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The time inside the id.
    pub fn timestamp(self) -> TimestampMs {
        TimestampMs(u64::try_from(self.0 >> 80).unwrap_or(u64::MAX))
    }
}

impl TryFrom<u128> for ReservationId {
    type Error = NotAnId;

    fn try_from(value: u128) -> Result<Self, NotAnId> {
        Self::from_u128(value).ok_or(NotAnId)
    }
}

impl From<ReservationId> for u128 {
    fn from(id: ReservationId) -> Self {
        id.as_u128()
    }
}

/// The hyphenated text form of a UUID.
impl std::fmt::Display for ReservationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl std::fmt::Debug for ReservationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
