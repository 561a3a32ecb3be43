//! The files of TLS where applications or monitoring call: callers need no certificate, unless an authority of theirs is
//! named.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::tls::error::TlsError;
use crate::tls::files::{Names, TlsSource};
use crate::tls::server::{ClientCertificates, Protocol, ServerTls};

/// All in PEM, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTlsFiles {
    /// The certificate that callers see, followed by those between it and an authority that they believe.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities of callers: who shows no certificate of one of them is refused. None: nobody is asked for one.
    pub client_ca_file: Option<PathBuf>,
}

impl Names {
    /// The section `tls` of a gateway.
    pub const GATEWAY_TLS: Self =
        Self { ca: "tls.client_ca_file", cert: "tls.cert_file", key: "tls.key_file" };
    /// The section `http_tls`, of a node or a gateway.
    pub const HTTP_TLS: Self =
        Self { ca: "http_tls.client_ca_file", cert: "http_tls.cert_file", key: "http_tls.key_file" };
}

impl HttpTlsFiles {
    /// # Errors
    /// The files cannot be used.
    pub fn server(&self, names: Names, protocol: Protocol) -> Result<Arc<ServerTls>, TlsError> {
        let source = TlsSource {
            ca_file: self.client_ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            names,
        };
        let clients = match self.client_ca_file {
            Some(_) => ClientCertificates::Required,
            None => ClientCertificates::None,
        };
        ServerTls::new(source, clients, protocol).map(Arc::new)
    }
}
