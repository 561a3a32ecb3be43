//! What a certificate says, for people.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;

use crate::tls::error::pem_problem;
use crate::tls::identity::{Role, Validity, parse, roles};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub name: String,
    pub roles: Vec<Role>,
    /// Names and addresses of a server.
    pub hosts: Vec<String>,
    /// The CN of who signed it.
    pub issuer: String,
    pub is_authority: bool,
    pub validity: Validity,
}

impl Shown {
    /// Every certificate of a file in PEM.
    ///
    /// # Errors
    /// It holds none, or something that is none.
    pub fn all(pem: &[u8]) -> Result<Vec<Self>, String> {
        let found: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|error| format!("no PEM: {}", pem_problem(&error)))?;
        if found.is_empty() {
            return Err("no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned());
        }
        found.iter().map(|certificate| Self::of(certificate)).collect()
    }

    fn of(certificate: &[u8]) -> Result<Self, String> {
        let validity = Validity::of(certificate)?;
        let certificate = parse(certificate)?;
        let name = |name: &x509_parser::x509::X509Name<'_>| {
            let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
            common.unwrap_or_default().escape_debug().to_string()
        };
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let hosts = alternatives.map(|names| names.value.general_names.iter().filter_map(host).collect());
        Ok(Self {
            name: name(certificate.subject()),
            roles: roles(certificate.subject()),
            hosts: hosts.unwrap_or_default(),
            issuer: name(certificate.issuer()),
            is_authority: certificate.is_ca(),
            validity,
        })
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.escape_debug().to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}
