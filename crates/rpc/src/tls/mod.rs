//! Mutual TLS, terminated here so that new certificates count without a restart. Not what a role may do: that is the
//! node's.

mod authority;
mod client;
mod error;
mod files;
mod http_files;
mod http_listener;
mod identity;
mod incoming;
mod material;
mod plaintext;
mod reload;
mod server;
mod shown;
mod stream;
#[cfg(test)]
mod tests;

pub use authority::{Authority, CERTIFICATE_DAYS, IssueError, Issued, Subject};
pub use client::{ClientTls, Security};
pub(crate) use client::{Connector, explain};
pub use error::{TlsError, pem_problem};
pub use files::{Names, TlsFiles, TlsSource};
pub use http_files::HttpTlsFiles;
pub use http_listener::{HttpListener, HttpStream};
pub use identity::{Identity, Role, Validity};
pub use incoming::incoming;
pub use server::{ClientCertificates, HandshakeError, Protocol, ServerTls};
pub use shown::Shown;
pub use stream::{Peer, PeerStream};
