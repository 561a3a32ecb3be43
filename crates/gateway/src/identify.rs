//! The first stage: whose request is this, and which budgets does it meet.

use http::HeaderMap;
use quorate_policy::{BudgetMatch, MatchError};

use crate::{policy::ActivePolicy, refusal::Refusal};

/// Who pays.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) tenant: String,
    /// One account of each budget that applies; none: the request passes uncounted.
    pub(crate) matches: Vec<BudgetMatch>,
}

/// Applies the policy to the headers of a request. A header that is no UTF-8 counts as missing.
pub(crate) fn identify(active: &ActivePolicy, headers: &HeaderMap, model: &str) -> Result<Identity, Refusal> {
    let header = |name: &str| {
        let value = headers.get(name)?;
        String::from_utf8(value.as_bytes().to_vec()).ok()
    };
    let tenant = active.policy.tenant_of(header).map_err(refused)?;
    let matches = active.policy.matching(&tenant, model, header).map_err(refused)?;
    Ok(Identity { tenant, matches })
}

fn refused(error: MatchError) -> Refusal {
    match error {
        MatchError::NoTenant { .. } => Refusal::NoTenant(error.to_string()),
        MatchError::BadTenant { .. } | MatchError::SubjectTooLong { .. } => {
            Refusal::WrongSubject(error.to_string())
        }
    }
}
