//! Forms (`multipart/form-data`) with audio in them: what the gateway must know of one, and where its model stands.
//!
//! A form passes byte for byte; only its model may be replaced or put in. Deliberately absent: the audio itself, which is
//! measured by its length alone.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use memchr::memmem;

use crate::provider::{
    endpoint::Endpoint, error_body::BadRequest, facts::Facts, facts::Places, output, splice::cut_and_join,
    tally::Input,
};

/// Settings that never become tokens.
const WITHOUT_TOKENS: &[&str] =
    &["chunking_strategy", "include[]", "language", "temperature", "timestamp_granularities[]"];
/// What the gateway acts on: two values for one of these could be read in two ways.
const ONCE: &[&str] = &["model", "stream", "response_format", "prompt"];
/// Real forms have about ten.
const PARTS_MAX: usize = 64;

/// What is needed to measure and to edit a form again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    boundary: String,
    /// Where the text that steers the transcript stands.
    prompt: Option<Range<usize>>,
    /// Answers are asked for that are no JSON: plain text, subtitles.
    pub(crate) plain: bool,
}

#[derive(Default)]
struct Fields {
    model: Option<(String, Range<usize>)>,
    prompt: Option<Range<usize>>,
    stream: bool,
    plain: bool,
    seen: Vec<&'static str>,
    input: Input,
}

/// Reads the form in `body`. Its bytes are searched once and copied once.
///
/// # Errors
/// It is no form, or says one thing twice. The text goes to the client.
pub(crate) fn decode(endpoint: Endpoint, content_type: &str, body: &Bytes) -> Result<Facts, BadRequest> {
    let boundary = multer::parse_boundary(content_type).map_err(|_| BadRequest {
        message: "this endpoint takes a form: send content-type multipart/form-data with a boundary"
            .to_owned(),
        param: None,
    })?;
    let delimiter = format!("--{boundary}");
    let start =
        memmem::find(body, delimiter.as_bytes()).ok_or_else(|| malformed("its boundary is not in it"))?;
    let mut fields = Fields::default();
    let mut at = start;
    // All bytes are there, so nothing is ever waited for.
    let read = async {
        let whole = stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
        let mut parts = multer::Multipart::new(whole, boundary.clone());
        let mut number = 0;
        while let Some(mut part) = parts.next_field().await.map_err(malformed)? {
            number += 1;
            if number > PARTS_MAX {
                return Err(malformed(format!("it has more than {PARTS_MAX} parts")));
            }
            let name = part.name().map(str::to_owned).unwrap_or_default();
            let is_file = part.file_name().is_some();
            let mut length = 0;
            while let Some(chunk) = part.chunk().await.map_err(malformed)? {
                length += chunk.len();
            }
            let value = place(body, at, length, &delimiter)
                .ok_or_else(|| malformed("its parts do not follow each other"))?;
            at = value.end + 2;
            fields.part(&name, is_file, body, value)?;
        }
        Ok(())
    };
    read.now_or_never().unwrap_or_else(|| Err(malformed("it has no end")))?;
    Ok(facts(endpoint, boundary, start, fields))
}

fn facts(endpoint: Endpoint, boundary: String, start: usize, fields: Fields) -> Facts {
    let (model, place) = fields.model.unzip();
    Facts {
        conversation: None,
        endpoint,
        model: model.filter(|model| !model.is_empty()),
        stream: fields.stream,
        usage_asked: false,
        output_named: None,
        output_fixed: output::transcript(fields.input.audio),
        answers: 1,
        input: fields.input,
        places: Places { start, model: place, ..Places::default() },
        form: Some(Form { boundary, prompt: fields.prompt, plain: fields.plain }),
    }
}

fn malformed(error: impl std::fmt::Display) -> BadRequest {
    BadRequest { message: format!("the request body is not a valid form: {error}"), param: None }
}

/// Where a value of `length` bytes stands whose part begins with the delimiter at `at`.
fn place(body: &[u8], at: usize, length: usize, delimiter: &str) -> Option<Range<usize>> {
    let after = at + delimiter.len();
    let start = after + memmem::find(body.get(after..)?, b"\r\n\r\n")? + 4;
    let end = start.checked_add(length)?;
    let rest = body.get(end..)?.strip_prefix(b"\r\n")?;
    rest.starts_with(delimiter.as_bytes()).then_some(start..end)
}

