//! Why TLS files cannot be used: names the setting, the file and the remedy.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem;
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{setting}: {}: {problem}", file.display())]
pub struct TlsError {
    /// As the user wrote it: `tls.key_file`, `--tls-key`.
    pub setting: &'static str,
    pub file: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("cannot be read: {0}; does it exist, and may this user read it?")]
    Unreadable(String),
    #[error("is larger than {0} bytes; is it a file of certificates in PEM?")]
    TooLarge(u64),
    #[error("is no PEM: {0}")]
    NotPem(&'static str),
    #[error("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    #[error("its certificate cannot be used: {0}")]
    BadCertificate(String),
    #[error("its key cannot be used: {0}; wanted an ECDSA, Ed25519 or RSA key")]
    BadKey(String),
    #[error("does not belong to the certificate; name the key that the certificate was issued for")]
    OtherKey,
    #[error("expired at {0}; issue a new certificate (`quorate certs issue`)")]
    Expired(String),
    #[error("is not valid before {0}; is the clock of this machine right?")]
    NotYet(String),
    #[error("holds no authority's certificate that is valid now; the last one expired at {0}")]
    AuthoritiesExpired(String),
}

/// What is wrong with a file in PEM. Says nothing of what it holds: the library's own words repeat lines of it, and where
/// line breaks are missing such a line is a private key.
pub fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "a line -----BEGIN … or -----END … is missing or not by itself; were line breaks lost?"
        }
        pem::Error::Base64Decode(_) => "what is between BEGIN and END is no base64",
        pem::Error::NoItemsFound => "there is nothing of the kind in it",
        _ => "it cannot be read",
    }
}

impl TlsError {
    pub(crate) fn new(setting: &'static str, file: &Path, problem: Problem) -> Self {
        Self { setting, file: file.to_owned(), problem }
    }
}
