//! A small authority of one's own: makes the certificates of a deployment, for `quorate certs` and for tests. ECDSA P-256.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::tls::error::pem_problem;
use crate::tls::identity::{Role, Validity};
use crate::tls::material::provider;

pub const CERTIFICATE_DAYS: u32 = 365;
const AUTHORITY_DAYS: u32 = 3_650;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Error)]
pub enum IssueError {
    #[error("`{0}` is no host: wanted a DNS name or an IP address")]
    Host(String),
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    #[error("cannot issue a certificate: {0}")]
    Failed(#[from] rcgen::Error),
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The CN.
    pub name: String,
    pub role: Role,
    /// DNS names and IP addresses under which it is reached; none for those that only call.
    pub hosts: Vec<String>,
    pub days: u32,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// # Errors
    /// No key can be made.
    pub fn new(name: &str) -> Result<Self, IssueError> {
        let mut params = params(name, None, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Goes on with an authority that was made before, from its PEM files.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let unusable = |problem: &dyn ToString| IssueError::Authority(problem.to_string());
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| unusable(&pem_problem(&error)))?;
        let validity = Validity::of(&der).map_err(|error| unusable(&error))?;
        if validity.is_over() {
            return Err(unusable(&format!(
                "its certificate expired at {}; make another",
                validity.not_after
            )));
        }
        let secret =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&pem_problem(&error)))?;
        CertifiedKey::from_der(vec![der], secret, &provider())
            .map_err(|error| unusable(&format!("{error}; does the key belong to the certificate?")))?;
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    /// In PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// In PEM. Whoever has it can be anybody.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// # Errors
    /// A host is none.
    pub fn issue(&self, subject: &Subject) -> Result<Issued, IssueError> {
        let mut params = params(&subject.name, Some(subject.role), subject.days);
        for host in &subject.hosts {
            let named = CertificateParams::new(vec![host.clone()]);
            params
                .subject_alt_names
                .extend(named.map_err(|_| IssueError::Host(host.clone()))?.subject_alt_names);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn params(name: &str, role: Option<Role>, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(role) = role {
        params.distinguished_name.push(DnType::OrganizationName, role.organization());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + DAY * days;
    params
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}
