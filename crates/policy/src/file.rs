//! The shape of a policy file, as serde sees it. Unknown fields are errors.

use serde::Deserialize;

/// First look at a document: which kind is it?
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    pub api_version: String,
    pub kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BudgetDocument {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub metadata: Metadata,
    pub spec: BudgetSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetSpec {
    pub tenant: Option<String>,
    #[serde(default)]
    pub subject: Vec<SubjectPartSpec>,
    pub limit: LimitSpec,
    pub window: WindowSpec,
    #[serde(default)]
    pub output: OutputSpec,
}

/// `- model` or `- header: x-user-id`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SubjectPartSpec {
    Word(String),
    Header(HeaderSpec),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderSpec {
    pub header: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitSpec {
    pub tokens: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum WindowSpec {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
    Lifetime,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OutputSpec {
    pub default: u64,
    pub floor: u64,
}

impl Default for OutputSpec {
    fn default() -> Self {
        Self { default: 1024, floor: 16 }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityDocument {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub spec: IdentitySpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentitySpec {
    pub tenant: TenantSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantSpec {
    #[serde(default = "default_tenant_header")]
    pub header: String,
    pub default: Option<String>,
}

fn default_tenant_header() -> String {
    "x-tenant-id".to_owned()
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self { header: default_tenant_header(), default: Some("default".to_owned()) }
    }
}
