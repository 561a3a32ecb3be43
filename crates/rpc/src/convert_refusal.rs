//! Refusals on the wire and in the ledger's words: a gateway acts on what they are about, not on their text.

use quorate_ledger::Refusal;

use crate::budget as wire;
use crate::convert::{ConvertError, id};

/// What the text of [`Refusal::Invalid`] begins with.
const INVALID: &str = "invalid operation: ";

impl From<Refusal> for wire::Refused {
    fn from(refusal: Refusal) -> Self {
        use wire::RefusalReason as Reason;
        let mut refused = Self { message: refusal.to_string(), ..Self::default() };
        let (reason, about) = match refusal {
            Refusal::Invalid(_) | Refusal::Told(_) => (Reason::Invalid, None),
            Refusal::IdReused { id } => (Reason::IdReused, Some(id)),
            Refusal::StaleId { id, age_ms } => {
                refused.number = age_ms;
                (Reason::StaleId, Some(id))
            }
            Refusal::FutureId { id, ahead_ms } => {
                refused.number = ahead_ms;
                (Reason::FutureId, Some(id))
            }
            Refusal::UnknownReservation { id } => (Reason::UnknownReservation, Some(id)),
            Refusal::AlreadyResolved { id, how } => {
                refused.how = how;
                (Reason::AlreadyResolved, Some(id))
            }
            Refusal::UnknownBudget { tenant, budget } => {
                (refused.tenant, refused.budget) = (tenant, budget);
                (Reason::UnknownBudget, None)
            }
            Refusal::TooManyAccounts { tenant, budget, max } => {
                (refused.tenant, refused.budget, refused.number) = (tenant, budget, max);
                (Reason::TooManyAccounts, None)
            }
            Refusal::VersionConflict { .. } => (Reason::VersionConflict, None),
            Refusal::UnknownKey { .. } => (Reason::UnknownKey, None),
            Refusal::WrongPart { .. } => (Reason::WrongPart, None),
        };
        refused.reason = reason.into();
        refused.id = about.map(|id| id.to_bytes().to_vec().into()).unwrap_or_default();
        refused
    }
}

impl TryFrom<wire::Refused> for Refusal {
    type Error = ConvertError;

    /// Reasons that no operation of the budget service has, and those of a later version, come as their text.
    fn try_from(refused: wire::Refused) -> Result<Self, ConvertError> {
        use wire::RefusalReason as Reason;
        let reason = refused.reason();
        let wire::Refused { message, id: about, tenant, budget, number, how, .. } = refused;
        let id = || id("refused.id", &about);
        Ok(match reason {
            Reason::Invalid => match message.strip_prefix(INVALID) {
                Some(problem) => Self::Invalid(problem.to_owned()),
                None => Self::Told(message),
            },
            Reason::IdReused => Self::IdReused { id: id()? },
            Reason::StaleId => Self::StaleId { id: id()?, age_ms: number },
            Reason::FutureId => Self::FutureId { id: id()?, ahead_ms: number },
            Reason::UnknownReservation => Self::UnknownReservation { id: id()? },
            Reason::AlreadyResolved => Self::AlreadyResolved { id: id()?, how },
            Reason::UnknownBudget => Self::UnknownBudget { tenant, budget },
            Reason::TooManyAccounts => Self::TooManyAccounts { tenant, budget, max: number },
            Reason::Unspecified
            | Reason::NotDue
            | Reason::VersionConflict
            | Reason::UnknownKey
            | Reason::WrongPart => Self::Told(message),
        })
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::{Outcome, ReservationId};

    use crate::convert::{outcome, result};

    use super::*;

    #[test]
    fn a_refusal_comes_back_as_itself() {
        let id = ReservationId::from_u128((7 << 76) | (0b10 << 62) | 5).unwrap();
        let (tenant, budget) = ("acme".to_owned(), "per-user".to_owned());
        for refusal in [
            Refusal::Invalid("charges[0]: subject has at most 512 bytes, not 600".to_owned()),
            Refusal::IdReused { id },
            Refusal::StaleId { id, age_ms: 60_001 },
            Refusal::FutureId { id, ahead_ms: 10_001 },
            Refusal::UnknownReservation { id },
            Refusal::AlreadyResolved { id, how: "settled".to_owned() },
            Refusal::UnknownBudget { tenant: tenant.clone(), budget: budget.clone() },
            Refusal::TooManyAccounts { tenant, budget, max: 10_000 },
            Refusal::Told("what an admin call was told".to_owned()),
        ] {
            let kind = result(Outcome::Refused(refusal.clone()), 1, 2).kind.unwrap();
            assert_eq!(outcome(kind).unwrap(), Outcome::Refused(refusal));
        }
    }

    #[test]
    fn a_reason_without_what_it_is_about_is_no_refusal() {
        let reason = wire::RefusalReason::StaleId.into();
        let error = Refusal::try_from(wire::Refused { reason, ..Default::default() }).unwrap_err();
        assert_eq!(error.field, "refused.id");
    }
}
