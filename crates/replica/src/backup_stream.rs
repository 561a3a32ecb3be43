//! A backup from a running node, in chunks: the ledger is copied, which is cheap, and encoded while the receiver takes it.

use std::io::{self, Write};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::backup::Head;
use crate::error::ReplicaError;
use crate::replica::Replica;

const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait for the wire; then the encoder waits.
const CHUNKS_QUEUED: usize = 4;
/// A receiver that takes nothing for so long is let go.
const SLOWEST: Duration = Duration::from_secs(30);

/// What failed, if the backup could not be made to its end.
pub type BackupChunks = mpsc::Receiver<Result<Bytes, String>>;

impl Replica {
    /// The ledger with everything that was committed before the call, as the bytes of a backup file. Other work goes on.
    ///
    /// # Errors
    /// This node does not lead, or cannot reach a quorum, or has nothing yet.
    pub async fn backup(&self) -> Result<BackupChunks, ReplicaError> {
        self.linearize().await?;
        let (ledger, last) = {
            let applied = self.inner.state_machine.applied().read();
            (applied.ledger.clone(), applied.last)
        };
        let last = last.ok_or(ReplicaError::NoQuorum)?;
        let (cluster, node_id) = (self.inner.sender.cluster.clone(), self.node_id());
        let (sender, chunks) = mpsc::channel(CHUNKS_QUEUED);
        let runtime = Handle::current();
        // Ends with the receiver, or with its patience.
        tokio::task::spawn_blocking(move || {
            let head = Head::new(&cluster, node_id, last, last.index, &ledger);
            let mut out = Chunks { sender, runtime, waiting: BytesMut::with_capacity(CHUNK_BYTES) };
            if let Err(error) = head.write(&ledger, &mut out) {
                tracing::warn!(%error, "a backup was not sent to its end");
                let _ = out.sender.try_send(Err(error.to_string()));
            }
        });
        Ok(chunks)
    }
}

struct Chunks {
    sender: mpsc::Sender<Result<Bytes, String>>,
    runtime: Handle,
    waiting: BytesMut,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.waiting, BytesMut::with_capacity(CHUNK_BYTES)).freeze();
        let sending = self.sender.send_timeout(Ok(chunk), SLOWEST);
        self.runtime.block_on(sending).map_err(|_| io::Error::other("nobody takes it any more"))
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.waiting.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.waiting.extend_from_slice(taken);
        if self.waiting.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.send() }
    }
}