impl Fields {
    fn part(
        &mut self,
        name: &str,
        is_file: bool,
        body: &[u8],
        value: Range<usize>,
    ) -> Result<(), BadRequest> {
        let bytes = body.get(value.clone()).unwrap_or_default();
        if let Some(name) = ONCE.iter().find(|once| **once == name) {
            if self.seen.contains(name) {
                return Err(BadRequest::of(*name, format!("`{name}` is there twice; send it once")));
            }
            self.seen.push(name);
        }
        if WITHOUT_TOKENS.contains(&name) {
            return Ok(());
        }
        if name == "file" || is_file || name.starts_with("known_speaker_references") {
            self.input.audio = self.input.audio.saturating_add(output::audio_tokens(bytes.len() as u64));
            return Ok(());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| malformed(format!("its field `{}` is no text", name.escape_debug())))?;
        match name {
            "model" => self.model = Some((text.to_owned(), value)),
            "stream" => match text {
                "true" | "True" | "1" => self.stream = true,
                "false" | "False" | "0" | "" => {}
                _ => return Err(BadRequest::of("stream", "`stream` must be true or false".to_owned())),
            },
            "response_format" => self.plain = matches!(text, "text" | "srt" | "vtt"),
            _ => {
                if name == "prompt" {
                    self.prompt = Some(value);
                } else {
                    // A field that is not known counts no less than the prompt.
                    self.input.audio = self.input.audio.saturating_add(text.len() as u64);
                    return Ok(());
                }
                self.input.text = text.len() as u64;
                self.input.text_bytes = text.len() as u64;
            }
        }
        Ok(())
    }
}

impl Form {
    /// Measures the input again, now with `measure` (a tokenizer).
    pub(crate) fn measure(&self, input: &Input, body: &[u8], measure: impl FnOnce(&str) -> u64) -> Input {
        let prompt = self.prompt.clone().and_then(|range| body.get(range));
        let prompt = prompt.and_then(|bytes| std::str::from_utf8(bytes).ok());
        Input { text: prompt.map_or(0, measure), ..*input }
    }

    /// The form with another model in it.
    ///
    /// # Errors
    /// No form can carry this name.
    pub(crate) fn with_model(&self, body: &Bytes, facts: &Facts, model: &str) -> Result<Bytes, BadRequest> {
        if model.contains(&self.boundary) || model.chars().any(char::is_control) {
            let message = "the model that the route names cannot be put into this form".to_owned();
            return Err(BadRequest::of("model", message));
        }
        let splice = match &facts.places.model {
            Some(range) => (range.clone(), model.to_owned()),
            None => {
                let start = facts.places.start;
                let head = format!("--{}\r\ncontent-disposition: form-data; name=\"model\"", self.boundary);
                (start..start, format!("{head}\r\n\r\n{model}\r\n"))
            }
        };
        Ok(cut_and_join(body, vec![splice]))
    }

