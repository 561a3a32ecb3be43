//! Wire types into the ledger's words and back: bounds are checked here, once, at the edge.

use quorate_ledger::{
    Amount, Balance, Charge, Command, Denial, Grant, Outcome, Refusal, ReservationId, Settlement,
    TimestampMs, Unit,
};
use thiserror::Error;

use crate::budget as wire;
use crate::convert_provider;

/// A message that no ledger would understand. Names the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct ConvertError {
    pub field: String,
    pub problem: String,
}

impl ConvertError {
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// # Errors
/// Above 10^18.
pub fn amount(field: &str, micros: u64) -> Result<Amount, ConvertError> {
    Amount::from_micros(micros).map_err(|error| ConvertError::new(field, error.to_string()))
}

/// The same in a list: its place is only spelled out if it is wrong.
fn amount_at(field: impl FnOnce() -> String, micros: u64) -> Result<Amount, ConvertError> {
    Amount::from_micros(micros).map_err(|error| ConvertError::new(field(), error.to_string()))
}

/// # Errors
/// Not the 16 bytes of a UUIDv7.
pub fn id(field: &str, bytes: &[u8]) -> Result<ReservationId, ConvertError> {
    ReservationId::from_bytes(bytes)
        .ok_or_else(|| ConvertError::new(field, "wanted the 16 bytes of a UUIDv7"))
}

impl TryFrom<wire::Operation> for Command {
    type Error = ConvertError;

