//! Who somebody is by their certificate: CN is the name, each O may name a role.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

const NAME_BYTES_MAX: usize = 128;

/// What a certificate is for. Weaker before stronger among those of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Node,
    Gateway,
    Read,
    Operate,
    Admin,
}

impl Role {
    pub const ALL: [Self; 5] = [Self::Node, Self::Gateway, Self::Read, Self::Operate, Self::Admin];

    /// As it stands on the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The O of a certificate.
    pub fn organization(self) -> String {
        format!("quorate:{}", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The holder of a certificate that an authority of ours has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The CN: printable, never empty.
    pub name: String,
    /// Sorted, each once. Empty: may do nothing that needs a role.
    pub roles: Vec<Role>,
}

impl Identity {
    /// Reads a certificate in DER. Whether to believe it was decided before.
    ///
    /// # Errors
    /// It is no certificate, or its CN is missing, too long or not printable.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let certificate = parse(certificate)?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        let name = name.ok_or("the certificate has no CN, which says whose it is")?;
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(format!(
                "the CN {name:?} of the certificate is no name: wanted 1 to {NAME_BYTES_MAX} printable bytes"
            ));
        }
        Ok(Self { name: name.to_owned(), roles: roles(subject) })
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// `alice (read, operate)`, for messages.
    pub fn described(&self) -> String {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        let roles = if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") };
        format!("{} ({roles})", self.name)
    }
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    pub not_before: String,
    pub not_after: String,
    /// Seconds since 1970.
    pub not_before_s: i64,
    pub not_after_s: i64,
}

impl Validity {
    /// # Errors
    /// It is no certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, String> {
        let certificate = parse(certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            not_before: shown(validity.not_before),
            not_after: shown(validity.not_after),
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
        })
    }

    pub fn is_over(&self) -> bool {
        self.not_after_s <= now_s()
    }

    /// For how long it is still valid.
    pub fn left(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.not_after_s - now_s()).unwrap_or(0))
    }

    pub fn is_to_come(&self) -> bool {
        self.not_before_s > now_s()
    }
}

/// Sorted, each once. An O that names no role counts for nothing.
pub(crate) fn roles(subject: &X509Name<'_>) -> Vec<Role> {
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok());
    let mut roles: Vec<Role> =
        organizations.filter_map(|name| Role::named(name.strip_prefix("quorate:")?)).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

pub(crate) fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|error| format!("not an X.509 certificate: {error}"))
}

fn shown(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
