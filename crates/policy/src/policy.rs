//! A policy: the budgets in force, and where a request's tenant comes from.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_ledger::{Amount, BudgetRule, Unit, Window};

use crate::error::{MatchError, PolicyError};
use crate::file::{
    BudgetDocument, BudgetSpec, Head, IdentityDocument, SubjectPartSpec, TenantSpec, WindowSpec,
};
use crate::subject::{self, SubjectPart};
use crate::{BUDGETS_MAX, DOCUMENT_MAX_BYTES};

const API_VERSION: &str = "quorate.dev/v1alpha1";
const NAME_MAX_BYTES: usize = 128;
const SUBJECT_MAX_BYTES: usize = 512;
const SUBJECT_PARTS_MAX: usize = 8;

/// A rule: who it applies to, what it counts, limit and window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    /// `None`: every tenant, each with its own accounts.
    pub tenant: Option<String>,
    /// Empty: one account for the tenant.
    pub subject: Vec<SubjectPart>,
    pub unit: Unit,
    pub limit: Amount,
    pub window: Window,
    /// Output tokens reserved for a request that names no limit of its own.
    pub output_default: u64,
    /// The fewest output tokens such a request is admitted with.
    pub output_floor: u64,
}

/// A budget that a request is charged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetMatch {
    pub budget: Arc<Budget>,
    pub subject: String,
}

#[derive(Debug, Clone)]
pub struct Policy {
    pub budgets: Vec<Arc<Budget>>,
    tenant: TenantSpec,
    warnings: Vec<String>,
}

impl Policy {
    /// # Errors
    /// Names document, line, column and the nearest known name. Nothing is taken of a file with one mistake.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > DOCUMENT_MAX_BYTES {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let mut policy = Self { budgets: Vec::new(), tenant: TenantSpec::default(), warnings: Vec::new() };
        let mut identities = 0;
        let mut names = BTreeSet::new();
        for (index, document) in documents(text).into_iter().enumerate() {
            let number = index + 1;
            match document.kind(number)?.as_str() {
                "Budget" => {
                    let budget = budget(number, document.parse(number)?)?;
                    if !names.insert(budget.name.clone()) {
                        return Err(PolicyError::field(
                            number,
                            "metadata.name",
                            format!("budget {} stands twice", budget.name),
                        ));
                    }
                    policy.budgets.push(Arc::new(budget));
                }
                "Identity" => {
                    identities += 1;
                    if identities > 1 {
                        return Err(PolicyError::field(number, "kind", "a policy has at most one Identity"));
                    }
                    policy.tenant = identity(number, document.parse(number)?)?;
                }
                other => {
                    return Err(PolicyError::unknown(number, "kind", "kind", other, &["Budget", "Identity"]));
                }
            }
        }
        if policy.budgets.len() > BUDGETS_MAX {
            let message = format!("{} budgets, at most {BUDGETS_MAX} are allowed", policy.budgets.len());
            return Err(PolicyError::field(policy.budgets.len(), "kind", message));
        }
        policy.warnings = policy.find_warnings();
        Ok(policy)
    }

    /// What the ledger enforces of it.
    pub fn rules(&self) -> Vec<BudgetRule> {
        let rule = |budget: &Arc<Budget>| BudgetRule {
            name: budget.name.clone(),
            tenant: budget.tenant.clone(),
            unit: budget.unit,
            limit: budget.limit,
            window: budget.window,
        };
        self.budgets.iter().map(rule).collect()
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The tenant of a request. `header` looks a header up by its name in lower case.
    ///
    /// # Errors
    /// The header is missing and there is no default, or its value is no tenant's name.
    pub fn tenant_of(&self, header: impl Fn(&str) -> Option<String>) -> Result<String, MatchError> {
        let name = &self.tenant.header;
        let value = header(name).filter(|value| !value.is_empty()).or_else(|| self.tenant.default.clone());
        let value = value.ok_or_else(|| MatchError::NoTenant { header: name.clone() })?;
        if value.len() > NAME_MAX_BYTES || value.chars().any(char::is_control) {
            return Err(MatchError::BadTenant { header: name.clone(), bytes: value.len() });
        }
        Ok(value)
    }

    /// Every budget that a request of this tenant for this model is charged to, in the order of the file.
    ///
    /// # Errors
    /// A subject longer than 512 bytes.
    pub fn matching(
        &self,
        tenant: &str,
        model: &str,
        header: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<BudgetMatch>, MatchError> {
        let applies = |budget: &&Arc<Budget>| budget.tenant.as_deref().is_none_or(|only| only == tenant);
        let place = |budget: &Arc<Budget>| {
            let subject = subject::join(budget.subject.iter().map(|part| match part {
                SubjectPart::Header(name) => header(name).unwrap_or_default(),
                SubjectPart::Model => model.to_owned(),
            }));
            if subject.len() > SUBJECT_MAX_BYTES {
                return Err(MatchError::SubjectTooLong { budget: budget.name.clone(), bytes: subject.len() });
            }
            Ok(BudgetMatch { budget: budget.clone(), subject })
        };
        self.budgets.iter().filter(applies).map(place).collect()
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.budgets.is_empty() {
            warnings.push("the policy has no budgets: every request passes uncounted".to_owned());
        }
        for budget in &self.budgets {
            let least = Amount::from_units(budget.output_floor).unwrap_or(Amount::MAX);
            if budget.limit < least {
                warnings.push(format!("budget {}: the limit is below output.floor, so a request without max_tokens is always denied", budget.name));
            }
        }
        warnings
    }
}

/// One YAML document of a file, with the text it came from for the line numbers of errors.
struct Document<'a> {
    text: &'a str,
    /// Lines of the file before this document.
    lines_before: usize,
}

