//! The parts of a message's `content`, read into blocks.

use base64::Engine as _;
use serde_json::Value;

use super::{
    fields::{Fields, must},
    messages_in::harmful,
};
use crate::provider::{
    conversation::{Block, Content, Extra, Source},
    error_body::BadRequest,
};

/// Whose message it is: not everyone can say everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

/// A string, or a list of parts.
pub(crate) fn decode(
    value: Value,
    place: &str,
    speaker: Speaker,
    rest: &mut Vec<Extra>,
) -> Result<Vec<Block>, BadRequest> {
    let parts = match value {
        Value::String(text) => return Ok(vec![Content::Text(text).into()]),
        Value::Array(parts) => parts,
        _ => return Err(must(place.to_owned(), "must be a string or a list of parts")),
    };
    if parts.is_empty() && matches!(speaker, Speaker::System | Speaker::User) {
        return Err(must(place.to_owned(), "must hold at least one part"));
    }
    let mut blocks = Vec::with_capacity(parts.len());
    for (at, value) in parts.into_iter().enumerate() {
        let part = Fields::of(value, format!("{place}[{at}]"))?;
        blocks.extend(one(part, speaker, rest)?);
    }
    Ok(blocks)
}

/// `None`: it is in `rest`.
fn one(mut part: Fields, speaker: Speaker, rest: &mut Vec<Extra>) -> Result<Option<Block>, BadRequest> {
    let kind = part.needed("type")?;
    let allowed: &[&str] = match speaker {
        Speaker::System => &["text"],
        Speaker::User => &["text", "image_url", "file", "input_audio"],
        Speaker::Assistant => &["text", "refusal"],
        // OpenAI takes text only; others take what a tool made.
        Speaker::Tool => &["text", "image_url", "file"],
    };
    let elsewhere = ["text", "image_url", "file", "input_audio", "refusal"].contains(&kind.as_str());
    if elsewhere && !allowed.contains(&kind.as_str()) {
        return Err(part.wrong("type", &format!("must be one of: {}", allowed.join(", "))));
    }
    let content = match kind.as_str() {
        "text" => match part.string("text")? {
            Some(text) => Content::Text(text),
            None => return Err(part.wrong("text", "is missing: a string")),
        },
        "refusal" => Content::Refusal(part.needed("refusal")?),
        "image_url" => image(&mut part)?,
        "file" => match file(&mut part, rest)? {
            Some(document) => document,
            None => return Ok(None),
        },
        // `input_audio`, and what is not known here.
        _ => {
            rest.push(harmful(part.place().to_owned(), kind.into()));
            return Ok(None);
        }
    };
    let cache = part.cache()?;
    rest.extend(part.left().map(|(place, value)| harmful(place, value)));
    Ok(Some(Block { content, cache }))
}

fn image(part: &mut Fields) -> Result<Content, BadRequest> {
    let place = part.at("image_url");
    let (url, place, detail) = match part.take("image_url") {
        // Some clients write the URL at once.
        Some(Value::String(url)) => (url, place, None),
        Some(value) => {
            let mut image = Fields::of(value, place)?;
            (image.needed("url")?, image.at("url"), image.string("detail")?)
        }
        None => return Err(must(place, "is missing: an object with `url`")),
    };
    let source = if url.starts_with("data:") {
        let (media_type, data) = data_url(url, &place)?;
        Source::Base64 { media_type, data }
    } else if url.starts_with("https://") || url.starts_with("http://") {
        Source::Url(url)
    } else {
        return Err(must(place, "must be an https URL or a data URL"));
    };
    Ok(Content::Image { source, detail })
}

fn file(part: &mut Fields, rest: &mut Vec<Extra>) -> Result<Option<Content>, BadRequest> {
    let Some(mut file) = part.object("file")? else {
        return Err(part.wrong("file", "is missing: an object with `file_data` and `filename`"));
    };
    let name = file.string("filename")?;
    if let Some(id) = file.string("file_id")? {
        // It lies with OpenAI: no other provider can read it.
        rest.push(harmful(file.at("file_id"), id.into()));
        return Ok(None);
    }
    let data = file.needed("file_data")?;
    let place = file.at("file_data");
    let (media_type, data) = if data.starts_with("data:") {
        data_url(data, &place)?
    } else {
        // Without the head of a data URL: OpenAI's chat takes PDF only.
        ("application/pdf".to_owned(), checked(data, &place)?)
    };
    rest.extend(file.left().map(|(place, value)| harmful(place, value)));
    let source = if media_type.starts_with("text/") {
        let bytes = base64::engine::general_purpose::STANDARD.decode(&data);
        match bytes.map(String::from_utf8) {
            Ok(Ok(text)) => Source::Text(text),
            _ => return Err(must(place, "must be base64 of UTF-8 text")),
        }
    } else {
        Source::Base64 { media_type, data }
    };
    Ok(Some(Content::Document { source, name }))
}

