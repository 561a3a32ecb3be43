//! What an answer calls a reservation, so that any process can settle it later: its id, whose it is, and which budgets its
//! lines are of. Opaque to everybody else.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use quorate_ledger::{CHARGES_MAX, ReservationId};

/// The entry of a descriptor that asks for a reservation, or names one.
pub(super) const ENTRY: &str = "quorate_reservation";
/// Its value where one is asked for.
pub(super) const HOLD: &str = "hold";
/// The header of the request that goes on, and the key in the answer's dynamic metadata.
pub(super) const HEADER: &str = "x-quorate-reservation";

const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    pub id: ReservationId,
    pub tenant: String,
    /// One for each line, in their order: see [`mark`].
    pub marks: Vec<u32>,
}

/// Tells one budget of a reservation from another (Fowler, Noll, Vo).
pub(super) fn mark(budget: &str) -> u32 {
    budget.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Reservation {
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.id.to_bytes());
        bytes.push(u8::try_from(self.marks.len()).unwrap_or(u8::MAX));
        self.marks.iter().for_each(|mark| bytes.extend(mark.to_be_bytes()));
        bytes.extend(self.tenant.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None`: not one of ours.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (count, rest) = rest.split_first()?;
        let (marks, tenant) = rest.split_at_checked(usize::from(*count) * 4)?;
        if *version != VERSION || usize::from(*count) > CHARGES_MAX || *count == 0 {
            return None;
        }
        let marks = marks.chunks_exact(4).filter_map(|four| four.try_into().ok()).map(u32::from_be_bytes);
        Some(Self {
            id: ReservationId::from_bytes(id)?,
            tenant: String::from_utf8(tenant.to_vec()).ok()?,
            marks: marks.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_and_back() {
        let id = ReservationId::from_u128(uuid::Uuid::now_v7().as_u128()).unwrap();
        let one = Reservation { id, tenant: "acme, söhne".to_owned(), marks: vec![mark("a"), mark("b")] };
        let text = one.encode();
        assert!(http::HeaderValue::from_str(&text).is_ok());
        assert_eq!(Reservation::decode(&text), Some(one));
        assert_eq!(Reservation::decode(HOLD), None);
        for end in 0..24 {
            assert_eq!(Reservation::decode(&text[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in ".{0,64}") {
            let _ = Reservation::decode(&text);
        }
    }
}
