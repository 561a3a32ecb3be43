//! One session stream: operations go up as they come, results come back in any order and find their caller by number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::budget::budget_client::BudgetClient;
use crate::budget::{Operation, Result as WireResult, SessionRequest, SessionResponse};
use crate::routing::{FORWARDED_HEADER, LEADER_HEADER};

/// Operations that may wait for the wire.
const QUEUE: usize = 1_024;

/// The stream broke before the answer came: the effect is unknown.
#[derive(Debug, Clone, Copy)]
pub struct SessionLost;

/// A live session with one node. Dropping it ends the stream.
#[derive(Debug)]
pub struct Session {
    address: String,
    /// Who the node says leads, when the session began.
    leader: Option<String>,
    sequence: AtomicU64,
    requests: mpsc::Sender<SessionRequest>,
    waiting: Arc<Waiting>,
}

/// Callers by sequence number. `None` once the stream is over: nobody may begin to wait after that.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<WireResult>>>>);

impl Session {
    /// `forwarded`: from one node to another, which must then answer itself.
    ///
    /// # Errors
    /// The node refused the stream or cannot be reached.
    pub async fn open(channel: Channel, address: String, forwarded: bool) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(queue));
        if forwarded {
            request.metadata_mut().insert(FORWARDED_HEADER, tonic::metadata::MetadataValue::from_static("1"));
        }
        let response = BudgetClient::new(channel).session(request).await?;
        let leader =
            response.metadata().get(LEADER_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(deliver(response.into_inner(), waiting.clone()));
        Ok(Self { address, leader, sequence: AtomicU64::new(1), requests, waiting })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    pub fn is_over(&self) -> bool {
        self.waiting.0.lock().is_none()
    }

    /// Sends one operation and waits for its result. The caller bounds the wait; dropping the future is safe.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn call(&self, operation: Operation) -> Result<WireResult, SessionLost> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.0.lock().as_mut().ok_or(SessionLost)?.insert(sequence, answer);
        let mut entry = Entry { waiting: &self.waiting, sequence: Some(sequence) };
        let request = SessionRequest { sequence, operation: Some(operation) };
        self.requests.send(request).await.map_err(|_| SessionLost)?;
        let result = answered.await.map_err(|_| SessionLost)?;
        // Whoever delivered the answer has taken the entry out.
        entry.sequence = None;
        Ok(result)
    }
}

/// Takes the caller's entry away when it no longer waits, however it stopped waiting.
struct Entry<'a> {
    waiting: &'a Waiting,
    /// `None`: it is gone.
    sequence: Option<u64>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Some(sequence) = self.sequence else { return };
        if let Some(waiting) = self.waiting.0.lock().as_mut() {
            waiting.remove(&sequence);
        }
    }
}

async fn deliver(mut responses: Streaming<SessionResponse>, waiting: Arc<Waiting>) {
    while let Ok(Some(response)) = responses.message().await {
        let caller = waiting.0.lock().as_mut().and_then(|waiting| waiting.remove(&response.sequence));
        if let (Some(caller), Some(result)) = (caller, response.result) {
            // A caller that stopped waiting has lost interest; its entry was about to go anyway.
            let _ = caller.send(result);
        }
    }
    // Every caller still waiting sees its sender dropped.
    waiting.0.lock().take();
}