    fn try_from(operation: wire::Operation) -> Result<Self, ConvertError> {
        use wire::operation::Kind;
        let tenant = operation.tenant;
        let wait = operation.wait_ms > 0;
        match operation
            .kind
            .ok_or_else(|| ConvertError::new("kind", "is missing: reserve, settle, release, …"))?
        {
            Kind::Reserve(reserve) => Ok(Self::Reserve {
                tenant,
                id: id("reserve.id", &reserve.id)?,
                charges: reserve
                    .charges
                    .into_iter()
                    .enumerate()
                    .map(|(index, c)| charge(index, c))
                    .collect::<Result<_, _>>()?,
                ttl_ms: reserve.ttl_ms,
                wait,
            }),
            Kind::Extend(extend) => {
                Ok(Self::Extend { tenant, id: id("extend.id", &extend.id)?, ttl_ms: extend.ttl_ms })
            }
            Kind::Settle(settle) => {
                let amounts = settle.actual_micros.into_iter().enumerate();
                let actual = amounts
                    .map(|(index, micros)| amount_at(|| format!("settle.actual_micros[{index}]"), micros));
                Ok(Self::Settle {
                    tenant,
                    id: id("settle.id", &settle.id)?,
                    actual: actual.collect::<Result<_, _>>()?,
                    estimated: settle.estimated,
                })
            }
            Kind::Release(release) => Ok(Self::Release { tenant, id: id("release.id", &release.id)? }),
            Kind::ReportProvider(report) => Ok(Self::ReportProvider(report.try_into()?)),
            Kind::ClaimProbe(wire::ClaimProbe { backend, model, holder, probe, lease_ms }) => {
                Ok(Self::ClaimProbe { backend, model, holder, probe, lease_ms })
            }
        }
    }
}

fn charge(index: usize, charge: wire::Charge) -> Result<Charge, ConvertError> {
    let asked = amount_at(|| format!("reserve.charges[{index}].amount_micros"), charge.amount_micros)?;
    let at_least = match charge.at_least_micros {
        0 if charge.at_least_nothing => Amount::ZERO,
        0 => asked,
        micros => amount_at(|| format!("reserve.charges[{index}].at_least_micros"), micros)?,
    };
    Ok(Charge { budget: charge.budget, subject: charge.subject, amount: asked, at_least })
}

/// The wire form of a command that gateways send, without a wait. `None` for those that only nodes and the admin service
/// make.
pub fn operation(command: &Command, timeout_ms: u32) -> Option<wire::Operation> {
    use wire::operation::Kind;
    let (tenant, kind) = match command {
        Command::Reserve { tenant, id, charges, ttl_ms, wait: _ } => (
            tenant.clone(),
            Kind::Reserve(wire::Reserve {
                id: id.to_bytes().to_vec().into(),
                charges: charges.iter().map(wire::Charge::from).collect(),
                ttl_ms: *ttl_ms,
            }),
        ),
        Command::Extend { tenant, id, ttl_ms } => (
            tenant.clone(),
            Kind::Extend(wire::Extend { id: id.to_bytes().to_vec().into(), ttl_ms: *ttl_ms }),
        ),
        Command::Settle { tenant, id, actual, estimated } => {
            let actual_micros = actual.iter().map(|amount| amount.micros()).collect();
            let (id, estimated) = (id.to_bytes().to_vec().into(), *estimated);
            (tenant.clone(), Kind::Settle(wire::Settle { id, actual_micros, estimated }))
        }
        Command::Release { tenant, id } => {
            (tenant.clone(), Kind::Release(wire::Release { id: id.to_bytes().to_vec().into() }))
        }
        Command::ReportProvider(report) => (String::new(), Kind::ReportProvider(report.into())),
        Command::ClaimProbe { backend, model, holder, probe, lease_ms } => (
            String::new(),
            Kind::ClaimProbe(wire::ClaimProbe {
                backend: backend.clone(),
                model: model.clone(),
                holder: holder.clone(),
                probe: *probe,
                lease_ms: *lease_ms,
            }),
        ),
        Command::PutPolicy { .. }
        | Command::StagePolicy { .. }
        | Command::Expire { .. }
        | Command::AdjustAccount { .. }
        | Command::PutKey { .. }
        | Command::RevokeKey { .. }
        | Command::AckAlerts { .. }
        | Command::DrainProvider { .. }
        | Command::RecordChange { .. } => return None,
    };
    Some(wire::Operation { tenant, kind: Some(kind), timeout_ms, wait_ms: 0 })
}

impl From<&Charge> for wire::Charge {
    fn from(charge: &Charge) -> Self {
        Self {
            budget: charge.budget.clone(),
            subject: charge.subject.clone(),
            amount_micros: charge.amount.micros(),
            at_least_micros: if charge.at_least == charge.amount { 0 } else { charge.at_least.micros() },
            at_least_nothing: charge.at_least.is_zero() && !charge.amount.is_zero(),
        }
    }
}

impl From<Unit> for wire::Unit {
    fn from(unit: Unit) -> Self {
        match unit {
            Unit::Tokens => Self::Tokens,
            Unit::Cost => Self::Cost,
            Unit::Dollars => Self::Dollars,
        }
    }
}

fn unit(field: &str, unit: wire::Unit) -> Result<Unit, ConvertError> {
    match unit {
        wire::Unit::Tokens => Ok(Unit::Tokens),
        wire::Unit::Cost => Ok(Unit::Cost),
        wire::Unit::Dollars => Ok(Unit::Dollars),
        wire::Unit::Unspecified => Err(ConvertError::new(field, "is missing")),
    }
}

/// The answer to one operation. Outcomes that only the admin service sees become a refusal that says so.
pub fn result(outcome: Outcome, log_term: u64, log_index: u64) -> wire::Result {
    use wire::result::Kind;
    if let Some(kind) = convert_provider::result_kind(&outcome) {
        return wire::Result { kind: Some(kind), log_index, log_term };
    }
    let kind = match outcome {
        Outcome::Granted(grant) => Kind::Granted(wire::Granted {
            deadline_ms: grant.deadline.0,
            balances: grant.balances.into_iter().map(wire::Balance::from).collect(),
        }),
        Outcome::Denied(denial) => Kind::Denied(denial.into()),
        Outcome::Settled(settlement) => Kind::Settled(wire::Settled {
            balances: settlement.balances.into_iter().map(wire::Balance::from).collect(),
            overdraft_micros: settlement.overdraft.into_iter().map(Amount::micros).collect(),
        }),
        Outcome::Released => Kind::Released(wire::Released {}),
        Outcome::Extended { deadline } => Kind::Extended(wire::Extended { deadline_ms: deadline.0 }),
        Outcome::Refused(refusal) => Kind::Refused(refusal.into()),
        Outcome::PolicyPut { .. }
        | Outcome::PolicyStaged
        | Outcome::Expired { .. }
        | Outcome::Adjusted(_)
        | Outcome::KeyPut { .. }
        | Outcome::KeyRevoked { .. }
        | Outcome::AlertsAcked
        | Outcome::ProviderReported { .. }
        | Outcome::ProbeGranted { .. }
        | Outcome::ProbeRefused(_)
        | Outcome::ProviderDrained { .. }
        | Outcome::ChangeRecorded => {
            Kind::Refused(Refusal::Invalid("not an operation of the budget service".to_owned()).into())
        }
    };
    wire::Result { kind: Some(kind), log_index, log_term }
}

impl From<Balance> for wire::Balance {
    fn from(balance: Balance) -> Self {
        Self {
            budget: balance.budget,
            subject: balance.subject,
            limit_micros: balance.limit.micros(),
            spent_micros: balance.spent.micros(),
            reserved_micros: balance.reserved.micros(),
            resets_at_ms: balance.resets_at.map_or(0, |at| at.0),
            amount_micros: balance.amount.micros(),
            unit: wire::Unit::from(balance.unit).into(),
        }
    }
}

impl TryFrom<wire::Balance> for Balance {
    type Error = ConvertError;

