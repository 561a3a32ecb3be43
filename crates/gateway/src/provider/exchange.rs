//! One request on its way to one backend: what is sent there, and how its answer is read for the client.

use bytes::Bytes;

use super::{
    answer, anthropic, azure, bedrock,
    conversation::{Conversation, Target},
    endpoint::{Api, Dialect, Endpoint, Way},
    error_body::BadRequest,
    facts::Facts,
    openai, output,
    reply::{ApiError, Context, Garbage, Reply, Unsupported},
    splice::{self, Edits, OutputField},
    stream::StreamReader,
    tool_names::{self, Renamed},
    usage::Usage,
};

/// What goes upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Below the base URL.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    /// Fields of the client that were left out, harmlessly.
    pub(crate) dropped: Vec<String>,
    /// Tools that go by another name there.
    pub(crate) renamed: Vec<Renamed>,
}

/// Of one backend, for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) api: Api,
    /// As the backend knows it.
    pub(crate) model: &'a str,
    pub(crate) output_limit: Option<u64>,
    pub(crate) output_field: OutputField,
    /// It knows `stream_options`.
    pub(crate) stream_usage: bool,
    /// The header `anthropic-beta`: AWS reads it in the body.
    pub(crate) betas: &'a str,
}

/// Names of dropped fields, in one header.
const NAMES_MAX: usize = 50;
const NAME_CHARS_MAX: usize = 100;

/// Why a request cannot go to a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSendable {
    #[error("the endpoint is not served by a backend of kind {}; kinds that serve it: {}", api.name(), endpoint.served_by())]
    Endpoint { endpoint: Endpoint, api: Api },
    #[error("{0}, or ask for a model that another kind of backend serves")]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
}

/// The request as `to` gets it.
///
/// # Errors
/// This backend cannot serve it; another one may.
pub(crate) fn send(facts: &Facts, body: &Bytes, to: &To<'_>) -> Result<Sent, NotSendable> {
    let endpoint = facts.endpoint;
    let way = endpoint.way(to.api).ok_or(NotSendable::Endpoint { endpoint, api: to.api })?;
    if way == Way::Translate {
        return translated(endpoint, body, to);
    }
    let edits = Edits {
        model: (facts.model.as_deref() != Some(to.model)).then_some(to.model),
        output_limit: to.output_limit.map(|tokens| (to.output_field, tokens)),
        include_usage: facts.stream && to.stream_usage && endpoint.has_stream_options(),
    };
    let body = match (&facts.form, edits.model, to.api) {
        // A deployment of Azure's is in the path.
        (Some(form), Some(model), Api::OpenAI) => form.with_model(body, facts, model)?,
        (Some(_), ..) => body.clone(),
        (None, ..) => splice::apply(body, facts, &edits),
    };
    let mut dropped = Vec::new();
    let (path, body) = match to.api {
        Api::Azure => (azure::path(endpoint, to.model), body),
        Api::InvokeAnthropic => {
            (bedrock::invoke::path(to.model, facts.stream), invoked(&body, to, &mut dropped)?.into())
        }
        _ => (endpoint.path().to_owned(), body),
    };
    Ok(Sent { path, body, dropped: names(dropped), renamed: Vec::new() })
}

fn invoked(body: &[u8], to: &To<'_>, dropped: &mut Vec<String>) -> Result<Vec<u8>, BadRequest> {
    let (betas, foreign) = anthropic::betas::for_bedrock(to.betas);
    dropped.extend(foreign);
    anthropic::bedrock_body::bedrock_body(body, &betas)
}

