//! Backends: one configured endpoint of a provider each. References to secrets only, never a value.

/// One endpoint of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    /// `namespace/name`.
    pub name: String,
    pub provider: ProviderKind,
    /// `None`: the provider's own public one.
    pub endpoint: Option<Endpoint>,
    /// Before the paths of the provider's API, such as `/v1`.
    pub path_prefix: Option<String>,
    /// Of the API, such as Azure's `2025-01-01-preview`.
    pub schema_version: Option<String>,
    /// How its certificate is checked; `None`: for the endpoint's host, against the public roots.
    pub tls: Option<TlsSpec>,
    pub auth: Option<AuthSpec>,
}

/// The API that a backend speaks: the schemas of AIServiceBackend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    OpenAI,
    Anthropic,
    AWSBedrock,
    AzureOpenAI,
    Cohere,
    GCPVertexAI,
    GCPAnthropic,
    AWSAnthropic,
}

impl ProviderKind {
    /// `OpenAI` … `AWSAnthropic`, as manifests say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAI => "OpenAI",
            Self::Anthropic => "Anthropic",
            Self::AWSBedrock => "AWSBedrock",
            Self::AzureOpenAI => "AzureOpenAI",
            Self::Cohere => "Cohere",
            Self::GCPVertexAI => "GCPVertexAI",
            Self::GCPAnthropic => "GCPAnthropic",
            Self::AWSAnthropic => "AWSAnthropic",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

/// What a backend's certificate must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSpec {
    /// The name that is asked for and that the certificate must have; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// Certificates of the only authorities that count, in PEM; empty: the public roots.
    pub roots: Vec<SecretRef>,
}

/// How a gateway proves itself to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthSpec {
    /// In the header that the provider wants (`authorization`, `api-key`, `x-api-key`).
    ApiKey {
        secret: SecretRef,
    },
    /// `secret`: a credentials file, and the profile in it; `None`: what the gateway's surroundings give.
    Aws {
        region: String,
        secret: Option<SecretRef>,
        /// `None`: `default`.
        profile: Option<String>,
    },
    Azure {
        client_id: String,
        tenant_id: String,
        secret: Option<SecretRef>,
    },
    Gcp {
        project: String,
        region: String,
        secret: Option<SecretRef>,
    },
}

/// Where a secret is found on the gateways.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    pub namespace: String,
    pub name: String,
    pub key: String,
}
