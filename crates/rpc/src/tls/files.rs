//! Where certificates are kept, and what the settings that say so are called.

use std::path::PathBuf;

use serde::Deserialize;

/// The files of mutual TLS, all in PEM. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The authorities whose certificates are believed; several while one replaces the other.
    pub ca_file: PathBuf,
    /// This process's own certificate, followed by those between it and the authority, if there are any.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// What the three settings are called where the user wrote them; for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    pub ca: &'static str,
    pub cert: &'static str,
    pub key: &'static str,
}

impl Names {
    /// The section `tls` of a config.
    pub const TLS: Self = Self { ca: "tls.ca_file", cert: "tls.cert_file", key: "tls.key_file" };
    /// How a gateway speaks to the cluster.
    pub const CLUSTER_TLS: Self =
        Self { ca: "cluster_tls.ca_file", cert: "cluster_tls.cert_file", key: "cluster_tls.key_file" };
    pub const COMMAND_LINE: Self = Self { ca: "--tls-ca", cert: "--tls-cert", key: "--tls-key" };
}

/// Files and what their settings are called. A server that asks for no client certificate needs no authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSource {
    pub ca_file: Option<PathBuf>,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub names: Names,
}

impl TlsFiles {
    #[must_use]
    pub fn named(&self, names: Names) -> TlsSource {
        TlsSource {
            ca_file: Some(self.ca_file.clone()),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            names,
        }
    }
}
