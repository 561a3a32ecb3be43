//! The shape of a policy file, as serde sees it. Unknown fields are errors.
//!
//! What one field alone can get wrong is checked while it is read, because only then are line and column known.

use std::fmt;

use quorate_ledger::Window;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::field::{ApiVersion, HeaderName, Name, Text, Tokens};
use crate::subject::SubjectPart;

/// First look at a document: which kind is it?
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    #[serde(rename = "apiVersion")]
    _api_version: Text<ApiVersion>,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum Kind {
    Budget,
    Identity,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetDocument {
    #[serde(rename = "apiVersion")]
    _api_version: Text<ApiVersion>,
    #[serde(rename = "kind")]
    _kind: Kind,
    pub metadata: Metadata,
    pub spec: BudgetSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    pub name: Text<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetSpec {
    pub tenant: Option<Text<Name>>,
    #[serde(default)]
    pub subject: Vec<SubjectPart>,
    pub limit: LimitSpec,
    pub window: WindowSpec,
    #[serde(default)]
    pub output: OutputSpec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitSpec {
    pub tokens: Tokens,
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

impl From<WindowSpec> for Window {
    fn from(window: WindowSpec) -> Self {
        match window {
            WindowSpec::Second => Self::Second,
            WindowSpec::Minute => Self::Minute,
            WindowSpec::Hour => Self::Hour,
            WindowSpec::Day => Self::Day,
            WindowSpec::Week => Self::Week,
            WindowSpec::Month => Self::Month,
            WindowSpec::Year => Self::Year,
            WindowSpec::Lifetime => Self::Lifetime,
        }
    }
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
    _api_version: Text<ApiVersion>,
    #[serde(rename = "kind")]
    _kind: Kind,
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
    pub header: Text<HeaderName>,
    pub default: Option<Text<Name>>,
}

fn default_tenant_header() -> Text<HeaderName> {
    Text::known("x-tenant-id")
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self { header: default_tenant_header(), default: Some(Text::known("default")) }
    }
}

impl<'de> Deserialize<'de> for SubjectPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SubjectPartVisitor)
    }
}

/// `model` or `header: x-user-id`.
struct SubjectPartVisitor;

impl<'de> Visitor<'de> for SubjectPartVisitor {
    type Value = SubjectPart;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`model` or `header: NAME`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<SubjectPart, E> {
        match word {
            "model" => Ok(SubjectPart::Model),
            "header" => Err(E::custom("header needs a name: `header: x-user-id`")),
            other => Err(E::unknown_variant(other, &["model", "header: NAME"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SubjectPart, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct HeaderPart {
            header: Text<HeaderName>,
        }
        let part = HeaderPart::deserialize(MapAccessDeserializer::new(map))?;
        Ok(SubjectPart::Header(part.header.value))
    }
}