/// The media type and the base64 of `data:image/png;base64,…`.
fn data_url(url: String, place: &str) -> Result<(String, String), BadRequest> {
    let parsed = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    let head = parsed.and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)));
    let Some((head, data)) = head else {
        return Err(must(place.to_owned(), "must be a data URL with base64: `data:image/png;base64,…`"));
    };
    let media_type = head.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !media_type.contains('/') {
        return Err(must(place.to_owned(), "must name its media type: `data:image/png;base64,…`"));
    }
    Ok((media_type, checked(data.to_owned(), place)?))
}

/// Only the alphabet is looked at: decoding megabytes is the provider's work.
fn checked(data: String, place: &str) -> Result<String, BadRequest> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if data.is_empty() || !data.bytes().all(fits) {
        return Err(must(place.to_owned(), "must hold base64"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(part: Value, speaker: Speaker) -> Result<(Vec<Block>, Vec<Extra>), BadRequest> {
        let mut rest = Vec::new();
        Ok((decode(json!([part]), "c", speaker, &mut rest)?, rest))
    }

    #[test]
    fn every_part() {
        let owned = str::to_owned;
        let png = Source::Base64 { media_type: owned("image/png"), data: owned("iVBORw==") };
        let pdf = Source::Base64 { media_type: owned("application/pdf"), data: owned("JVBERi0=") };
        for (part, expected) in [
            (json!({"type": "text", "text": ""}), Content::Text(String::new())),
            (
                json!({"type": "image_url", "image_url": {"url": "data:image/PNG;charset=x;base64,iVBORw==", "detail": "low"}}),
                Content::Image { source: png, detail: Some(owned("low")) },
            ),
            (
                json!({"type": "image_url", "image_url": "https://example.com/a.png"}),
                Content::Image { source: Source::Url(owned("https://example.com/a.png")), detail: None },
            ),
            (
                json!({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}}),
                Content::Document { source: pdf.clone(), name: Some(owned("a.pdf")) },
            ),
            (
                json!({"type": "file", "file": {"file_data": "JVBERi0="}}),
                Content::Document { source: pdf, name: None },
            ),
            (
                json!({"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}}),
                Content::Document { source: Source::Text(owned("hi")), name: None },
            ),
        ] {
            let (blocks, rest) = read(part.clone(), Speaker::User).unwrap();
            assert_eq!((blocks, rest), (vec![expected.into()], vec![]), "{part}");
        }
        let marked =
            json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}});
        assert_eq!(
            read(marked, Speaker::System).unwrap().0[0].cache.clone().unwrap().ttl.as_deref(),
            Some("1h")
        );
    }

    #[test]
    fn what_cannot_be_carried_is_kept_as_harmful() {
        for (part, place) in [
            (json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}), "c[0]"),
            (json!({"type": "video_url", "video_url": {}}), "c[0]"),
            (json!({"type": "file", "file": {"file_id": "file-1"}}), "c[0].file.file_id"),
            (json!({"type": "text", "text": "x", "mood": 1}), "c[0].mood"),
        ] {
            let (_, rest) = read(part, Speaker::User).unwrap();
            assert_eq!((rest[0].name.as_str(), rest[0].harmless), (place, false));
        }
    }

    #[test]
    fn bad_parts_are_named() {
        for (part, param) in [
            (json!("x"), "c[0]"),
            (json!({"text": "x"}), "c[0].type"),
            (json!({"type": "text"}), "c[0].text"),
            (json!({"type": "refusal", "refusal": "x"}), "c[0].type"),
            (json!({"type": "image_url"}), "c[0].image_url"),
            (json!({"type": "image_url", "image_url": {}}), "c[0].image_url.url"),
            (json!({"type": "image_url", "image_url": {"url": "ftp://x"}}), "c[0].image_url.url"),
            (json!({"type": "image_url", "image_url": {"url": "data:image/png,x"}}), "c[0].image_url.url"),
            (json!({"type": "image_url", "image_url": {"url": "data:;base64,eA=="}}), "c[0].image_url.url"),
            (
                json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}),
                "c[0].image_url.url",
            ),
            (json!({"type": "file", "file": {"filename": "a"}}), "c[0].file.file_data"),
            (
                json!({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}),
                "c[0].file.file_data",
            ),
        ] {
            let error = read(part.clone(), Speaker::User).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{part}");
        }
        assert!(
            read(json!({"type": "image_url"}), Speaker::Assistant)
                .unwrap_err()
                .message
                .contains("text, refusal")
        );
    }
}
