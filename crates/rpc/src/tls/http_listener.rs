//! The connections of an HTTP port, over TLS or in plaintext, for whoever serves HTTP on them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::tls::incoming::incoming;
use crate::tls::server::ServerTls;
use crate::tls::stream::PeerStream;

/// After an error of `accept`, such as too many open files: others may close theirs meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Closes the port when it is dropped.
pub struct HttpListener(Kind);

enum Kind {
    Plain(TcpListener),
    /// Handshakes go on beside each other: see `incoming`.
    Tls(BoxStream<'static, io::Result<PeerStream>>),
}

impl HttpListener {
    /// To be called inside a runtime.
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerTls>>) -> Self {
        Self(match tls {
            None => Kind::Plain(listener),
            Some(tls) => Kind::Tls(incoming(listener, tls).boxed()),
        })
    }

    /// The next connection, over which HTTP may be spoken, and where it comes from. Nothing is lost when this is given up.
    pub async fn accept(&mut self) -> (HttpStream, SocketAddr) {
        loop {
            let accepted = match &mut self.0 {
                Kind::Plain(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, from)| (HttpStream::Plain(stream), Some(from)))
                }
                Kind::Tls(connections) => match connections.next().await {
                    Some(taken) => taken.map(|stream| {
                        let from = stream.peer().address;
                        (HttpStream::Tls(Box::new(stream)), from)
                    }),
                    // Only with the runtime.
                    None => std::future::pending().await,
                },
            };
            match accepted {
                Ok((stream, Some(from))) => {
                    if let HttpStream::Plain(stream) = &stream
                        && let Err(error) = stream.set_nodelay(true)
                    {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return (stream, from);
                }
                // It was closed at once.
                Ok((_, None)) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl fmt::Debug for HttpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpListener").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub enum HttpStream {
    Plain(TcpStream),
    Tls(Box<PeerStream>),
}

impl AsyncRead for HttpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
