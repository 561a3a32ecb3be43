//! What an answer calls a reservation, so that any process can settle it later: its id, whose it is, which accounts its
//! lines are of, and what is held of each. Opaque to everybody else.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use quorate_ledger::{Amount, CHARGES_MAX, ReservationId};
use ring::digest::{SHA256, digest};

/// The entry of a descriptor that asks for a reservation, or names one.
pub(super) const ENTRY: &str = "quorate_reservation";
/// Its value where one is asked for.
pub(super) const HOLD: &str = "hold";
/// The header of the request that goes on, and the key in the answer's dynamic metadata.
pub(super) const HEADER: &str = "x-quorate-reservation";

/// The first byte: of one that is in the cluster, and of one that a gateway holds from its leases.
const RESERVED: u8 = 2;
const LEASED: u8 = 3;
/// Of a line: its mark and its amount.
const LINE_BYTES: usize = 8 + 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    pub id: ReservationId,
    pub tenant: String,
    /// In the order of its charges.
    pub lines: Vec<HeldLine>,
    /// Slices of the gateway that made it hold it, until it is handed over to the cluster.
    pub leased: bool,
}

/// One charge of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldLine {
    /// See [`mark`].
    pub mark: u64,
    /// What is charged where nobody says what was used.
    pub held: Amount,
}

/// Tells one account of a reservation from another, also where clients choose their subjects: the beginning of a SHA-256.
pub(super) fn mark(budget: &str, subject: &str) -> u64 {
    // No text has this byte.
    let account = [budget.as_bytes(), &[0xff], subject.as_bytes()].concat();
    let hash = digest(&SHA256, &account);
    hash.as_ref().iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
}

impl Reservation {
    pub(super) fn encode(&self) -> String {
        let mut bytes = vec![if self.leased { LEASED } else { RESERVED }];
        bytes.extend(self.id.to_bytes());
        bytes.push(u8::try_from(self.lines.len()).unwrap_or(u8::MAX));
        for line in &self.lines {
            bytes.extend(line.mark.to_be_bytes());
            bytes.extend(line.held.micros().to_be_bytes());
        }
        bytes.extend(self.tenant.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None`: not one of ours.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(16)?;
        let (count, rest) = rest.split_first()?;
        let (lines, tenant) = rest.split_at_checked(usize::from(*count) * LINE_BYTES)?;
        let leased = match *version {
            RESERVED => false,
            LEASED => true,
            _ => return None,
        };
        if usize::from(*count) > CHARGES_MAX || *count == 0 {
            return None;
        }
        Some(Self {
            id: ReservationId::from_bytes(id)?,
            tenant: String::from_utf8(tenant.to_vec()).ok()?,
            lines: lines.chunks_exact(LINE_BYTES).map(HeldLine::decode).collect::<Option<_>>()?,
            leased,
        })
    }
}

impl HeldLine {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (mark, held) = bytes.split_at_checked(8)?;
        let held = u64::from_be_bytes(held.try_into().ok()?);
        Some(Self { mark: u64::from_be_bytes(mark.try_into().ok()?), held: Amount::from_micros(held).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_and_back() {
        let id = ReservationId::from_u128(uuid::Uuid::now_v7().as_u128()).unwrap();
        let line =
            |subject, units| HeldLine { mark: mark("a", subject), held: Amount::from_units(units).unwrap() };
        let lines = vec![line("x", 1), line("y", 2)];
        assert_ne!(lines[0].mark, lines[1].mark);
        assert_ne!(mark("a", "bc"), mark("ab", "c"));
        for leased in [false, true] {
            let one = Reservation { id, tenant: "acme, söhne".to_owned(), lines: lines.clone(), leased };
            let text = one.encode();
            assert!(http::HeaderValue::from_str(&text).is_ok());
            assert_eq!(Reservation::decode(&text), Some(one));
            for end in 0..50 {
                assert_eq!(Reservation::decode(&text[..end]), None, "{end}");
            }
        }
        assert_eq!(Reservation::decode(HOLD), None);
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in ".{0,64}") {
            let _ = Reservation::decode(&text);
        }
    }
}
