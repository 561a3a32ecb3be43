//! A client that hides nothing: one call is sent once, to the node that was asked for, and its end is told as
//! `jepsen/SEMANTICS.md` has it: ok, fail or unknown. Sending again, to this node or another, is up to the workload.
//! What is deliberately absent: routing to the leader, retries (`quorate_rpc::Client` has both).

mod connection;
mod ids;
mod nodes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_ledger::{Command, Outcome, Refusal};
use quorate_rpc::admin::admin_client::AdminClient;
use quorate_rpc::admin::{self, Consistency};
use quorate_rpc::budget::budget_client::BudgetClient;
use quorate_rpc::budget::result::Kind;
use quorate_rpc::budget::{Result as WireResult, UnavailableReason};
use quorate_rpc::{Executed, MESSAGE_MAX_BYTES, Session, convert};
use serde::Serialize;
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::deploy::{Deployment, NodePlace};
use crate::history::Pending;

pub use ids::Ids;
pub use nodes::Nodes;

/// A partition swallows packets: a call that takes longer has no answer to come.
pub const CALL: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
/// More accounts than this in one answer would not be one snapshot.
const PAGE: u32 = 10_000;

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending<T> {
    Ok(T),
    /// It did not take effect and never will.
    Fail(String),
    /// It may have taken effect, or may yet.
    Unknown(String),
}

/// How operations travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// One call each.
    Unary,
    /// One stream for all.
    Session,
}

/// A read, and the connection that it came over: two reads over one connection were answered by one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Read<T> {
    pub value: T,
    pub connection: u64,
}

impl<T> Ending<Read<T>> {
    /// Into the history, as what is `seen` of it. A read changes nothing: one without an answer has failed.
    pub fn record<U: Serialize>(self, pending: Pending, seen: impl FnOnce(Read<T>) -> U) -> Option<U> {
        match self {
            Self::Ok(read) => {
                let seen = seen(read);
                pending.ok(&seen);
                Some(seen)
            }
            Self::Fail(reason) | Self::Unknown(reason) => {
                pending.fail(&reason);
                None
            }
        }
    }
}

/// One node. Connects when first used, and again after the connection broke; safe to share.
#[derive(Debug)]
pub struct NodeClient {
    place: NodePlace,
    via: Via,
    wire: Mutex<Option<Wire>>,
}

/// One TCP connection and, on it, the session.
#[derive(Debug, Clone)]
struct Wire {
    channel: Channel,
    session: Option<Arc<Session>>,
    number: u64,
}

/// Of all connections of this process: none is numbered like another.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

impl NodeClient {
    pub fn new(place: NodePlace, via: Via) -> Self {
        Self { place, via, wire: Mutex::default() }
    }

    /// One for each node.
    pub fn of_all(deployment: &Deployment, via: Via) -> Vec<Self> {
        deployment.node_places().into_iter().map(|place| Self::new(place, via)).collect()
    }

    pub fn node(&self) -> u64 {
        self.place.id
    }

    /// Sends it once. `deadline`: for connecting, sending and the answer together; the node is told of it.
    pub async fn execute(&self, command: &Command, deadline: Duration) -> Ending<Executed> {
        let timeout_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let Some(operation) = convert::operation(command, timeout_ms) else {
            return Ending::Fail("this command goes through the admin service".to_owned());
        };
        let wire = match self.wire().await {
            Ok(wire) => wire,
            Err(reason) => return Ending::Fail(reason),
        };
        let answered = tokio::time::timeout(deadline, async {
            match &wire.session {
                Some(session) => session.call(operation).await.map_err(|_| Broken::Session),
                None => {
                    let answer = BudgetClient::new(wire.channel.clone()).execute(operation).await;
                    answer.map(tonic::Response::into_inner).map_err(Broken::Call)
                }
            }
        });
        let ending = match answered.await {
            Ok(Ok(result)) => return decided(result),
            Ok(Err(Broken::Session)) => Ending::Unknown("the session broke".to_owned()),
            Ok(Err(Broken::Call(status))) if was_refused(&status) => return Ending::Fail(words(&status)),
            Ok(Err(Broken::Call(status))) if connection::was_never_sent(&status) => {
                Ending::Fail(words(&status))
            }
            Ok(Err(Broken::Call(status))) => Ending::Unknown(words(&status)),
            Err(_) => Ending::Unknown(format!("no answer within {} ms", deadline.as_millis())),
        };
        self.abandon(&wire).await;
        ending
    }

    /// All accounts of a tenant as one snapshot. A read changes nothing: one without an answer has failed.
    pub async fn accounts(
        &self,
        tenant: &str,
        consistency: Consistency,
        deadline: Duration,
    ) -> Ending<Read<admin::ListAccountsResponse>> {
        let request = admin::ListAccountsRequest {
            consistency: consistency.into(),
            tenant: tenant.to_owned(),
            page_size: PAGE,
            ..Default::default()
        };
        let read = async |mut client: AdminClient<Channel>, request| client.list_accounts(request).await;
        match self.read(request, deadline, read).await {
            Ending::Ok(read) if !read.value.cursor.is_empty() => {
                Ending::Fail("more than one page of accounts is no snapshot".to_owned())
            }
            other => other,
        }
    }

    /// Every safety property of the ledger, checked on this node.
    pub async fn invariants(&self, deadline: Duration) -> Ending<Read<admin::CheckInvariantsResponse>> {
        let check = async |mut client: AdminClient<Channel>, request| client.check_invariants(request).await;
        self.read(admin::CheckInvariantsRequest {}, deadline, check).await
    }

