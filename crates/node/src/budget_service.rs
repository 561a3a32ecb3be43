//! `quorate.budget.v1`: operations over a session stream or one by one, and watches.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use quorate_rpc::FORWARDED_HEADER;
use quorate_rpc::budget::budget_server::Budget;
use quorate_rpc::budget::{
    Operation, Result as WireResult, SessionRequest, SessionResponse, WatchEvent, WatchRequest,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::decisions::{Decisions, ends, invalid};
use crate::error::Undecided;
use crate::forward::Forwarder;
use crate::metrics::{Counted, Metrics};
use crate::watch_service::Watches;

#[derive(Debug, Clone)]
pub(crate) struct BudgetService {
    pub decisions: Decisions,
    pub forwarder: Arc<Forwarder>,
    pub watches: Watches,
    pub metrics: Arc<Metrics>,
    pub session_in_flight: usize,
    /// No new operations.
    pub stop: CancellationToken,
    /// Operations; closed when the node stops.
    pub under_way: TaskTracker,
}

impl BudgetService {
    /// Decides here, or has it decided by the leader.
    async fn decide(&self, operation: Operation, may_forward: bool) -> WireResult {
        if self.stop.is_cancelled() {
            return Undecided::stopping().into();
        }
        let patience = self.decisions.patience(&operation);
        if !self.forwarder.leads() {
            if !may_forward {
                return Undecided::NotLeader(self.forwarder.leader()).into();
            }
            self.metrics.forwarded.inc();
            // Boxed: all that a session has in flight is as large as the rarest way that one may take.
            let forwarded = Box::pin(self.forwarder.execute(operation, patience.timeout));
            return forwarded.await.unwrap_or_else(Into::into);
        }
        self.decisions.decide(operation, patience).await
    }

    /// `waits`: those of the session that may wait. They must leave room for the settlements that they wait for. Boxed:
    /// an answer is passed on several times before it is written.
    async fn respond(
        self: Arc<Self>,
        request: SessionRequest,
        may_forward: bool,
        waits: Arc<Semaphore>,
    ) -> Box<SessionResponse> {
        let result = match request.operation {
            Some(mut operation) => {
                let queues = operation.wait_ms > 0 && !ends(&operation);
                let may_queue = if queues { waits.try_acquire().ok() } else { None };
                if queues && may_queue.is_none() {
                    operation.wait_ms = 0;
                }
                self.decide(operation, may_forward).await
            }
            None => invalid("operation is missing".to_owned()),
        };
        Box::new(SessionResponse { sequence: request.sequence, result: Some(result) })
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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
        let waits = Arc::new(Semaphore::new(self.session_in_flight / 2));
        let (stop, under_way) = (self.stop.clone(), self.under_way.clone());
        // Who asks while this node stops is told to ask another one, until the last answer is on its way.
        let last = under_way.clone();
        let ended = async move {
            stop.cancelled().await;
            last.wait().await;
        };
        let mut requests = request.into_inner();
        // Ends with the first error: the caller broke off, and nobody is there to hear of it.
        let requests =
            stream::poll_fn(move |context| requests.poll_next_unpin(context).map(|next| next?.ok()));
        let responses = requests
            .take_until(ended)
            .map(move |request| {
                under_way.track_future(service.clone().respond(request, may_forward, waits.clone()))
            })
            .buffer_unordered(self.session_in_flight)
            .map(move |response| {
                let _ = &counted;
                Ok(*response)
            });
        let mut response = Response::new(Box::pin(responses) as Self::SessionStream);
        self.forwarder.add_leader(response.metadata_mut());
        Ok(response)
    }

    async fn execute(&self, request: Request<Operation>) -> Result<Response<WireResult>, Status> {
        let may_forward = !request.metadata().contains_key(FORWARDED_HEADER);
        let deciding = self.decide(request.into_inner(), may_forward);
        let mut response = Response::new(self.under_way.track_future(deciding).await);
        self.forwarder.add_leader(response.metadata_mut());
        Ok(response)
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let counted = Counted::new(&self.metrics.watchers);
        let address = request.remote_addr();
        let events = self.watches.start(address, request.into_inner())?.map(move |event| {
            let _ = &counted;
            event
        });
        Ok(Response::new(Box::pin(events)))
    }
}