    fn try_from(balance: wire::Balance) -> Result<Self, ConvertError> {
        Ok(Self {
            unit: unit("balance.unit", balance.unit())?,
            budget: balance.budget,
            subject: balance.subject,
            limit: amount("balance.limit_micros", balance.limit_micros)?,
            spent: amount("balance.spent_micros", balance.spent_micros)?,
            reserved: amount("balance.reserved_micros", balance.reserved_micros)?,
            resets_at: (balance.resets_at_ms > 0).then_some(TimestampMs(balance.resets_at_ms)),
            amount: amount("balance.amount_micros", balance.amount_micros)?,
        })
    }
}

impl From<Denial> for wire::Denied {
    fn from(denial: Denial) -> Self {
        Self {
            account: Some(denial.account.into()),
            asked_micros: denial.asked.micros(),
            available_micros: denial.available.micros(),
            // 0 on the wire says "never"; a wait of less than a millisecond is one.
            retry_after_ms: denial.retry_after_ms.map_or(0, |ms| ms.max(1)),
            held_by_reservations: denial.held_by_reservations,
        }
    }
}

impl TryFrom<wire::Denied> for Denial {
    type Error = ConvertError;

    fn try_from(denied: wire::Denied) -> Result<Self, ConvertError> {
        let account = denied.account.ok_or_else(|| ConvertError::new("denied.account", "is missing"))?;
        Ok(Self {
            account: account.try_into()?,
            asked: amount("denied.asked_micros", denied.asked_micros)?,
            available: amount("denied.available_micros", denied.available_micros)?,
            retry_after_ms: (denied.retry_after_ms > 0).then_some(denied.retry_after_ms),
            held_by_reservations: denied.held_by_reservations,
        })
    }
}

/// What a node answered.
///
/// # Errors
/// A result that is none: no decision, or amounts out of bounds.
pub fn outcome(kind: wire::result::Kind) -> Result<Outcome, ConvertError> {
    use wire::result::Kind;
    let balances = |balances: Vec<wire::Balance>| {
        balances.into_iter().map(Balance::try_from).collect::<Result<Vec<_>, _>>()
    };
    Ok(match kind {
        Kind::Granted(granted) => Outcome::Granted(Grant {
            deadline: TimestampMs(granted.deadline_ms),
            balances: balances(granted.balances)?,
        }),
        Kind::Denied(denied) => Outcome::Denied(denied.try_into()?),
        Kind::Settled(settled) => {
            let overdraft =
                settled.overdraft_micros.into_iter().map(|micros| amount("settled.overdraft_micros", micros));
            Outcome::Settled(Settlement {
                balances: balances(settled.balances)?,
                overdraft: overdraft.collect::<Result<_, _>>()?,
            })
        }
        Kind::Released(_) => Outcome::Released,
        Kind::Extended(extended) => Outcome::Extended { deadline: TimestampMs(extended.deadline_ms) },
        Kind::ProviderReported(reported) => Outcome::ProviderReported { revision: reported.revision },
        Kind::ProbeGranted(granted) => {
            Outcome::ProbeGranted { until: TimestampMs(granted.until_ms), revision: granted.revision }
        }
        Kind::ProbeRefused(refused) => Outcome::ProbeRefused(refused.try_into()?),
        Kind::Refused(refused) => Outcome::Refused(refused.try_into()?),
        Kind::Unavailable(unavailable) => return Err(ConvertError::new("unavailable", unavailable.message)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_says_on_the_wire_how_little_it_takes() {
        let id = ReservationId::from_u128((7 << 76) | (0b10 << 62)).unwrap();
        let micros = |n| Amount::from_micros(n).unwrap();
        for (amount, at_least) in [(5, 5), (5, 1), (5, 0), (0, 0)] {
            let (amount, at_least) = (micros(amount), micros(at_least));
            let charge = Charge { budget: "b".into(), subject: String::new(), amount, at_least };
            let (tenant, charges) = ("acme".to_owned(), vec![charge]);
            let reserve = Command::Reserve { tenant, id, charges, ttl_ms: 1, wait: false };
            assert_eq!(Command::try_from(operation(&reserve, 1).unwrap()), Ok(reserve));
        }
    }

    #[test]
    fn a_settlement_says_on_the_wire_whether_it_is_an_estimate() {
        let id = ReservationId::from_u128((7 << 76) | (0b10 << 62)).unwrap();
        for estimated in [false, true] {
            let actual = vec![Amount::MAX, Amount::ZERO];
            let settle = Command::Settle { tenant: "acme".into(), id, actual, estimated };
            assert_eq!(Command::try_from(operation(&settle, 1).unwrap()), Ok(settle));
        }
    }
}