    /// Any read of the admin service.
    pub async fn read<Q, T>(
        &self,
        request: Q,
        deadline: Duration,
        send: impl AsyncFnOnce(AdminClient<Channel>, Request<Q>) -> Result<tonic::Response<T>, Status>,
    ) -> Ending<Read<T>> {
        let wire = match self.wire().await {
            Ok(wire) => wire,
            Err(reason) => return Ending::Fail(reason),
        };
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        let client = AdminClient::new(wire.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES);
        let reason = match tokio::time::timeout(deadline, send(client, request)).await {
            Ok(Ok(answer)) => {
                return Ending::Ok(Read { value: answer.into_inner(), connection: wire.number });
            }
            Ok(Err(status)) => words(&status),
            Err(_) => format!("no answer within {} ms", deadline.as_millis()),
        };
        self.abandon(&wire).await;
        Ending::Fail(reason)
    }

    async fn wire(&self) -> Result<Wire, String> {
        let mut slot = self.wire.lock().await;
        if let Some(wire) = slot.as_ref().filter(|wire| !wire.is_over()) {
            return Ok(wire.clone());
        }
        let channel = connection::connect(&self.place.address, CONNECT).await?;
        let session = match self.via {
            Via::Unary => None,
            Via::Session => {
                let opening = Session::open(channel.clone(), self.place.address.clone(), false);
                let opened = tokio::time::timeout(CONNECT, opening).await;
                let opened = opened.map_err(|_| "the node did not open a session".to_owned())?;
                Some(Arc::new(opened.map_err(|status| words(&status))?))
            }
        };
        let wire = Wire { channel, session, number: CONNECTIONS.fetch_add(1, Ordering::Relaxed) };
        *slot = Some(wire.clone());
        Ok(wire)
    }

    async fn abandon(&self, wire: &Wire) {
        let mut slot = self.wire.lock().await;
        if slot.as_ref().is_some_and(|current| current.number == wire.number) {
            *slot = None;
        }
    }
}

impl Wire {
    fn is_over(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_over())
    }
}

enum Broken {
    Session,
    Call(Status),
}

fn words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An answer of the node's edge, before anything was tried. Codes that a transport makes up itself are not among them.
fn was_refused(status: &Status) -> bool {
    use Code::{InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented};
    matches!(status.code(), InvalidArgument | PermissionDenied | Unauthenticated | Unimplemented)
}

fn decided(result: WireResult) -> Ending<Executed> {
    let WireResult { kind, log_index, log_term } = result;
    let outcome = match kind {
        None => return Ending::Unknown("an answer of an unknown kind".to_owned()),
        Some(Kind::Unavailable(unavailable)) => {
            let reason = unavailable.reason();
            let words = format!("{}: {}", reason.as_str_name(), unavailable.message);
            return match reason {
                UnavailableReason::Overloaded => Ending::Fail(words),
                _ => Ending::Unknown(words),
            };
        }
        Some(kind) => convert::outcome(kind),
    };
    match outcome {
        Ok(Outcome::Refused(Refusal::Invalid(problem))) if log_index == 0 => Ending::Fail(problem),
        Ok(outcome) => Ending::Ok(Executed { outcome, log_term, log_index }),
        Err(error) => Ending::Unknown(format!("cannot read the answer: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use quorate_rpc::budget::{Released, Unavailable};

    use super::*;

    fn unavailable(reason: UnavailableReason) -> WireResult {
        let unavailable = Unavailable { reason: reason.into(), ..Default::default() };
        WireResult { kind: Some(Kind::Unavailable(unavailable)), log_index: 0, log_term: 0 }
    }

    #[test]
    fn only_overload_is_a_failure() {
        use UnavailableReason::{NoLeader, Overloaded, ShuttingDown, Timeout, Unspecified};
        assert!(matches!(decided(unavailable(Overloaded)), Ending::Fail(_)));
        for reason in [NoLeader, ShuttingDown, Timeout, Unspecified] {
            assert!(matches!(decided(unavailable(reason)), Ending::Unknown(_)), "{reason:?}");
        }
    }

    #[test]
    fn a_decision_says_where_it_stands() {
        let result = WireResult { kind: Some(Kind::Released(Released {})), log_index: 7, log_term: 2 };
        let executed = Executed { outcome: Outcome::Released, log_term: 2, log_index: 7 };
        assert_eq!(decided(result), Ending::Ok(executed));
    }

    #[test]
    fn what_the_edge_refused_has_failed_and_what_the_log_refused_is_a_decision() {
        let refusal = || Outcome::Refused(Refusal::Invalid("tenant has 1 to 128 bytes, not 0".to_owned()));
        assert!(matches!(decided(convert::result(refusal(), 0, 0)), Ending::Fail(_)));
        assert!(matches!(decided(convert::result(refusal(), 1, 9)), Ending::Ok(_)));
    }

    #[tokio::test]
    async fn a_connection_that_was_never_made_is_a_failure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let place = NodePlace { id: 1, http: address.clone(), address };
        for via in [Via::Unary, Via::Session] {
            let client = NodeClient::new(place.clone(), via);
            let id = quorate_ledger::ReservationId::from_u128((7 << 76) | (0b10 << 62)).unwrap();
            let ending = client.execute(&Command::Release { tenant: "t".into(), id }, CALL).await;
            assert!(matches!(ending, Ending::Fail(_)), "{ending:?}");
        }
    }
}
