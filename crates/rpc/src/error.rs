//! What can go wrong between a client and the cluster, and the one table of errors to gRPC status.

use std::error::Error as _;

use thiserror::Error;
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::tls;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The operation did not take effect.
    #[error("no budget node could take the call: {message}")]
    Unavailable { message: String, retry_after_ms: u64 },
    /// Queues are full. The operation did not take effect.
    #[error("budget cluster is overloaded; try again in {retry_after_ms} ms")]
    Overloaded { retry_after_ms: u64 },
    /// The effect is unknown: send the same operation, same id, again.
    #[error(
        "no answer from the budget cluster within {timeout_ms} ms ({last}); the effect is unknown, send the same operation again"
    )]
    TimedOut { timeout_ms: u64, last: String },
    /// The call was wrong, or the answer was.
    #[error("{message}")]
    Rejected { code: Code, message: String },
}

/// Any node may take the call instead of one that says this.
pub(crate) fn is_about_the_node(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}

/// What a status says, and where a connection failed over TLS, why and what to do.
pub fn explain(status: &Status) -> String {
    let Some(source) = status.source() else { return status.message().to_owned() };
    // No answer of a node: its connection ended with INADEQUATE_SECURITY.
    if status.code() == Code::PermissionDenied {
        return "the node speaks TLS; give --tls-ca, --tls-cert and --tls-key (in a gateway's config: cluster_tls)"
            .to_owned();
    }
    match tls::explain(source) {
        Some(why) => why,
        None => status.message().to_owned(),
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::ResourceExhausted => Self::Overloaded { retry_after_ms: 100 },
            code => Self::Rejected { code, message: explain(&status) },
        }
    }
}

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<ConvertError> for ClientError {
    fn from(error: ConvertError) -> Self {
        Self::Rejected { code: Code::Internal, message: format!("cannot read the answer: {error}") }
    }
}
