//! Which certificates of backends are believed: those of the public authorities, or of one's own. There is no way to
//! leave them unchecked.

use std::{error::Error, io, sync::Arc};

use quorate_rpc::tls::pem_problem;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// How a backend's certificate is checked. Equal settings share their connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// The only authorities that count, in DER; empty: the public ones.
    roots: Vec<Vec<u8>>,
    /// Asked for, and in the certificate; `None`: the host of the URL.
    server_name: Option<String>,
}

impl Tls {
    /// `server_name`: a name or an address.
    pub(crate) fn new(roots: Vec<Vec<u8>>, server_name: Option<String>) -> Result<Self, String> {
        let tls = Self { roots, server_name };
        tls.server_name()?;
        tls.client_config()?;
        Ok(tls)
    }

    /// Certificates in PEM. `place` is for errors.
    pub(crate) fn certificates(pem: &[u8], place: &str) -> Result<Vec<Vec<u8>>, String> {
        let read: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = read.map_err(|error| format!("{place} is no PEM: {}", pem_problem(&error)))?;
        if found.is_empty() {
            return Err(format!("{place} holds no certificate in PEM"));
        }
        Ok(found.into_iter().map(|certificate| certificate.to_vec()).collect())
    }

    pub(crate) fn server_name(&self) -> Result<Option<ServerName<'static>>, String> {
        let parse = |name: &String| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("`{name}` is no name that a certificate can have"))
        };
        self.server_name.as_ref().map(parse).transpose()
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, String> {
        let mut store = RootCertStore::empty();
        if self.roots.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for root in &self.roots {
            store
                .add(CertificateDer::from(root.clone()))
                .map_err(|error| format!("a certificate of its authorities cannot be used: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS is not available: {error}"))?;
        Ok(config.with_root_certificates(store).with_no_client_auth())
    }
}

/// What to do about a certificate that was refused.
pub(crate) fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    // An io::Error stands for what it holds, and passes it over as a source.
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return remedy(inner);
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(
            "name its authority in ca_file, or in caCertificateRefs of a BackendTLSPolicy, if it is one of your own",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(
            "name what the certificate is for in tls_server_name, or in the hostname of a BackendTLSPolicy",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_with_its_place() {
        for (pem, said) in [
            ("", "file f holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "file f is no PEM"),
        ] {
            let error = Tls::certificates(pem.as_bytes(), "file f").unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(Tls::new(vec![b"junk".to_vec()], None).unwrap_err().contains("cannot be used"));
        assert!(Tls::new(Vec::new(), Some("a b".to_owned())).unwrap_err().contains("`a b`"));
        assert!(Tls::new(Vec::new(), Some("llm.internal".to_owned())).is_ok());
    }
}
