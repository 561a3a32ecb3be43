//! The connections of a listener, each handed on when its handshake is over. One that is slow holds up no other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::tls::server::ServerTls;
use crate::tls::stream::PeerStream;

/// Beyond it new connections wait in the listener's backlog until one of these is over, or gives way.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A handshake that has taken so long gives way when others wait: those who stall must not keep out those who do not.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);

type Taken = mpsc::Sender<io::Result<PeerStream>>;

/// Ends, and closes the listener, when the stream is dropped.
pub fn incoming(
    listener: TcpListener,
    tls: Arc<ServerTls>,
) -> impl Stream<Item = io::Result<PeerStream>> + Send {
    let (taken, connections) = mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = taken.closed() => {}
            () = accept(listener, &tls, &taken) => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, tls: &Arc<ServerTls>, taken: &Taken) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    // Never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, taken, places) = (tls.clone(), taken.clone(), places.clone());
        tokio::spawn(async move {
            handshake(&tls, tcp, &taken, from, &places).await;
            drop(place);
        });
    }
}

async fn handshake(tls: &ServerTls, tcp: TcpStream, taken: &Taken, from: SocketAddr, places: &Semaphore) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let accepted = tokio::select! {
        // The server ends.
        () = taken.closed() => return,
        accepted = tls.accept_unless(tcp, gives_way(places)) => accepted,
    };
    match accepted {
        // An error says that the server has ended meanwhile.
        Ok(stream) => drop(taken.send(Ok(stream)).await),
        Err(error) => tracing::warn!(%from, %error, "refused a connection"),
    }
}

/// Returns when a place is wanted that is not there.
async fn gives_way(places: &Semaphore) {
    loop {
        tokio::time::sleep(GIVES_WAY_AFTER).await;
        if places.available_permits() == 0 {
            return;
        }
    }
}
