//! The YAML documents of a policy file, each with its place in it, so that an error names the line of the *file*.

use serde::Deserialize;

use crate::error::PolicyError;
use crate::file::{Head, Kind};

/// One document, with the text it came from.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    /// From 1.
    number: usize,
    /// Lines of the file before this document.
    lines_before: usize,
}

/// Splits before every line that begins a document. Documents without content are skipped.
pub(crate) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut starts = vec![(0, 0)];
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if begins_document(line) && offset > 0 {
            starts.push((offset, number));
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset).chain([text.len()]);
    let documents =
        starts.iter().zip(ends).map(|(&(start, lines_before), end)| (&text[start..end], lines_before));
    let full = documents.filter(|(text, _)| !text.lines().all(is_blank));
    full.enumerate()
        .map(|(index, (text, lines_before))| Document { text, number: index + 1, lines_before })
        .collect()
}

/// `---`, alone or before white space (YAML 1.2, section 9.1.2).
fn begins_document(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(line: &str) -> bool {
    let rest = if begins_document(line) { &line[3..] } else { line };
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

impl<'a> Document<'a> {
    pub fn kind(&self) -> Result<Kind, PolicyError> {
        self.parse::<Head>().map(|head| head.kind)
    }

    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, PolicyError> {
        T::deserialize(serde_yaml_ng::Deserializer::from_str(self.text))
            .map_err(|error| PolicyError::yaml(self.number, self.lines_before, &error))
    }

    /// About fields that are each fine but do not fit together.
    pub fn error(&self, path: &str, message: impl AsRef<str>) -> PolicyError {
        let blank = self.text.lines().take_while(|line| is_blank(line)).count();
        PolicyError::field(self.number, self.lines_before + blank + 1, path, message)
    }
}
