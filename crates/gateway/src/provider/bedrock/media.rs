//! Images and documents: their formats, and the names that Bedrock takes.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde::Serialize;

use crate::provider::{conversation::Source, reply::Unsupported};

const NAME_CHARS_MAX: usize = 200;

#[derive(Debug, Serialize)]
pub(super) struct Image<'a> {
    format: &'static str,
    source: Bytes<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    format: &'static str,
    name: String,
    source: Bytes<'a>,
}

/// In base64.
#[derive(Debug, Serialize)]
struct Bytes<'a> {
    bytes: std::borrow::Cow<'a, str>,
}

pub(super) fn image(source: &Source) -> Result<Image<'_>, Unsupported> {
    let Source::Base64 { media_type, data } = source else {
        return Err(refused(
            "hold an image by its URL, which Bedrock does not fetch; send the image in base64",
        ));
    };
    let format = match media_type.to_ascii_lowercase().as_str() {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => {
            return Err(refused(&format!(
                "hold an image of type `{}`; Bedrock takes image/png, image/jpeg, image/gif and image/webp",
                short(media_type)
            )));
        }
    };
    Ok(Image { format, source: Bytes { bytes: data.as_str().into() } })
}

fn document_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type.to_ascii_lowercase().split(';').next().unwrap_or("").trim() {
        "application/pdf" => "pdf",
        "text/csv" => "csv",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "text/html" => "html",
        "text/plain" => "txt",
        "text/markdown" => "md",
        _ => return None,
    })
}

/// The names of a request's documents: each one only once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub(super) fn document<'a>(
        &mut self,
        source: &'a Source,
        name: Option<&str>,
    ) -> Result<Document<'a>, Unsupported> {
        let (format, bytes) = match source {
            Source::Base64 { media_type, data } => {
                let format = document_format(media_type).ok_or_else(|| {
                    refused(&format!(
                        "hold a document of type `{}`; Bedrock takes PDF, CSV, Word, Excel, HTML, Markdown and plain text",
                        short(media_type)
                    ))
                })?;
                (format, data.as_str().into())
            }
            Source::Text(text) => ("txt", base64::engine::general_purpose::STANDARD.encode(text).into()),
            Source::Url(_) => {
                return Err(refused(
                    "hold a document by its URL, which Bedrock does not fetch; send the document in base64",
                ));
            }
        };
        Ok(Document { format, name: self.unique(name.unwrap_or("")), source: Bytes { bytes } })
    }

    fn unique(&mut self, name: &str) -> String {
        let clean = clean(name);
        let mut unique = clean.clone();
        let mut number = 1;
        while !self.0.insert(unique.clone()) {
            number += 1;
            unique = format!("{clean}-{number}");
        }
        unique
    }
}

/// Letters, digits, hyphens, parentheses, brackets and single spaces: what else there is becomes a hyphen.
fn clean(name: &str) -> String {
    let mut clean = String::new();
    // Room for the number of the name.
    for char in name.trim().chars().take(NAME_CHARS_MAX - 12) {
        match char {
            _ if char.is_whitespace() => {
                if !clean.ends_with(' ') {
                    clean.push(' ');
                }
            }
            '(' | ')' | '[' | ']' => clean.push(char),
            _ if char.is_ascii_alphanumeric() => clean.push(char),
            _ => clean.push('-'),
        }
    }
    let clean = clean.trim();
    if clean.is_empty() { "document".to_owned() } else { clean.to_owned() }
}

fn refused(why: &str) -> Unsupported {
    Unsupported { param: "messages".to_owned(), why: why.to_owned() }
}

/// Of something that a client wrote, in a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(media_type: &str) -> Source {
        Source::Base64 { media_type: media_type.to_owned(), data: "aGk=".to_owned() }
    }

    #[test]
    fn formats() {
        for (media_type, format) in
            [("image/png", "png"), ("image/jpg", "jpeg"), ("IMAGE/JPEG", "jpeg"), ("image/webp", "webp")]
        {
            assert_eq!(image(&base64(media_type)).unwrap().format, format);
        }
        for source in [base64("image/tiff"), Source::Url("https://e.com/a.png".to_owned())] {
            assert_eq!(image(&source).unwrap_err().param, "messages");
        }
        let mut names = Names::default();
        for (source, format) in [
            (base64("application/pdf"), "pdf"),
            (base64("text/plain; charset=utf-8"), "txt"),
            (Source::Text("hi".to_owned()), "txt"),
        ] {
            let document = names.document(&source, None).unwrap();
            assert_eq!((document.format, document.source.bytes.as_ref()), (format, "aGk="));
        }
        for source in [base64("application/zip"), Source::Url("s3://secret/a.pdf".to_owned())] {
            assert!(names.document(&source, None).is_err());
        }
    }

    #[test]
    fn names_are_clean_and_unique() {
        let mut names = Names::default();
        for (name, expected) in [
            ("report.pdf", "report-pdf"),
            ("report.pdf", "report-pdf-2"),
            ("report/pdf", "report-pdf-3"),
            ("  a \t\n b (1) [x]  ", "a b (1) [x]"),
            ("", "document"),
            ("  ", "document-2"),
            ("Ü", "-"),
        ] {
            assert_eq!(names.unique(name), expected, "{name:?}");
        }
        assert!(names.unique(&"x".repeat(500)).len() <= NAME_CHARS_MAX);
        assert!(names.unique(&"x".repeat(500)).len() <= NAME_CHARS_MAX);
    }
}
