//! A backup as it goes over the wire: the replica's chunks, for as long as somebody takes them.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use quorate_replica::Replica;
use quorate_rpc::admin;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::error::replica_status;

/// Each holds on to the ledger as it was, while the ledger goes on.
pub(crate) const AT_ONCE: usize = 2;

pub(crate) type ChunkStream = Pin<Box<dyn Stream<Item = Result<admin::BackupChunk, Status>> + Send>>;

pub(crate) async fn stream(
    replica: &Replica,
    by: &str,
    places: &Arc<Semaphore>,
    stop: CancellationToken,
) -> Result<ChunkStream, Status> {
    let place = places.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Status::resource_exhausted(format!("{AT_ONCE} backups are being made; try again when one is done"))
    })?;
    let chunks = replica.backup().await.map_err(replica_status)?;
    tracing::info!(by, "a backup is being made");
    let chunks = ReceiverStream::new(chunks).map(move |chunk| {
        let _held = &place;
        chunk.map(|data| admin::BackupChunk { data }).map_err(Status::internal)
    });
    let stopped = stop.clone();
    let cut_off = futures_util::stream::once(async move { stopped.is_cancelled() })
        .filter_map(|stopped| ready(stopped.then(|| Err(Status::unavailable("this node is stopping")))));
    Ok(Box::pin(chunks.take_until(stop.cancelled_owned()).chain(cut_off)))
}
