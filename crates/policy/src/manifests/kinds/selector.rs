//! Which requests a rule counts, and what separates their accounts: `clientSelectors`, read straight into conditions.
//!
//! All parts of a selector must hold, and all selectors of a rule (Envoy Gateway appends the matches of each to one
//! rule). `Distinct` is no condition: it gives each value an account of its own.

use crate::manifests::reader::{Cursor, Fields};
use crate::manifests::values;
use crate::runtime::{Attribute, Condition, MODEL_HEADER, MethodMatch, PathMatch, SubjectPart, TextMatch};

/// Conditions and subject of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientSelector {
    pub conditions: Vec<Condition>,
    pub subject: Vec<SubjectPart>,
}

#[derive(Clone, Copy)]
enum How {
    Exact,
    Pattern,
    Distinct,
}

const SELECTORS_MAX: usize = 8;
const HEADERS_MAX: usize = 128;
const QUERY_PARAMS_MAX: usize = 16;
const TEXT_TYPES: [(&str, How); 3] =
    [("Exact", How::Exact), ("RegularExpression", How::Pattern), ("Distinct", How::Distinct)];
const METHODS: [(&str, &str); 9] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

impl ClientSelector {
    /// The field `clientSelectors`, which may be absent: every request.
    pub fn read_all(fields: &Fields<'_>) -> Self {
        let mut selector = Self::default();
        for one in fields.list("clientSelectors", SELECTORS_MAX) {
            let mistakes = one.report().mistakes();
            let mut own = Self::default();
            if let Some(fields) = one.fields() {
                own.read(&fields);
                fields.done();
            }
            if own == Self::default() && one.report().mistakes() == mistakes {
                one.error("selects nothing; give headers, methods, path, sourceCIDR or queryParams");
            }
            selector.conditions.append(&mut own.conditions);
            own.subject.into_iter().for_each(|part| selector.subject(part));
        }
        selector
    }

    /// Adds what a map with the fields of one selector says.
    pub fn read(&mut self, fields: &Fields<'_>) {
        for header in fields.list("headers", HEADERS_MAX) {
            self.text(&header, values::header, |name| {
                if name == MODEL_HEADER {
                    (Attribute::Header(name.clone()), SubjectPart::Model)
                } else {
                    (Attribute::Header(name.clone()), SubjectPart::Header(name))
                }
            });
        }
        self.methods(&fields.list("methods", METHODS.len()));
        if let Some(path) = fields.get("path") {
            self.conditions.extend(path_condition(&path));
        }
        if let Some(source) = fields.get("sourceCIDR") {
            self.source(&source);
        }
        for parameter in fields.list("queryParams", QUERY_PARAMS_MAX) {
            self.text(&parameter, values::name, |name| {
                (Attribute::Query(name.clone()), SubjectPart::Query(name))
            });
        }
    }

    /// `{name, type, value, invert}`
    fn text(
        &mut self,
        at: &Cursor<'_>,
        read_name: impl Fn(&Cursor<'_>) -> Option<String>,
        parts: impl Fn(String) -> (Attribute, SubjectPart),
    ) {
        let Some(fields) = at.fields() else { return };
        let name = fields.need("name").and_then(|name| read_name(&name));
        let how = match fields.get("type") {
            Some(how) => how.choice(&TEXT_TYPES),
            None => Some(How::Exact),
        };
        let value = fields.get("value");
        let invert = fields.flag("invert");
        fields.done();
        let (Some(name), Some(how)) = (name, how) else { return };
        let (attribute, part) = parts(name);
        let value = match (how, value) {
            (How::Distinct, value) => {
                if invert {
                    at.error("Distinct cannot be inverted; leave invert out");
                }
                if let Some(value) = value {
                    value.warn("has no effect with Distinct");
                }
                self.subject(part);
                return;
            }
            (_, None) => {
                at.error("field value is missing; only Distinct needs none");
                return;
            }
            (How::Exact, Some(value)) => values::match_value(&value).map(TextMatch::Exact),
            (How::Pattern, Some(value)) => values::pattern(&value).map(TextMatch::Pattern),
        };
        self.conditions.extend(value.map(|value| Condition::Text { attribute, value, invert }));
    }

    fn methods(&mut self, methods: &[Cursor<'_>]) {
        let read = |method: &Cursor<'_>| {
            // Both `GET` and `{value: GET, invert: false}`.
            if method.scalar().is_some() {
                let method = method.choice(&METHODS)?.to_owned();
                return Some(MethodMatch { method, invert: false });
            }
            let fields = method.fields()?;
            let value = fields.need("value").and_then(|value| value.choice(&METHODS));
            let invert = fields.flag("invert");
            fields.done();
            Some(MethodMatch { method: value?.to_owned(), invert })
        };
        let methods: Vec<MethodMatch> = methods.iter().filter_map(read).collect();
        if !methods.is_empty() {
            self.conditions.push(Condition::Methods(methods));
        }
    }

    fn source(&mut self, at: &Cursor<'_>) {
        let Some(fields) = at.fields() else { return };
        let distinct = match fields.get("type") {
            Some(how) => how.choice(&[("Exact", false), ("Distinct", true)]),
            None => Some(false),
        };
        let within = fields.need("value").and_then(|value| values::cidr(&value));
        let invert = fields.flag("invert");
        fields.done();
        if let (Some(distinct), Some(within)) = (distinct, within) {
            self.conditions.push(Condition::Source { within, invert });
            if distinct {
                self.subject(SubjectPart::Source);
            }
        }
    }

    fn subject(&mut self, part: SubjectPart) {
        if !self.subject.contains(&part) {
            self.subject.push(part);
        }
    }

    /// What the conditions compare exactly, in order: the names of people, teams and models, for a budget's name.
    pub fn exact_values(&self) -> Vec<&str> {
        self.conditions
            .iter()
            .filter_map(|condition| match condition {
                Condition::Text { value: TextMatch::Exact(value), invert: false, .. } => Some(value.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// `{type, value, invert}`; the type is PathPrefix unless it says otherwise.
fn path_condition(at: &Cursor<'_>) -> Option<Condition> {
    #[derive(Clone, Copy)]
    enum PathType {
        Exact,
        Prefix,
        Pattern,
    }
    const TYPES: [(&str, PathType); 3] = [
        ("Exact", PathType::Exact),
        ("PathPrefix", PathType::Prefix),
        ("RegularExpression", PathType::Pattern),
    ];
    let fields = at.fields()?;
    let how = match fields.get("type") {
        Some(how) => how.choice(&TYPES),
        None => Some(PathType::Prefix),
    };
    let value = fields.need("value");
    let invert = fields.flag("invert");
    fields.done();
    let (how, value) = (how?, value?);
    let value = match how {
        PathType::Pattern => PathMatch::Pattern(values::pattern(&value)?),
        PathType::Exact => PathMatch::Exact(absolute(&value)?),
        PathType::Prefix => PathMatch::Prefix(absolute(&value)?),
    };
    Some(Condition::Path { value, invert })
}

fn absolute(at: &Cursor<'_>) -> Option<String> {
    let path = values::match_value(at)?;
    if path.starts_with('/') { Some(path) } else { at.refuse("a path begins with `/`") }
}
