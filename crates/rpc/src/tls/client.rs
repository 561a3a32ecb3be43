//! The calling side: how a connection to a node is secured, and the connector that does it with the certificates of now.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::tls::error::{Problem, TlsError};
use crate::tls::files::TlsSource;
use crate::tls::identity::{Identity, Role};
use crate::tls::material::{Material, provider};
use crate::tls::reload::Reloading;

/// How the nodes are spoken to, or a server that is none of the cluster.
#[derive(Debug, Clone, Default)]
pub enum Security {
    #[default]
    Plain,
    /// Both sides show certificates, and the other is a node.
    Mutual(Arc<ClientTls>),
    /// Both sides show certificates; the other's is from an authority of the files, and says nothing of roles.
    WithOthers(Arc<ClientTls>),
}

impl Security {
    /// # Errors
    /// The files cannot be used.
    pub fn mutual(source: TlsSource) -> Result<Self, TlsError> {
        Ok(Self::Mutual(Arc::new(ClientTls::new(source)?)))
    }

    /// # Errors
    /// The files cannot be used.
    pub fn with_others(source: TlsSource) -> Result<Self, TlsError> {
        Ok(Self::WithOthers(Arc::new(ClientTls::new(source)?)))
    }
}

#[derive(Debug)]
pub struct ClientTls {
    config: Reloading<ClientConfig>,
}

impl ClientTls {
    /// # Errors
    /// The files cannot be used.
    pub fn new(source: TlsSource) -> Result<Self, TlsError> {
        let names = source.clone();
        Ok(Self { config: Reloading::new(source, move |material| client_config(material, &names))? })
    }

    /// How many times new files were found that cannot be used.
    pub fn reload_failures(&self) -> u64 {
        self.config.failures()
    }

    /// # Errors
    /// Nobody is there, or it is somebody else. The certificate is checked against `host`, a name or an address.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{host}` is no name that a certificate can have"),
            )
        })?;
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(self.config.current()).connect(name, tcp).await
    }

    #[cfg(test)]
    pub(crate) fn look_now(&self) {
        self.config.current_within(std::time::Duration::ZERO);
    }
}

/// For `Endpoint::connect_with_connector_lazy`.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub tls: Arc<ClientTls>,
    /// Nobody but a node will do.
    pub to_node: bool,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (tls, to_node) = (self.tls.clone(), self.to_node);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let mut stream = tls.connect(host, uri.port_u16().unwrap_or(443)).await?;
            if !to_node {
                return Ok(TokioIo::new(stream));
            }
            // A server of HTTP/2 speaks first, but not before it has looked at our certificate: TLS 1.3 itself does not
            // say here that it was refused.
            if stream.fill_buf().await?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            is_node(&stream).map_err(io::Error::other)?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Others of the cluster have certificates for their hosts too, and those may be hosts of nodes.
fn is_node(stream: &TlsStream<TcpStream>) -> Result<(), NoNode> {
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = Identity::of(shown.ok_or_else(|| NoNode("it shows none".to_owned()))?).map_err(NoNode)?;
    if identity.has(Role::Node) { Ok(()) } else { Err(NoNode(format!("it is of {}", identity.described()))) }
}

#[derive(Debug, Error)]
#[error("the certificate is not one of a node (O=quorate:node): {0}")]
struct NoNode(String);

fn client_config(material: &Material, source: &TlsSource) -> Result<ClientConfig, TlsError> {
    let Some(roots) = &material.roots else {
        let file = source.ca_file.clone().unwrap_or_default();
        return Err(TlsError::new(source.names.ca, &file, Problem::NoCertificate));
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| {
            let problem = Problem::BadCertificate(error.to_string());
            TlsError::new(source.names.cert, &source.cert_file, problem)
        })?
        .with_root_certificates(RootCertStore::clone(roots))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*material.own).clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection shows and checks certificates anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What TLS has to say about a failure, with what to do about it; `None` if it was something else.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    // An io::Error stands for what it holds, and passes it over as a source.
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return explain(inner);
    }
    if let Some(no_node) = error.downcast_ref::<NoNode>() {
        return Some(no_node.to_string());
    }
    let Some(error) = error.downcast_ref::<rustls::Error>() else {
        return explain(error.source()?);
    };
    Some(match error {
        rustls::Error::InvalidMessage(_) => {
            "the node speaks plaintext; leave the TLS settings out, or give the node its section `tls`"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the node's certificate is from no authority of ours; is the CA file that of this cluster?"
            .to_owned(),
        rustls::Error::InvalidCertificate(error) => format!("the node's certificate is refused: {error}"),
        rustls::Error::AlertReceived(alert) => format!(
            "the node refused our certificate ({alert:?}); it must be from an authority of the node's CA file and valid now"
        ),
        other => format!("TLS: {other}"),
    })
}
