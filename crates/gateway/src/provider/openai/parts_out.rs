//! Blocks of a user's turn as the parts of a message's `content`.

use serde::Serialize;

use crate::provider::{
    conversation::{Content, Source},
    reply::Unsupported,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
    File { file: File },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ImageUrl {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    filename: String,
    file_data: String,
}

impl Part {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// One text stands as a string: not every compatible server takes a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Said {
    Text(String),
    Parts(Vec<Part>),
}

impl From<Vec<Part>> for Said {
    fn from(mut parts: Vec<Part>) -> Self {
        match (parts.pop(), parts.is_empty()) {
            (Some(Part::Text { text }), true) => Self::Text(text),
            (last, _) => {
                parts.extend(last);
                Self::Parts(parts)
            }
        }
    }
}

/// `place`: as the client named it, for the refusal.
pub(crate) fn encode(content: &Content, place: &str) -> Result<Part, Unsupported> {
    let refuse = |why: &str| Err(Unsupported { param: place.to_owned(), why: why.to_owned() });
    match content {
        Content::Text(text) => Ok(Part::text(text)),
        Content::Image { source, detail } => match source {
            Source::Base64 { .. } | Source::Url(_) => {
                Ok(Part::ImageUrl { image_url: ImageUrl { url: url(source), detail: detail.clone() } })
            }
            Source::Text(_) => refuse("is an image made of text; send it as text"),
        },
        Content::Document { source, name } => match source {
            // OpenAI reads PDF only; text is text.
            Source::Text(text) => Ok(Part::text(match name {
                Some(name) => format!("{name}\n\n{text}"),
                None => text.clone(),
            })),
            Source::Base64 { media_type, .. } if media_type == "application/pdf" => {
                let filename = match name {
                    Some(name) if !name.is_empty() => name.clone(),
                    _ => "document.pdf".to_owned(),
                };
                Ok(Part::File { file: File { filename, file_data: url(source) } })
            }
            Source::Base64 { media_type, .. } => refuse(&format!(
                "is a document of type {media_type}, which OpenAI's chat completions do not take; send a PDF or text"
            )),
            Source::Url(_) => refuse(
                "is a document by URL, which OpenAI's chat completions do not take; send its data as base64",
            ),
        },
        _ => refuse("cannot stand in a user's message; leave it out"),
    }
}

fn url(source: &Source) -> String {
    match source {
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        Source::Url(url) | Source::Text(url) => url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part() {
        let base64 =
            |media_type: &str| Source::Base64 { media_type: media_type.to_owned(), data: "AA==".to_owned() };
        for (content, expected) in [
            (Content::Text("x".to_owned()), json!({"type": "text", "text": "x"})),
            (
                Content::Image { source: base64("image/png"), detail: Some("low".to_owned()) },
                json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}),
            ),
            (
                Content::Image { source: Source::Url("https://x".to_owned()), detail: None },
                json!({"type": "image_url", "image_url": {"url": "https://x"}}),
            ),
            (
                Content::Document { source: base64("application/pdf"), name: None },
                json!({"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA=="}}),
            ),
            (
                Content::Document { source: Source::Text("body".to_owned()), name: Some("a.txt".to_owned()) },
                json!({"type": "text", "text": "a.txt\n\nbody"}),
            ),
        ] {
            assert_eq!(serde_json::to_value(encode(&content, "p").unwrap()).unwrap(), expected);
        }
        for content in [
            Content::Document { source: Source::Url("https://x".to_owned()), name: None },
            Content::Document { source: base64("text/csv"), name: None },
            Content::Image { source: Source::Text("x".to_owned()), detail: None },
        ] {
            assert_eq!(
                encode(&content, "messages[0].content[1]").unwrap_err().param,
                "messages[0].content[1]"
            );
        }
    }

    #[test]
    fn one_text_is_a_string() {
        assert_eq!(Said::from(vec![Part::text("x")]), Said::Text("x".to_owned()));
        assert!(
            matches!(Said::from(vec![Part::text("x"), Part::text("y")]), Said::Parts(parts) if parts.len() == 2)
        );
        assert_eq!(Said::from(Vec::new()), Said::Parts(Vec::new()));
    }
}
