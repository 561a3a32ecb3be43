//! OpenAI's images and audio: a tiny picture, a short silence, and a transcript that says what was sent.

use serde_json::{Value, json};

use super::ask::{Ask, Block, Reply, Usage};
use super::error::Refusal;
use super::openai_chat::CREATED;
use super::read::{self, text};

/// One transparent pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
/// The head of a WAV file of no samples, then a tenth of a second of silence.
const WAV_HEAD: &[u8] = b"RIFF\x64\x06\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data\x40\x06\x00\x00";
const WAV_SAMPLES: usize = 1_600;
const SPEECH_BYTES_MAX: usize = 4_096;
/// What gpt-image-1 charges for a square image of low quality.
const IMAGE_TOKENS: u64 = 272;

/// A file and its fields, as `multipart/form-data` has them.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub fields: Vec<(String, String)>,
    pub file: Option<(String, usize)>,
}

/// # Errors
/// There is no prompt.
pub(super) fn read_image(body: &Value, model: Option<&str>) -> Result<Ask, Refusal> {
    let prompt = text(body, "prompt").filter(|prompt| !prompt.is_empty());
    let prompt = prompt.ok_or_else(|| Refusal::bad("Missing required parameter: 'prompt'."))?;
    let mut ask = Ask {
        model: model.or_else(|| text(body, "model")).unwrap_or("gpt-image-1").to_owned(),
        choices: read::count(body, "n", "n")?.unwrap_or(1).min(10),
        ..Ask::default()
    };
    ask.push(false, vec![Block::Text(prompt.to_owned())]);
    Ok(ask)
}

pub(super) fn image_usage(ask: &Ask, mut usage: Usage) -> Usage {
    usage.output = IMAGE_TOKENS * ask.choices.max(1);
    usage
}

/// Usage as gpt-image-1 has it; the older models have none.
pub(super) fn image(reply: &Reply, usage: &Usage) -> Value {
    let data: Vec<Value> = (0..reply.choices).map(|_| json!({"b64_json": PNG})).collect();
    let mut answer = json!({"created": CREATED, "data": data});
    if !reply.no_usage && !reply.model.starts_with("dall-e") {
        answer["background"] = "opaque".into();
        answer["output_format"] = "png".into();
        answer["quality"] = "low".into();
        answer["size"] = "1024x1024".into();
        answer["usage"] = json!({
            "input_tokens": usage.input, "input_tokens_details": {"text_tokens": usage.input, "image_tokens": 0},
            "output_tokens": usage.output, "total_tokens": usage.input + usage.output,
        });
    }
    answer
}

/// # Errors
/// A field is missing, or the text too long.
pub(super) fn read_speech(body: &Value, model: Option<&str>) -> Result<Ask, Refusal> {
    let need = |name: &str| {
        text(body, name).ok_or_else(|| Refusal::bad(format!("Missing required parameter: '{name}'.")))
    };
    let input = need("input")?;
    if body["voice"].as_object().is_none() {
        need("voice")?;
    }
    if input.len() > SPEECH_BYTES_MAX {
        return Err(Refusal::bad(
            "Invalid 'input': string too long. Expected a string with maximum length 4096.",
        ));
    }
    let model = match model {
        Some(model) => model,
        None => need("model")?,
    };
    let mut ask = Ask { model: model.to_owned(), ..Ask::default() };
    ask.push(false, vec![Block::Text(input.to_owned())]);
    Ok(ask)
}

pub(super) fn speech() -> Vec<u8> {
    let mut wav = WAV_HEAD.to_vec();
    wav.resize(WAV_HEAD.len() + WAV_SAMPLES, 0x80);
    wav
}

/// # Errors
/// The body is no form, or lacks its file or model.
pub(super) fn read_form(
    content_type: &str,
    bytes: &[u8],
    model: Option<&str>,
) -> Result<(Ask, Form), Refusal> {
    let form = Form::parse(content_type, bytes)?;
    let field = |name: &str| form.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let model = model.map(str::to_owned).or_else(|| field("model"));
    let model = model.ok_or_else(|| Refusal::bad("you must provide a model parameter"))?;
    if form.file.is_none() {
        return Err(Refusal::bad("Missing required parameter: 'file'."));
    }
    let mut ask =
        Ask { model, stream: field("stream").is_some_and(|stream| stream == "true"), ..Ask::default() };
    ask.push(false, vec![Block::Text(field("prompt").unwrap_or_default())]);
    Ok((ask, form))
}

