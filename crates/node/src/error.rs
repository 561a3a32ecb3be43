//! Why a node cannot start, and why an operation was not decided.

use quorate_replica::{BackupError, MembershipError, OpenError, Peer, ProposeError, ReplicaError};
use quorate_rpc::budget::{Result as WireResult, Unavailable, UnavailableReason, result::Kind};
use quorate_rpc::tls::TlsError;
use thiserror::Error;
use tonic::Status;

#[derive(Debug, Error)]
pub enum NodeError {
    #[error("cannot listen on {address} ({key}); is another process there?")]
    Bind { key: &'static str, address: String, source: std::io::Error },
    #[error(
        "{key}: {address} can be reached from other machines, and without TLS anybody there may read and do everything; \
         give a section `{section}` (`quorate certs init` makes the certificates), or listen on a loopback address such \
         as 127.0.0.1, or say `insecure: true` (--insecure, QUORATE_INSECURE=true) where the network itself is safe"
    )]
    Reach { key: &'static str, address: String, section: &'static str },
    #[error("config: {0}")]
    Config(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("--rebuild: {0}")]
    Rebuild(String),
    #[error("server: {0}")]
    Serve(String),
}

/// The cluster could not decide in time.
#[derive(Debug, Clone, Error)]
pub(crate) enum Undecided {
    /// Nothing happened.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    #[error("this node does not lead")]
    NotLeader(Option<Peer>),
    #[error("no decision within {0} ms; the effect is unknown")]
    TimedOut(u64),
    #[error("{0}")]
    Stopped(String),
}

impl Undecided {
    pub fn stopping() -> Self {
        Self::Stopped("this node is stopping".to_owned())
    }
}

/// How soon to ask again when a queue is full.
const OVERLOADED_RETRY_MS: u64 = 50;

impl From<ProposeError> for Undecided {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } | ProposeError::LostLeadership { leader } => {
                Self::NotLeader(leader)
            }
            other => Self::Stopped(other.to_string()),
        }
    }
}

/// The table to the wire of the budget service.
impl From<Undecided> for WireResult {
    fn from(undecided: Undecided) -> Self {
        let message = undecided.to_string();
        let (reason, retry_after_ms, leader) = match undecided {
            Undecided::Overloaded(_) => (UnavailableReason::Overloaded, OVERLOADED_RETRY_MS, None),
            Undecided::NotLeader(leader) => (UnavailableReason::NoLeader, 0, leader),
            Undecided::TimedOut(_) => (UnavailableReason::Timeout, 0, None),
            Undecided::Stopped(_) => (UnavailableReason::ShuttingDown, 0, None),
        };
        let leader_address = leader.map(|leader| leader.address).unwrap_or_default();
        let unavailable = Unavailable { reason: reason.into(), message, retry_after_ms, leader_address };
        Self { kind: Some(Kind::Unavailable(unavailable)), log_index: 0, log_term: 0 }
    }
}

/// The table to gRPC status, for the admin service.
impl From<Undecided> for Status {
    fn from(undecided: Undecided) -> Self {
        let message = undecided.to_string();
        match undecided {
            Undecided::Overloaded(_) => Self::resource_exhausted(message),
            Undecided::TimedOut(_) => Self::deadline_exceeded(message),
            Undecided::NotLeader(_) | Undecided::Stopped(_) => Self::unavailable(message),
        }
    }
}

/// A refusal says what to do; what is half done has to be asked for again.
pub(crate) fn membership_status(error: MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::Replica(error) => replica_status(error),
        MembershipError::NotLeader { .. } => Status::unavailable(message),
        MembershipError::Unfinished(_) => Status::aborted(message),
        _ => Status::failed_precondition(message),
    }
}

pub(crate) fn replica_status(error: ReplicaError) -> Status {
    match error {
        ReplicaError::Peers(message) => Status::failed_precondition(message),
        wrong @ ReplicaError::WrongClock { .. } => Status::failed_precondition(wrong.to_string()),
        other => Status::unavailable(other.to_string()),
    }
}
