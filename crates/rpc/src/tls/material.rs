//! Reads and checks the files of a [`TlsSource`]. What is wrong is found here, before any connection.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use crate::tls::error::{Problem, TlsError, pem_problem};
use crate::tls::files::TlsSource;
use crate::tls::identity::Validity;

/// Far more than any chain or bundle of authorities of one's own.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the files hold, unchecked.
pub(crate) struct Contents {
    ca: Option<Vec<u8>>,
    cert: Vec<u8>,
    key: Vec<u8>,
    /// Every user of this machine may read or replace the key.
    pub key_is_exposed: bool,
}

/// Checked: the key belongs to the certificate, which is valid now, as is one authority at least.
#[derive(Debug)]
pub(crate) struct Material {
    /// `None`: the source names no authorities.
    pub roots: Option<Arc<RootCertStore>>,
    pub own: Arc<CertifiedKey>,
    /// When the own certificate expires, in seconds since 1970.
    pub not_after_s: i64,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Contents {
    pub fn read(source: &TlsSource) -> Result<Self, TlsError> {
        Ok(Self {
            key_is_exposed: is_exposed(&source.key_file),
            ca: source.ca_file.as_deref().map(|file| read(source.names.ca, file)).transpose()?,
            cert: read(source.names.cert, &source.cert_file)?,
            key: read(source.names.key, &source.key_file)?,
        })
    }

    /// Tells whether the files changed; not a secret's fingerprint to be shown.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ca, &self.cert, &self.key).hash(&mut hasher);
        hasher.finish()
    }
}

impl Material {
    pub fn check(source: &TlsSource, contents: &Contents) -> Result<Self, TlsError> {
        let roots = match (&source.ca_file, &contents.ca) {
            (Some(file), Some(pem)) => {
                Some(roots(pem).map_err(|problem| TlsError::new(source.names.ca, file, problem))?)
            }
            _ => None,
        };
        let in_cert = |problem| TlsError::new(source.names.cert, &source.cert_file, problem);
        let in_key = |problem| TlsError::new(source.names.key, &source.key_file, problem);
        let chain = certificates(&contents.cert).map_err(in_cert)?;
        let own = chain.first().ok_or_else(|| in_cert(Problem::NoCertificate))?;
        let not_after_s = valid_now(own).map_err(in_cert)?.not_after_s;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| {
            in_key(match error {
                pem::Error::NoItemsFound => Problem::NoKey,
                other => Problem::NotPem(pem_problem(&other)),
            })
        })?;
        let own = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => in_key(Problem::OtherKey),
            rustls::Error::InvalidCertificate(error) => in_cert(Problem::BadCertificate(error.to_string())),
            other => in_key(Problem::BadKey(other.to_string())),
        })?;
        Ok(Self { roots: roots.map(Arc::new), own: Arc::new(own), not_after_s })
    }
}

fn read(setting: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable =
        |error: std::io::Error| TlsError::new(setting, file, Problem::Unreadable(error.to_string()));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::new(setting, file, Problem::TooLarge(FILE_BYTES_MAX)));
    }
    Ok(bytes)
}

/// Not a group's: secrets are handed to services that way.
fn is_exposed(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o006 != 0)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::NotPem(pem_problem(&error)))
}

/// The authorities that are valid now: one that expired stands in the file for nothing, and nobody else looks at its dates.
fn roots(pem: &[u8]) -> Result<RootCertStore, Problem> {
    let mut store = RootCertStore::empty();
    let mut refused = Problem::NoCertificate;
    for certificate in certificates(pem)? {
        match valid_now(&certificate) {
            Err(Problem::Expired(at)) => refused = Problem::AuthoritiesExpired(at),
            Err(other) => refused = other,
            Ok(_) => {
                store.add(certificate).map_err(|error| Problem::BadCertificate(error.to_string()))?;
            }
        }
    }
    if store.is_empty() { Err(refused) } else { Ok(store) }
}

fn valid_now(certificate: &CertificateDer<'_>) -> Result<Validity, Problem> {
    let validity = Validity::of(certificate).map_err(Problem::BadCertificate)?;
    if validity.is_over() {
        return Err(Problem::Expired(validity.not_after));
    }
    if validity.is_to_come() {
        return Err(Problem::NotYet(validity.not_before));
    }
    Ok(validity)
}