/// A token of sound for each 1,600 bytes, at least one.
pub(super) fn audio_usage(form: &Form) -> Usage {
    let bytes = form.file.as_ref().map_or(0, |(_, bytes)| *bytes as u64);
    let said = transcript(form).split(' ').count() as u64;
    Usage { input: bytes.div_ceil(1_600).max(1), output: said, ..Usage::default() }
}

fn transcript(form: &Form) -> String {
    form.file.as_ref().map_or_else(String::new, |(name, bytes)| format!("{bytes} bytes of {name}"))
}

/// JSON, or the bare text for `response_format=text`.
pub(super) fn transcription(form: &Form, reply: &Reply, usage: &Usage) -> Result<Value, String> {
    let said = transcript(form);
    let format =
        form.fields.iter().find(|(key, _)| key == "response_format").map(|(_, value)| value.as_str());
    if matches!(format, Some("text" | "srt" | "vtt")) {
        return Err(said + "\n");
    }
    let mut answer = json!({"text": said});
    if format == Some("verbose_json") {
        answer["language"] = "english".into();
        answer["duration"] = json!(0.1);
        answer["segments"] = json!([]);
    }
    if !reply.no_usage {
        answer["usage"] = if reply.model.starts_with("whisper") {
            json!({"type": "duration", "seconds": 1})
        } else {
            json!({
                "type": "tokens", "input_tokens": usage.input,
                "input_token_details": {"text_tokens": 0, "audio_tokens": usage.input},
                "output_tokens": usage.output, "total_tokens": usage.input + usage.output,
            })
        };
    }
    Ok(answer)
}

impl Form {
    fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, Refusal> {
        let wrong = || Refusal::bad("the body is no multipart/form-data: its content-type needs a boundary");
        let parameters = content_type.strip_prefix("multipart/form-data").ok_or_else(wrong)?;
        let boundary =
            parameters.split(';').find_map(|one| one.trim().strip_prefix("boundary=")).ok_or_else(wrong)?;
        let mark = format!("--{}", boundary.trim_matches('"')).into_bytes();
        let mut form = Self::default();
        let marks: Vec<usize> = positions(bytes, &mark);
        for pair in marks.windows(2) {
            // Each part: CRLF, headers, an empty line, content, CRLF.
            let part = &bytes[pair[0] + mark.len()..pair[1]];
            let Some(at) = positions(part, b"\r\n\r\n").first().copied() else { continue };
            let head = String::from_utf8_lossy(&part[..at]).into_owned();
            let content = &part[at + 4..];
            let content = content.strip_suffix(b"\r\n").unwrap_or(content);
            let attribute = |name: &str| {
                let (_, rest) = head.split_once(&format!(" {name}=\""))?;
                Some(rest.split('"').next().unwrap_or("").to_owned())
            };
            match (attribute("filename"), attribute("name")) {
                (Some(file), _) => form.file = Some((file, content.len())),
                (None, Some(name)) => {
                    form.fields.push((name, String::from_utf8_lossy(content).into_owned()));
                }
                (None, None) => {}
            }
        }
        Ok(form)
    }
}

fn positions(bytes: &[u8], mark: &[u8]) -> Vec<usize> {
    let ends = bytes.len().checked_sub(mark.len());
    ends.map_or_else(Vec::new, |last| (0..=last).filter(|at| bytes[*at..].starts_with(mark)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n12345\r\n--x--\r\n";

    #[test]
    fn a_form_has_its_fields_and_file() {
        let (ask, form) = read_form("multipart/form-data; boundary=x", BODY, None).unwrap();
        assert_eq!(ask.model, "gpt-4o-transcribe");
        assert_eq!(form.file, Some(("a.wav".into(), 5)));
        assert_eq!(audio_usage(&form), Usage { input: 1, output: 4, ..Usage::default() });
    }

    #[test]
    fn what_is_no_form_is_refused() {
        assert!(read_form("application/json", BODY, None).is_err());
        assert!(read_form("multipart/form-data; boundary=y", BODY, None).is_err());
        assert!(read_form("multipart/form-data; boundary=x", b"--x", Some("m")).is_err());
    }

    #[test]
    fn the_picture_is_a_png_and_the_sound_a_wav() {
        assert!(read::decode(PNG).unwrap().starts_with(b"\x89PNG"));
        assert_eq!(&speech()[8..12], b"WAVE");
    }
}
