//! What can go wrong before a gateway serves.

use quorate_rpc::tls::TlsError;
use thiserror::Error;

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// Names the key and the remedy.
    #[error("wrong configuration: {0}")]
    Config(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address} ({key}); choose another address or stop what uses it")]
    Bind { key: &'static str, address: String, source: std::io::Error },
    #[error(
        "{key}: {address} can be reached from other machines, and without TLS keys and prompts go there unencrypted; \
         give a section `{section}`, or listen on a loopback address such as 127.0.0.1, or say `insecure: true` \
         (--insecure, QUORATE_INSECURE=true) where the network itself is safe"
    )]
    Reach { key: &'static str, address: String, section: &'static str },
    #[error("backend {backend}: {message}")]
    Backend { backend: String, message: String },
}