/// As a header can hold them, however long the conversation is: one name for a field of all messages, once.
fn names(dropped: Vec<String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in dropped {
        let mut inside = false;
        let kept = name.chars().filter(|char| {
            inside = (inside || *char == '[') && *char != ']';
            !(inside && char.is_ascii_digit())
        });
        let plain = |char: char| if char.is_ascii_graphic() { char } else { '?' };
        let name: String = kept.map(plain).take(NAME_CHARS_MAX).collect();
        if names.len() < NAMES_MAX && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn translated(endpoint: Endpoint, body: &Bytes, to: &To<'_>) -> Result<Sent, NotSendable> {
    let mut conversation: Conversation = match endpoint.dialect() {
        Dialect::OpenAI => openai::request::decode(body)?,
        Dialect::Anthropic => anthropic::request::decode(body)?,
    };
    let renamed = match to.api {
        // It takes longer names than any client has.
        Api::Anthropic | Api::InvokeAnthropic => Vec::new(),
        Api::OpenAI | Api::Azure | Api::Converse => tool_names::shorten(&mut conversation),
    };
    let target = Target { model: to.model, output_limit: to.output_limit };
    let mut outgoing = match to.api {
        Api::OpenAI | Api::Azure => {
            openai::request::encode(&conversation, &target, to.output_field, to.stream_usage)?
        }
        Api::Anthropic | Api::InvokeAnthropic => anthropic::request::encode(&conversation, &target)?,
        Api::Converse => bedrock::request::encode(&conversation, &target)?,
    };
    match to.api {
        Api::Azure => outgoing.path = azure::path(Endpoint::Chat, to.model),
        Api::InvokeAnthropic => {
            outgoing.path = bedrock::invoke::path(to.model, conversation.stream);
            outgoing.body = invoked(&outgoing.body, to, &mut outgoing.dropped)?;
        }
        _ => {}
    }
    Ok(Sent { path: outgoing.path, body: outgoing.body.into(), dropped: names(outgoing.dropped), renamed })
}

/// How the answer of a backend is read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) endpoint: Endpoint,
    pub(crate) api: Api,
    pub(crate) way: Way,
    pub(crate) context: Context,
    pub(crate) hides_usage: bool,
    /// A success may be something else than JSON: the client asked for plain text or subtitles.
    pub(crate) plain: bool,
}

/// A whole answer, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) body: Bytes,
    pub(crate) usage: Option<Usage>,
    /// Tokens of the audio that was heard, where the answer is a transcript and says no usage: by its length, else none.
    pub(crate) heard: Option<u64>,
    /// What was generated, where the answer was decoded and says no usage.
    pub(crate) text: Option<String>,
}

/// A success that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error(transparent)]
    Garbage(#[from] Garbage),
    /// An error under a status of success.
    #[error("an error under a status of success: {}", .0.message)]
    ErrorInside(ApiError),
}

impl Reading {
    /// A whole answer of a success status.
    ///
    /// # Errors
    /// It is not an answer of this endpoint.
    pub(crate) fn whole(&self, bytes: &Bytes) -> Result<Whole, Bad> {
        if self.way != Way::Translate {
            let found = answer::decode(bytes, false);
            if found.is_none() && self.plain {
                return Ok(Whole { body: bytes.clone(), usage: None, heard: Some(0), text: None });
            }
            let found = found.ok_or_else(|| Garbage("the answer is no JSON object".to_owned()))?;
            if found.is_error && found.usage.is_none() {
                return Err(Bad::ErrorInside(self.decode_inside(bytes)));
            }
            let heard = self.endpoint.takes_form().then(|| output::heard(found.seconds.unwrap_or(0.0)));
            return Ok(Whole { body: bytes.clone(), usage: found.usage, heard, text: None });
        }
        let decoded = match self.api {
            Api::OpenAI | Api::Azure => openai::answer::decode(bytes),
            Api::Anthropic | Api::InvokeAnthropic => anthropic::answer::decode(bytes),
            Api::Converse => bedrock::answer::decode(bytes),
        };
        let reply: Reply = match decoded {
            Ok(reply) => reply,
            Err(garbage) => {
                let is_error = match self.api {
                    Api::Converse => bedrock::error::is_error(bytes),
                    _ => answer::decode(bytes, false).is_some_and(|found| found.is_error),
                };
                return Err(match is_error {
                    true => Bad::ErrorInside(self.decode_inside(bytes)),
                    false => garbage.into(),
                });
            }
        };
        let body = match self.endpoint.dialect() {
            Dialect::OpenAI => openai::answer::encode(&reply, &self.context),
            Dialect::Anthropic => anthropic::answer::encode(&reply, &self.context),
        };
        let text = reply.usage.is_none().then(|| reply.text());
        Ok(Whole { body: body.into(), usage: reply.usage, heard: None, text })
    }

    /// The usage in what [`Self::whole`] takes for no answer: it was generated, and costs what it says.
    pub(crate) fn said(&self, bytes: &[u8]) -> Option<Usage> {
        match self.api {
            Api::Converse => bedrock::answer::usage(bytes),
            _ => answer::decode(bytes, false)?.usage,
        }
    }

    /// An answer of an error status, for the client: status and body. `kind`: AWS's `x-amzn-errortype`.
    pub(crate) fn error(&self, status: u16, kind: &str, bytes: &Bytes) -> (u16, Bytes) {
        let speaks_alike = match self.way {
            Way::Translate => false,
            // Its errors are AWS's own.
            Way::Rewrap => self.api != Api::InvokeAnthropic,
            Way::Pass | Way::Here => true,
        };
        if speaks_alike {
            return (status, bytes.clone());
        }
        let error = self.decode_error(status, kind, bytes);
        self.encode_error(&error)
    }

