//! Images and documents in a Messages request.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{outgoing::refused, wire::Source as WireSource};
use crate::provider::{conversation::Source, reply::Unsupported};

pub(super) fn image<'a>(source: &'a Source, at: &str) -> Result<WireSource<'a>, Unsupported> {
    match source {
        Source::Base64 { media_type, data } => match media_type.as_str() {
            "image/jpeg" | "image/jpg" => Ok(base64_source("image/jpeg", data)),
            "image/png" | "image/gif" | "image/webp" => Ok(base64_source(media_type, data)),
            other => {
                Err(refused(at, &format!("holds an image of type `{other}`; send JPEG, PNG, GIF or WebP")))
            }
        },
        Source::Url(url) => Ok(WireSource { r#type: "url", url: Some(url), ..WireSource::default() }),
        Source::Text(_) => Err(refused(at, "holds text as an image; send it as text")),
    }
}

fn base64_source<'a>(media_type: &'a str, data: &'a str) -> WireSource<'a> {
    let (media_type, data) = (Some(media_type), Some(Cow::Borrowed(data)));
    WireSource { r#type: "base64", media_type, data, ..WireSource::default() }
}

pub(super) fn document<'a>(source: &'a Source, at: &str) -> Result<WireSource<'a>, Unsupported> {
    let plain =
        |data| WireSource { r#type: "text", media_type: Some("text/plain"), data: Some(data), url: None };
    match source {
        Source::Base64 { media_type, data } if media_type == "application/pdf" => {
            Ok(base64_source(media_type, data))
        }
        Source::Base64 { media_type, data } if media_type.starts_with("text/") => {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            match text {
                Some(text) => Ok(plain(Cow::Owned(text))),
                None => Err(refused(at, "holds a text file that is not UTF-8 in base64; encode it so")),
            }
        }
        Source::Base64 { media_type, .. } => Err(refused(
            at,
            &format!("holds a file of type `{media_type}`; Anthropic's API reads PDF and text"),
        )),
        Source::Url(url) => Ok(WireSource { r#type: "url", url: Some(url), ..WireSource::default() }),
        Source::Text(text) => Ok(plain(Cow::Borrowed(text))),
    }
}
