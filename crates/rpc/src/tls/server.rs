//! The serving side: makes an accepted TCP connection a TLS one, with the certificates of now, in bounded time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::tls::error::{Problem, TlsError};
use crate::tls::files::TlsSource;
use crate::tls::identity::{Identity, Validity};
use crate::tls::material::{Material, provider};
use crate::tls::plaintext;
use crate::tls::reload::Reloading;
use crate::tls::stream::{Peer, PeerStream};

/// A healthy peer needs two round trips.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether callers show a certificate of one of the source's authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    Required,
    /// One that is shown must be good.
    Optional,
    /// Not asked for.
    None,
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS 1.3 and HTTP/2: both ends are ours.
    Grpc,
    /// TLS 1.2 as well, and HTTP/1.1: applications bring what they have.
    Http,
    /// The same without HTTP/2: monitoring.
    Http1,
}

/// Why a connection was not taken. Nobody but the log hears of it.
#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("the caller did not finish the TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the caller is slow, and the places of all handshakes under way are taken")]
    GaveWay,
    #[error("the caller speaks plaintext, this port speaks TLS")]
    Plaintext,
    #[error("TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
    #[error("the caller's certificate says nothing usable: {0}")]
    Identity(String),
}

#[derive(Debug)]
pub struct ServerTls {
    serving: Reloading<Serving>,
    refused: AtomicU64,
    protocol: Protocol,
}

struct Serving {
    config: Arc<ServerConfig>,
    not_after_s: i64,
}

impl ServerTls {
    /// # Errors
    /// The files cannot be used.
    pub fn new(source: TlsSource, clients: ClientCertificates, protocol: Protocol) -> Result<Self, TlsError> {
        let names = source.clone();
        let serving = Reloading::new(source, move |material| {
            let config = server_config(material, &names, clients, protocol)?;
            Ok(Serving { config: Arc::new(config), not_after_s: material.not_after_s })
        })?;
        Ok(Self { serving, refused: AtomicU64::new(0), protocol })
    }

    /// How many times new files were found that cannot be used.
    pub fn reload_failures(&self) -> u64 {
        self.serving.failures()
    }

    /// How many connections did not get through the handshake.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// When the certificate in use expires, in seconds since 1970.
    pub fn certificate_expires_s(&self) -> i64 {
        self.serving.current().not_after_s
    }

    /// # Errors
    /// The caller is too slow, speaks something else, or shows no certificate that counts.
    pub async fn accept(&self, tcp: TcpStream) -> Result<PeerStream, HandshakeError> {
        self.accept_unless(tcp, std::future::pending()).await
    }

    /// The same, unless something else happens first.
    pub(crate) async fn accept_unless(
        &self,
        tcp: TcpStream,
        gives_way: impl Future<Output = ()>,
    ) -> Result<PeerStream, HandshakeError> {
        let taken = tokio::select! {
            taken = timeout(HANDSHAKE_TIMEOUT, self.handshake(tcp)) => {
                taken.unwrap_or(Err(HandshakeError::TimedOut))
            }
            () = gives_way => Err(HandshakeError::GaveWay),
        };
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    async fn handshake(&self, mut tcp: TcpStream) -> Result<PeerStream, HandshakeError> {
        let address = tcp.peer_addr().ok();
        if plaintext::is_spoken(&tcp).await? {
            plaintext::refuse(&mut tcp, self.protocol).await;
            return Err(HandshakeError::Plaintext);
        }
        let stream = TlsAcceptor::from(self.serving.current().config.clone()).accept(tcp).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = match (self.protocol, shown.map(|shown| Identity::of(shown)).transpose()) {
            (_, Ok(identity)) => identity,
            (Protocol::Grpc, Err(error)) => return Err(HandshakeError::Identity(error)),
            // That it was checked is all that counts: it may be anybody's, and says nothing about roles.
            (Protocol::Http | Protocol::Http1, Err(_)) => None,
        };
        let validity = shown.and_then(|shown| Validity::of(shown).ok());
        let until = validity.and_then(|validity| Instant::now().checked_add(validity.left()));
        Ok(PeerStream::new(stream, Peer { address, identity: identity.map(Arc::new) }, until))
    }

    #[cfg(test)]
    pub(crate) fn look_now(&self) {
        self.serving.current_within(Duration::ZERO);
    }
}

fn server_config(
    material: &Material,
    source: &TlsSource,
    clients: ClientCertificates,
    protocol: Protocol,
) -> Result<ServerConfig, TlsError> {
    let in_cert = |error: &dyn ToString| {
        TlsError::new(source.names.cert, &source.cert_file, Problem::BadCertificate(error.to_string()))
    };
    let versions: &[_] = match protocol {
        Protocol::Grpc => &[&TLS13],
        Protocol::Http | Protocol::Http1 => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| in_cert(&error))?;
    let builder = match (clients, &material.roots) {
        (ClientCertificates::None, _) => builder.with_no_client_auth(),
        (_, None) => {
            let file = source.ca_file.clone().unwrap_or_default();
            return Err(TlsError::new(source.names.ca, &file, Problem::NoCertificate));
        }
        (clients, Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
            let verifier = match clients {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| in_cert(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from((*material.own).clone())));
    config.alpn_protocols = match protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
    };
    if clients != ClientCertificates::None {
        // A resumed session would not look at the dates of the certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}