/// Splits at lines that are `---`: so that every error's line can be told in the file's own count.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut offset, mut lines_before) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            documents.push(Document { text: &text[start..offset], lines_before });
            start = offset + line.len();
            lines_before = number + 1;
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before });
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    documents.retain(|document| !document.text.lines().all(blank));
    documents
}

impl Document<'_> {
    fn kind(&self, number: usize) -> Result<String, PolicyError> {
        let head: Head = self.parse(number)?;
        if head.api_version != API_VERSION {
            return Err(PolicyError::unknown(
                number,
                "apiVersion",
                "apiVersion",
                &head.api_version,
                &[API_VERSION],
            ));
        }
        Ok(head.kind)
    }

    fn parse<'de, T: serde::Deserialize<'de>>(&'de self, number: usize) -> Result<T, PolicyError> {
        T::deserialize(serde_yaml_ng::Deserializer::from_str(self.text))
            .map_err(|error| PolicyError::yaml(number, self.lines_before, &error))
    }
}

fn budget(number: usize, document: BudgetDocument) -> Result<Budget, PolicyError> {
    let BudgetSpec { tenant, subject, limit, window, output } = document.spec;
    check_name(number, "metadata.name", &document.metadata.name)?;
    if let Some(tenant) = &tenant {
        check_name(number, "spec.tenant", tenant)?;
    }
    if subject.len() > SUBJECT_PARTS_MAX {
        return Err(PolicyError::field(number, "spec.subject", format!("at most {SUBJECT_PARTS_MAX} parts")));
    }
    if limit.tokens == 0 {
        return Err(PolicyError::field(
            number,
            "spec.limit.tokens",
            "is 0; a budget allows at least one token",
        ));
    }
    let limit = Amount::from_units(limit.tokens)
        .map_err(|error| PolicyError::field(number, "spec.limit.tokens", error.to_string()))?;
    if output.default == 0
        || output.floor == 0
        || output.floor > output.default
        || output.default > 10_000_000
    {
        return Err(PolicyError::field(number, "spec.output", "wanted: 1 <= floor <= default <= 10000000"));
    }
    let parts = subject.into_iter().enumerate().map(|(index, part)| subject_part(number, index, part));
    Ok(Budget {
        name: document.metadata.name,
        tenant,
        subject: parts.collect::<Result<_, _>>()?,
        unit: Unit::Tokens,
        limit,
        window: ledger_window(window),
        output_default: output.default,
        output_floor: output.floor,
    })
}

fn subject_part(number: usize, index: usize, part: SubjectPartSpec) -> Result<SubjectPart, PolicyError> {
    let path = format!("spec.subject[{index}]");
    match part {
        SubjectPartSpec::Word(word) if word == "model" => Ok(SubjectPart::Model),
        SubjectPartSpec::Word(word) => {
            Err(PolicyError::unknown(number, &path, "part", &word, &["model", "header: NAME"]))
        }
        SubjectPartSpec::Header(spec) => Ok(SubjectPart::Header(check_header(number, &path, &spec.header)?)),
    }
}

fn identity(number: usize, document: IdentityDocument) -> Result<TenantSpec, PolicyError> {
    let tenant = document.spec.tenant;
    let header = check_header(number, "spec.tenant.header", &tenant.header)?;
    if let Some(default) = &tenant.default {
        check_name(number, "spec.tenant.default", default)?;
    }
    Ok(TenantSpec { header, default: tenant.default })
}

/// The name in lower case, as HTTP/2 has it.
fn check_header(number: usize, path: &str, name: &str) -> Result<String, PolicyError> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.chars().all(token) {
        return Err(PolicyError::field(number, path, format!("{name:?} is no header name")));
    }
    Ok(name.to_ascii_lowercase())
}

fn check_name(number: usize, path: &str, name: &str) -> Result<(), PolicyError> {
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        return Err(PolicyError::field(
            number,
            path,
            format!("wanted: 1 to {NAME_MAX_BYTES} bytes without control characters"),
        ));
    }
    Ok(())
}

fn ledger_window(window: WindowSpec) -> Window {
    match window {
        WindowSpec::Second => Window::Second,
        WindowSpec::Minute => Window::Minute,
        WindowSpec::Hour => Window::Hour,
        WindowSpec::Day => Window::Day,
        WindowSpec::Week => Window::Week,
        WindowSpec::Month => Window::Month,
        WindowSpec::Year => Window::Year,
        WindowSpec::Lifetime => Window::Lifetime,
    }
}
