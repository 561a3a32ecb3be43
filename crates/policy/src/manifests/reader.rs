//! Reads a tree by the fields it should have. Every mistake goes to the report with its place and path, and reading goes
//! on: a file with three mistakes shows three.
//!
//! A reader gives `None` for what is wrong (and reported); who builds a value from parts reads all of them first and
//! gives up afterwards.

use std::cell::RefCell;

use crate::manifests::report::Report;
use crate::manifests::yaml::{Node, Scalar, Sort, Value};

/// A node, where it stands in the document, and where mistakes go.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    node: &'a Node,
    path: String,
    report: &'a Report<'a>,
    /// Values under here are secrets: no message quotes them.
    secret: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(node: &'a Node, report: &'a Report<'a>) -> Self {
        Self { node, path: String::new(), report, secret: false }
    }

    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub fn node(&self) -> &'a Node {
        self.node
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn report(&self) -> &'a Report<'a> {
        self.report
    }

    pub fn error(&self, message: impl AsRef<str>) {
        self.report.error(self.node.at, &self.path, message.as_ref());
    }

    /// The message of a value that is wrong; `None`, so that it can end a reader.
    pub fn refuse<T>(&self, message: impl AsRef<str>) -> Option<T> {
        self.error(message);
        None
    }

    pub fn warn(&self, message: impl AsRef<str>) {
        self.report.warn(&format!("{} {}", self.path, message.as_ref()));
    }

    /// Not a map: a mistake.
    pub fn fields(&self) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Map(_) => Some(Fields { cursor: self.clone(), known: RefCell::default() }),
            _ => self.expected("a map of fields"),
        }
    }

    /// Each element, with its number in the path. Not a list: a mistake, and nothing.
    pub fn items(&self, max: usize) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            self.expected::<()>("a list");
            return Vec::new();
        };
        if items.len() > max {
            self.error(format!("{} entries, at most {max} are allowed", items.len()));
            return Vec::new();
        }
        items.iter().enumerate().map(|(index, node)| self.at(node, &format!("[{index}]"))).collect()
    }

    /// Every entry of a map whose keys are free, such as labels.
    pub fn entries(&self) -> Vec<(&'a str, Self)> {
        let Value::Map(entries) = &self.node.value else {
            self.expected::<()>("a map");
            return Vec::new();
        };
        entries.iter().map(|entry| (entry.key.as_str(), self.field(&entry.key, &entry.value))).collect()
    }

    pub fn scalar(&self) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&'a str> {
        match self.scalar() {
            Some(scalar) if scalar.sort == Sort::Text => Some(&scalar.text),
            Some(scalar) if scalar.sort != Sort::Null && !self.secret => self.refuse(format!(
                "expected a text, found {} {}; put it in quotes",
                scalar.sort.name(),
                scalar.text
            )),
            _ => self.expected("a text"),
        }
    }

    pub fn flag(&self) -> Option<bool> {
        match self.scalar() {
            Some(scalar) if scalar.sort == Sort::Bool => Some(scalar.text.eq_ignore_ascii_case("true")),
            _ => self.expected("true or false"),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&self, min: u64, max: u64) -> Option<u64> {
        let number = self.scalar().filter(|scalar| scalar.sort == Sort::Integer);
        let value = number.and_then(|scalar| scalar.text.trim_start_matches('+').parse::<u64>().ok());
        match value {
            Some(value) if (min..=max).contains(&value) => Some(value),
            _ => self.expected(&format!("a whole number from {min} to {max}")),
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let word = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.unknown(word, &names)
    }

    /// A word that is none of those known here.
    pub fn unknown<T>(&self, word: &str, known: &[&str]) -> Option<T> {
        let message = match known {
            [only] => format!("unknown value `{word}`, expected {only}"),
            [] | [_, ..] if known.len() > 12 => format!("unknown value `{word}`"),
            _ => format!("unknown value `{word}`, expected one of {}", known.join(", ")),
        };
        self.report.unknown(self.node.at, &self.path, &message, word, known);
        None
    }

    /// Says what stands here in place of what should.
    pub fn expected<T>(&self, what: &str) -> Option<T> {
        match self.scalar() {
            Some(scalar) if !self.secret && !scalar.is_null() => {
                self.refuse(format!("expected {what}, found {} `{}`", scalar.sort.name(), scalar.text))
            }
            _ => self.refuse(format!("expected {what}, found {}", self.node.sort_name())),
        }
    }

    fn at(&self, node: &'a Node, segment: &str) -> Self {
        Self { node, path: format!("{}{segment}", self.path), report: self.report, secret: self.secret }
    }

    fn field(&self, name: &str, node: &'a Node) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
        let segment = if plain { format!("{dot}{name}") } else { format!("[{name:?}]") };
        self.at(node, &segment)
    }
}

/// The fields of a map. Asking for a name makes it known; what nobody asked for is an unknown field.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    cursor: Cursor<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// `None`: absent, or nothing written.
    pub fn get(&self, name: &'static str) -> Option<Cursor<'a>> {
        self.known.borrow_mut().push(name);
        let node = self.cursor.node.get(name).filter(|node| !node.is_null())?;
        Some(self.cursor.field(name, node))
    }

    /// Absent: a mistake.
    pub fn need(&self, name: &'static str) -> Option<Cursor<'a>> {
        let found = self.get(name);
        if found.is_none() {
            self.cursor.error(format!("field {name} is missing"));
        }
        found
    }

    /// The elements of a list that may be absent.
    pub fn list(&self, name: &'static str, max: usize) -> Vec<Cursor<'a>> {
        self.get(name).map(|list| list.items(max)).unwrap_or_default()
    }

    /// Absent: `false`.
    pub fn flag(&self, name: &'static str) -> bool {
        self.get(name).and_then(|value| value.flag()).unwrap_or(false)
    }

    /// Fields that are in order but that nothing here acts on: a warning each.
    pub fn without_effect(&self, names: &[&'static str]) {
        for name in names {
            if let Some(value) = self.get(name) {
                value.warn("has no effect here");
            }
        }
    }

    /// A field that would change what requests are let through, and that nothing here can act on.
    pub fn unsupported(&self, name: &'static str, remedy: &str) {
        if let Some(value) = self.get(name) {
            value.error(format!("is not supported; {remedy}"));
        }
    }

    pub fn cursor(&self) -> &Cursor<'a> {
        &self.cursor
    }

    /// Reports what nobody asked for.
    pub fn done(&self) {
        let known = self.known.borrow();
        for entry in self.cursor.node.entries() {
            if !known.contains(&entry.key.as_str()) {
                let path = self.cursor.field(&entry.key, &entry.value).path;
                self.cursor.report.unknown_field(entry.at, &path, &entry.key, &known);
            }
        }
    }
}
