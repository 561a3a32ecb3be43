//! One TCP connection to one node, and nothing behind it that connects again unseen: when it is gone, calls over it fail,
//! and who wants another asks for one. So an answer is known to come from the process that the connection was made to.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, Uri};

/// Why there is no connection.
#[derive(Debug)]
enum NoConnection {
    Io(std::io::Error),
    /// A second one was wanted under the name of the first.
    Spent,
}

impl std::fmt::Display for NoConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Spent => f.write_str("the connection was lost before; nothing was sent"),
        }
    }
}

impl std::error::Error for NoConnection {}

impl From<std::io::Error> for NoConnection {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Was nothing sent, because the connection had already gone?
pub fn was_never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<NoConnection>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// # Errors
/// In words: no address, refused, or too slow.
pub async fn connect(address: &str, within: Duration) -> Result<Channel, String> {
    let endpoint = quorate_rpc::endpoint(address).map_err(|error| error.to_string())?;
    let connector = Once { address: address.to_owned(), used: Arc::default() };
    match tokio::time::timeout(within, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no connection within {} ms", within.as_millis())),
    }
}

struct Once {
    address: String,
    used: Arc<AtomicBool>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, NoConnection>> + Send>>;

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = NoConnection;
    type Future = Connecting;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Connecting {
        let (address, used) = (self.address.clone(), self.used.swap(true, Ordering::Relaxed));
        Box::pin(async move {
            if used {
                return Err(NoConnection::Spent);
            }
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_what_was_never_sent_counts_as_such() {
        let wrapped = Wrapped(Box::new(Wrapped(Box::new(NoConnection::Spent))));
        assert!(was_never_sent(&Status::from_error(Box::new(wrapped))));
        let wrapped = Wrapped(Box::new(std::io::Error::other("broken pipe")));
        assert!(!was_never_sent(&Status::from_error(Box::new(wrapped))));
        assert!(!was_never_sent(&Status::new(Code::Unavailable, "broken pipe")));
    }

    /// As the transport wraps an error of the connector.
    #[derive(Debug)]
    struct Wrapped(Box<dyn std::error::Error + Send + Sync>);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("transport error")
        }
    }

    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&*self.0)
        }
    }
}
