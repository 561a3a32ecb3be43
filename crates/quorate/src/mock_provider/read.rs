//! Looking into a request's JSON: what every dialect's reader needs. Knows no dialect.

use serde_json::Value;

use super::error::Refusal;

/// A field that is there and not null.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The first field that is not among those allowed.
pub(super) fn unknown<'a>(value: &'a Value, allowed: &[&str]) -> Option<&'a str> {
    value.as_object()?.keys().map(String::as_str).find(|key| !allowed.contains(key))
}

/// A text, or texts of a list of strings.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// A number within bounds, if the field is there.
///
/// # Errors
/// It is not a number, or outside; `name` is how the message calls it.
pub(super) fn bounded(value: &Value, key: &str, name: &str, least: f64, most: f64) -> Result<(), Refusal> {
    let Some(value) = field(value, key) else { return Ok(()) };
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(()),
        Some(_) => Err(Refusal::bad(format!("{name}: must be between {least} and {most}, not {value}"))),
        None => Err(Refusal::bad(format!("{name}: Input should be a valid number"))),
    }
}

/// `2023-06-01`: versions of an API are named so.
pub(super) fn is_date(text: &str) -> bool {
    jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok()
}

/// A count of at least one, if the field is there.
///
/// # Errors
/// It is something else.
pub(super) fn count(value: &Value, key: &str, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = field(value, key) else { return Ok(None) };
    match value.as_u64() {
        Some(0) | None => Err(Refusal::bad(format!("{name}: must be an integer of at least 1, not {value}"))),
        count => Ok(count),
    }
}

/// Thinking tokens of an effort, as every dialect names them.
pub(super) fn effort_tokens(effort: Option<&str>) -> Result<u64, Refusal> {
    match effort {
        None | Some("none") => Ok(0),
        Some("minimal") => Ok(2),
        Some("low") => Ok(4),
        Some("medium") => Ok(8),
        Some("high") => Ok(16),
        Some("xhigh" | "max") => Ok(32),
        Some(other) => Err(Refusal::bad(format!("Invalid value for reasoning effort: '{other}'"))),
    }
}

/// Media type of a data URL; what is only linked has the type its ending says.
pub(super) fn media_type(url: &str) -> Result<String, Refusal> {
    if let Some(rest) = url.strip_prefix("data:") {
        let (kind, data) = rest.split_once(";base64,").ok_or_else(|| {
            Refusal::bad("the data URL of a file needs the form data:MEDIA/TYPE;base64,DATA")
        })?;
        decode(data)?;
        return Ok(kind.to_owned());
    }
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Refusal::bad(format!(
            "Invalid URL of a file: {}",
            url.chars().take(40).collect::<String>()
        )));
    }
    let ending =
        url.split(['?', '#']).next().and_then(|path| path.rsplit_once('.')).map_or("", |(_, end)| end);
    Ok(match ending.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        _ => "image/png",
    }
    .to_owned())
}

/// # Errors
/// No base64, or nothing in it.
pub(super) fn decode(data: &str) -> Result<Vec<u8>, Refusal> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data);
    bytes.ok().filter(|bytes| !bytes.is_empty()).ok_or_else(|| Refusal::bad("invalid base64 data"))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