    fn encode_error(&self, error: &ApiError) -> (u16, Bytes) {
        match self.endpoint.dialect() {
            Dialect::OpenAI => (openai::error::status(error), openai::error::encode(error).into()),
            Dialect::Anthropic => (anthropic::error::status(error), anthropic::error::encode(error).into()),
        }
    }

    fn decode_error(&self, status: u16, kind: &str, bytes: &[u8]) -> ApiError {
        match self.api {
            Api::OpenAI | Api::Azure => openai::error::decode(status, kind, bytes),
            Api::Anthropic => anthropic::error::decode(status, kind, bytes),
            Api::Converse | Api::InvokeAnthropic => bedrock::error::decode(status, kind, bytes),
        }
    }

    /// An error under a status of success: its status is what its words say.
    fn decode_inside(&self, bytes: &[u8]) -> ApiError {
        match self.api {
            Api::OpenAI | Api::Azure => openai::error::decode_inside(bytes),
            Api::Anthropic | Api::InvokeAnthropic => anthropic::error::decode_inside(bytes),
            Api::Converse => bedrock::error::decode(200, "", bytes),
        }
    }

    pub(crate) fn stream(&self, event_bytes_max: usize) -> StreamReader {
        match (self.way, self.endpoint.dialect()) {
            (Way::Translate, client) => {
                StreamReader::translating(self.api, client, self.context.clone(), event_bytes_max)
            }
            _ if self.endpoint.has_typed_events() => {
                StreamReader::passing_typed(self.endpoint, event_bytes_max)
            }
            (_, Dialect::OpenAI) => StreamReader::passing_openai(self.hides_usage, event_bytes_max),
            (_, Dialect::Anthropic) => StreamReader::passing_anthropic(self.api, event_bytes_max),
        }
    }

    /// Generated text in a whole answer, or in what arrived of one.
    pub(crate) fn text(&self, bytes: &[u8]) -> Option<String> {
        match answer::decode(bytes, true) {
            Some(answer) => Some(answer.text),
            None => self.plain.then(|| String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_tools_come_back_as_the_client_knows_them() {
        let client = "mcp__".to_owned() + &"long_".repeat(20);
        let body = serde_json::json!({
            "model": "m", "max_tokens": 9, "tools": [{"name": client, "input_schema": {"type": "object"}}],
            "messages": [{"role": "user", "content": "hi"}],
        });
        let body = Bytes::from(body.to_string());
        let facts = Facts::decode(Endpoint::Messages, &body).unwrap();
        let to = To {
            api: Api::OpenAI,
            model: "m",
            output_limit: None,
            output_field: OutputField::MaxTokens,
            stream_usage: true,
            betas: "",
        };
        let sent = send(&facts, &body, &to).unwrap();
        let [Renamed { sent: short, .. }] = &sent.renamed[..] else { panic!("{:?}", sent.renamed) };
        assert!(!String::from_utf8_lossy(&sent.body).contains(&client));
        let context = Context {
            model: "m".to_owned(),
            id: "i".to_owned(),
            created: 0,
            usage_asked: true,
            renamed: sent.renamed.clone(),
        };
        let reading = Reading {
            endpoint: Endpoint::Messages,
            api: Api::OpenAI,
            way: Way::Translate,
            context,
            hides_usage: false,
            plain: false,
        };
        let call = serde_json::json!({"index": 0, "id": "c", "type": "function", "function": {"name": short, "arguments": "{}"}});
        let choice = |of: &str| serde_json::json!({"choices": [{"index": 0, "finish_reason": "tool_calls", of: {"tool_calls": [call]}}]});
        let whole = reading.whole(&Bytes::from(choice("message").to_string())).unwrap();
        assert!(String::from_utf8_lossy(&whole.body).contains(&client));
        let mut stream = reading.stream(1 << 16);
        let chunk = format!("data: {}\n\n", choice("delta"));
        let (sink, _) = stream.read_all(std::iter::once(chunk.as_bytes()));
        assert!(String::from_utf8_lossy(&sink.out).contains(&client));
    }

    #[test]
    fn dropped_fields_fit_into_a_header() {
        let named = |names_of: &[&str]| names(names_of.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(
            named(&["messages[0].x", "messages[12].x", "tools[3].y[1].z2", "seed", "é\n"]),
            ["messages[].x", "tools[].y[].z2", "seed", "??"]
        );
        let many: Vec<String> = (0..200).map(|at| format!("{}{}", "x".repeat(at), "é".repeat(300))).collect();
        let many = names(many);
        assert_eq!(many.len(), NAMES_MAX);
        assert!(many.iter().all(|name| name.len() <= NAME_CHARS_MAX));
    }
}
