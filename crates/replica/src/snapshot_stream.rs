//! A snapshot on its way from one node to another: the leader's vote, the bytes of the file, the end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::raft::SnapshotResponse;
use quorate_rpc::raft::raft_client::RaftClient;
use quorate_rpc::raft::{RaftMessage, RaftMessageKind as Kind};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::network::Sender;
use crate::snapshot::{SnapshotFile, SnapshotFolder, read};
use crate::types::{Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};

const CHUNK_BYTES: usize = 256 * 1024;
/// The file is read by a thread of its own; so many chunks wait for the wire.
const CHUNKS_QUEUED: usize = 4;
/// Time for a whole snapshot: this, and what a slow line needs.
const BASE_TIMEOUT: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Time between two chunks, on the receiving side.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the file and waits until the other node has installed it.
pub(crate) async fn send_snapshot(
    mut client: RaftClient<Channel>,
    sender: &Sender,
    target: u64,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, Status> {
    let path = snapshot.snapshot.path;
    let bytes = std::fs::metadata(&path).map_err(|error| failed(&error))?.len();
    let (chunks, queue) = mpsc::channel(CHUNKS_QUEUED);
    let head = encode(&vote).map_err(|error| failed(&error))?;
    let begin = sender.message(target, Kind::SnapshotBegin, head);
    let sender = sender.clone();
    // Ends when the queue is closed, that is, with the call.
    let reading = tokio::task::spawn_blocking(move || {
        let mut open = chunks.blocking_send(begin).is_ok();
        read_chunks(&path, |chunk| {
            let kind = if chunk.is_empty() { Kind::SnapshotEnd } else { Kind::SnapshotChunk };
            open = open && chunks.blocking_send(sender.message(target, kind, chunk)).is_ok();
            open
        })
    });
    let timeout = BASE_TIMEOUT + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    let installed = tokio::time::timeout(timeout, client.install_snapshot(ReceiverStream::new(queue))).await;
    let response = installed
        .map_err(|_| Status::deadline_exceeded("the peer did not install the snapshot in time"))??;
    reading.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    decode(&response.into_inner().payload).map_err(|error| failed(&error))
}

/// The file piece by piece, then an empty piece.
fn read_chunks(path: &Path, mut send: impl FnMut(Vec<u8>) -> bool) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if !send(chunk) || read == 0 {
            return Ok(());
        }
    }
}

/// A file that goes with this, unless it has been renamed: also where the sender breaks off, and nobody hears of an error.
pub(crate) struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed now goes at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes what comes to a file, syncs and checks it.
pub(crate) async fn receive_snapshot(
    folder: &SnapshotFolder,
    messages: &mut Streaming<RaftMessage>,
) -> Result<(SnapshotMeta, SnapshotFile, Partial), Status> {
    let partial = Partial(folder.partial_path());
    receive_file(&partial.0, messages).await?;
    let (meta, file) = check(partial.0.clone()).await?;
    Ok((meta, file, partial))
}

async fn receive_file(path: &Path, messages: &mut Streaming<RaftMessage>) -> Result<(), Status> {
    let mut file = File::create(path).map_err(|error| failed(&error))?;
    loop {
        let next = tokio::time::timeout(CHUNK_TIMEOUT, messages.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("the snapshot came to a halt"))??;
        let message = next.ok_or_else(|| Status::aborted("the snapshot ended too early"))?;
        let payload = message.payload.clone();
        file = match message.kind() {
            Kind::SnapshotChunk => blocking(move || file.write_all(&payload).map(|()| file)).await?,
            Kind::SnapshotEnd => return blocking(move || file.sync_all()).await,
            kind => return Err(Status::invalid_argument(format!("{kind:?} inside a snapshot"))),
        };
    }
}

/// A file that was damaged on the way is the sender's to send again, and no reason to stop.
async fn check(path: PathBuf) -> Result<(SnapshotMeta, SnapshotFile), Status> {
    blocking(move || {
        let (meta, ledger) = read(&path)?;
        Ok((meta, SnapshotFile { path, content: Some(ledger) }))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("snapshot: {error}"))
}
