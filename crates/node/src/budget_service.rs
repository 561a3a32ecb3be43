//! `quorate.budget.v1`: operations over a session stream or one by one, and watches.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use quorate_ledger::Command;
use quorate_rpc::budget::budget_server::Budget;
use quorate_rpc::budget::{
    Operation, Result as WireResult, SessionRequest, SessionResponse, WatchEvent, WatchRequest,
};
use quorate_rpc::{FORWARDED_HEADER, convert};
use tonic::{Request, Response, Status, Streaming};

use crate::error::Undecided;
use crate::forward::Forwarder;
use crate::metrics::{Metrics, kind};
use crate::tenants::Tenants;
use crate::watch_service::Watches;

/// The longest a caller may ask a node to try.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct BudgetService {
    pub tenants: Arc<Tenants>,
    pub forwarder: Arc<Forwarder>,
    pub watches: Watches,
    pub metrics: Arc<Metrics>,
    pub session_in_flight: usize,
    pub default_timeout: Duration,
}

impl BudgetService {
    /// Decides here, or has it decided by the leader.
    async fn decide(&self, operation: Operation, may_forward: bool) -> WireResult {
        let timeout = match operation.timeout_ms {
            0 => self.default_timeout,
            ms => Duration::from_millis(ms.into()).min(TIMEOUT_MAX),
        };
        if !self.forwarder.leads() {
            if !may_forward {
                return Undecided::NotLeader(self.forwarder.leader()).into();
            }
            self.metrics.forwarded.inc();
            return self.forwarder.execute(operation, timeout).await.unwrap_or_else(Into::into);
        }
        let command = match Command::try_from(operation) {
            Ok(command) => command,
            Err(error) => {
                return convert::result(
                    quorate_ledger::Outcome::Refused(quorate_ledger::Refusal::Invalid(error.to_string())),
                    0,
                    0,
                );
            }
        };
        let kind = kind(&command);
        match self.tenants.execute(command, timeout).await {
            Ok(decided) => {
                self.metrics.count(kind, Some(&decided.outcome));
                convert::result(decided.outcome, decided.term, decided.index)
            }
            Err(undecided) => {
                self.metrics.count(kind, None);
                undecided.into()
            }
        }
    }

    async fn respond(self: Arc<Self>, request: SessionRequest, may_forward: bool) -> SessionResponse {
        let result = match request.operation {
            Some(operation) => self.decide(operation, may_forward).await,
            None => convert::result(
                quorate_ledger::Outcome::Refused(quorate_ledger::Refusal::Invalid(
                    "operation is missing".to_owned(),
                )),
                0,
                0,
            ),
        };
        SessionResponse { sequence: request.sequence, result: Some(result) }
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts a stream for as long as it lives.
struct Counted(prometheus_client::metrics::gauge::Gauge);

impl Counted {
    fn new(gauge: &prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[tonic::async_trait]
impl Budget for BudgetService {
    type SessionStream = ResponseStream<SessionResponse>;
    type WatchStream = ResponseStream<WatchEvent>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let may_forward = !request.metadata().contains_key(FORWARDED_HEADER);
        let service = Arc::new(self.clone());
        let counted = Counted::new(&self.metrics.sessions);
        let responses = request
            .into_inner()
            // The caller broke off: nobody is there to hear of it.
            .take_while(|request| std::future::ready(request.is_ok()))
            .filter_map(|request| std::future::ready(request.ok()))
            .map(move |request| service.clone().respond(request, may_forward))
            .buffer_unordered(self.session_in_flight)
            .map(move |response| {
                let _ = &counted;
                Ok(response)
            });
        let mut response = Response::new(Box::pin(responses) as Self::SessionStream);
        self.forwarder.add_leader(response.metadata_mut());
        Ok(response)
    }

    async fn execute(&self, request: Request<Operation>) -> Result<Response<WireResult>, Status> {
        let may_forward = !request.metadata().contains_key(FORWARDED_HEADER);
        let mut response = Response::new(self.decide(request.into_inner(), may_forward).await);
        self.forwarder.add_leader(response.metadata_mut());
        Ok(response)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = request.into_inner().watcher;
        let counted = Counted::new(&self.metrics.watchers);
        let events = self.watches.start(watcher).map(move |event| {
            let _ = &counted;
            event
        });
        Ok(Response::new(Box::pin(events)))
    }
}