    #[cfg(test)]
    pub(crate) fn example(parts: &[(&str, &str)]) -> String {
        let part = |(name, value): &(&str, &str)| {
            let file = if *name == "file" { "; filename=\"a.mp3\"\r\ncontent-type: audio/mpeg" } else { "" };
            format!("--x1\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
        };
        format!("{}--x1--\r\n", parts.iter().map(part).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=x1";

    fn read(parts: &[(&str, &str)]) -> Result<Facts, BadRequest> {
        decode(Endpoint::Transcriptions, TYPE, &Form::example(parts).into())
    }

    #[test]
    fn facts_of_forms() {
        let audio = "A".repeat(7500);
        for (parts, model, stream, plain, text, audio) in [
            (
                &[("file", audio.as_str()), ("model", "whisper-1")][..],
                Some("whisper-1"),
                false,
                false,
                0,
                101,
            ),
            (&[("model", ""), ("stream", "true"), ("response_format", "json")], None, true, false, 0, 0),
            (&[("prompt", "Hello"), ("response_format", "vtt"), ("language", "en")], None, false, true, 5, 0),
            (&[("file", ""), ("unknown", "0123456789")], None, false, false, 0, 11),
            (&[("known_speaker_references[]", "data:AAAA"), ("stream", "False")], None, false, false, 0, 1),
        ] {
            let facts = read(parts).unwrap();
            let form = facts.form.unwrap();
            assert_eq!(
                (facts.model.as_deref(), facts.stream, form.plain, facts.input.text, facts.input.audio),
                (model, stream, plain, text, audio),
                "{parts:?}"
            );
        }
    }

    #[test]
    fn what_is_no_form_is_refused_with_what_is_wrong() {
        let twice = read(&[("model", "a"), ("model", "b")]).unwrap_err();
        assert_eq!(twice.param.as_deref(), Some("model"));
        assert_eq!(read(&[("stream", "maybe")]).unwrap_err().param.as_deref(), Some("stream"));
        for (kind, body) in [
            ("application/json", "{}".to_owned()),
            ("multipart/form-data", Form::example(&[])),
            (TYPE, String::new()),
            (TYPE, "--x2\r\n".to_owned()),
            (TYPE, Form::example(&[("model", "m")]).replace("--x1--", "")),
            (TYPE, Form::example(&[("file", "m")]).replace("\r\n\r\n", "\r\n")),
        ] {
            assert!(decode(Endpoint::Transcriptions, kind, &body.clone().into()).is_err(), "{kind}: {body}");
        }
    }

    #[test]
    fn forms_as_the_official_sdk_writes_them() {
        let file = [b"\xff\xfb\r\n--".repeat(30), b"\r\n--3d".to_vec()].concat();
        let body = [
            "--3dcc\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n"
                .as_bytes(),
            "--3dcc\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\ncafé\r\n".as_bytes(),
            "--3dcc\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n".as_bytes(),
            "--3dcc\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a bé.mp3\"\r\n".as_bytes(),
            b"Content-Type: audio/mpeg\r\n\r\n",
            &file,
            b"\r\n--3dcc--\r\n",
        ];
        let body = Bytes::from(body.concat());
        let facts = decode(Endpoint::Transcriptions, "multipart/form-data; boundary=3dcc", &body).unwrap();
        assert_eq!((facts.model.as_deref(), facts.stream), (Some("gpt-4o-transcribe"), true));
        assert_eq!((facts.input.text, facts.input.audio), (5, output::audio_tokens(file.len() as u64)));
    }

    #[test]
    fn the_model_is_replaced_or_put_in_and_all_else_stays() {
        for (before, after) in [
            (&[("file", "\r\n--x"), ("model", "a")][..], &[("file", "\r\n--x"), ("model", "b/c")][..]),
            (&[("model", ""), ("prompt", "p")], &[("model", "b/c"), ("prompt", "p")]),
            (&[("file", "f")], &[("model", "b/c"), ("file", "f")]),
        ] {
            let body = Bytes::from(Form::example(before));
            let facts = decode(Endpoint::Transcriptions, TYPE, &body).unwrap();
            let form = facts.form.clone().unwrap();
            let edited = form.with_model(&body, &facts, "b/c").unwrap();
            assert_eq!(String::from_utf8(edited.to_vec()).unwrap(), Form::example(after));
            assert!(form.with_model(&body, &facts, "a\r\nb").is_err());
        }
    }

    proptest! {
        #[test]
        fn never_panics(body in prop::collection::vec(any::<u8>(), 0..200), kind in ".{0,60}") {
            let body = Bytes::from(body);
            let _ = decode(Endpoint::Transcriptions, &kind, &body);
            let _ = decode(Endpoint::Transcriptions, TYPE, &body);
        }

        #[test]
        fn never_panics_on_what_looks_like_a_form(parts in prop::collection::vec(prop::sample::select(vec![
            "--x1", "--x1--", "--", "\r\n", "\r\n\r\n", "\r", "content-disposition: form-data", "; name=", "\"",
            "model", "file", "; filename=\"a\"", "content-type: audio/mpeg", "é", "\n", ":"]), 0..40)) {
            if let Ok(facts) = decode(Endpoint::Translations, TYPE, &parts.concat().into()) {
                let body = Bytes::from(parts.concat());
                let form = facts.form.clone().unwrap();
                let edited = form.with_model(&body, &facts, "another").unwrap();
                let again = decode(Endpoint::Translations, TYPE, &edited).unwrap();
                prop_assert_eq!(again.model.as_deref(), Some("another"));
            }
        }
    }
}
