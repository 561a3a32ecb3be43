//! A request that was understood, and the answer to it in its own dialect. No HTTP: bytes in, bytes out.

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::anthropic::{self, Host};
use super::ask::{Ask, Reply, Usage};
use super::behaviour::Behaviour;
use super::dialect::{Dialect, Endpoint, Route};
use super::error::Refusal;
use super::openai_chat::{self, Extras};
use super::openai_media::{self, Form};
use super::output::{self, Output, SSE};
use super::{
    anthropic_answer, brain, converse, converse_answer, event_stream, openai_responses, openai_text, read,
};

#[derive(Debug)]
pub(super) struct Job {
    pub dialect: Dialect,
    pub endpoint: Endpoint,
    pub ask: Ask,
    body: Value,
    form: Form,
}

impl Job {
    /// # Errors
    /// What the provider would refuse.
    pub fn read(route: &Route, content_type: &str, bytes: &Bytes) -> Result<Self, Refusal> {
        let Route { dialect, endpoint, .. } = *route;
        let model = route.model.as_deref();
        if matches!(endpoint, Endpoint::Transcriptions | Endpoint::Translations) {
            let (ask, form) = openai_media::read_form(content_type, bytes, model)?;
            if ask.stream {
                return Err(Refusal::bad("streams of transcripts are not simulated: leave out stream"));
            }
            return Ok(Self { dialect, endpoint, ask, body: Value::Null, form });
        }
        let body: Value = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::bad(format!("We could not parse the JSON body of your request: {error}"))
        })?;
        if !body.is_object() {
            return Err(Refusal::bad("the JSON body of a request is an object"));
        }
        let ask = match endpoint {
            Endpoint::Chat => openai_chat::read(&body, model)?,
            Endpoint::Responses => openai_responses::read(&body)?,
            Endpoint::Completions => openai_text::read(&body, model, "prompt")?,
            Endpoint::Embeddings => openai_text::read(&body, model, "input")?,
            Endpoint::Images if body["stream"] == true => {
                return Err(Refusal::bad("streams of images are not simulated: leave out stream"));
            }
            Endpoint::Images => openai_media::read_image(&body, model)?,
            Endpoint::Speech => openai_media::read_speech(&body, model)?,
            Endpoint::Messages => anthropic::read(&body, Host::Anthropic, None)?,
            Endpoint::Invoke | Endpoint::InvokeStream => {
                let mut ask = anthropic::read(&body, Host::Bedrock, model)?;
                ask.stream = endpoint == Endpoint::InvokeStream;
                ask
            }
            Endpoint::Converse | Endpoint::ConverseStream => {
                let mut ask = converse::read(&body, model.unwrap_or(""))?;
                ask.stream = endpoint == Endpoint::ConverseStream;
                ask
            }
            Endpoint::CountTokens if dialect == Dialect::Anthropic => {
                anthropic::read(&body, Host::Count, None)?
            }
            Endpoint::CountTokens => read_count(&body, model.unwrap_or(""))?,
            Endpoint::Models | Endpoint::Transcriptions | Endpoint::Translations => {
                return Err(Refusal {
                    status: 405,
                    code: None,
                    message: "this path takes other requests".into(),
                });
            }
        };
        Ok(Self { dialect, endpoint, ask, body, form: Form::default() })
    }

    /// What the request itself asks for, by its text, its model and its metadata.
    ///
    /// # Errors
    /// A phrase that means nothing.
    pub fn behaviour(&self, mut behaviour: Behaviour) -> Result<Behaviour, Refusal> {
        behaviour.read_phrases(&self.ask.model).map_err(Refusal::bad)?;
        behaviour.read_phrases(&self.ask.last_text()).map_err(Refusal::bad)?;
        if let Some(metadata) = self.body["metadata"].as_object() {
            let entries = metadata.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
            behaviour.read_metadata(entries);
        }
        Ok(behaviour)
    }

    /// `tokens`: of an answer that has nothing to say. `cached`: of the input, read from and written to a cache.
    pub fn output(&self, behaviour: &Behaviour, tokens: u64, cached: (u64, u64)) -> Output {
        let mut reply = brain::think(&self.ask, behaviour, tokens, cached);
        if matches!(self.endpoint, Endpoint::Completions | Endpoint::Embeddings)
            && behaviour.input_tokens.is_none()
        {
            reply.usage.input = openai_text::input_tokens(&self.ask);
        }
        match self.endpoint {
            Endpoint::Chat | Endpoint::Completions => self.openai(&reply),
            Endpoint::Responses if self.ask.stream => {
                let events = openai_responses::events(&self.body, &reply);
                named_events(events, reply.usage)
            }
            Endpoint::Responses => Output::json(&openai_responses::answer(&self.body, &reply), reply.usage),
            Endpoint::Embeddings => {
                let usage = Usage { output: 0, ..reply.usage };
                Output::json(&openai_text::embeddings(&self.body, &reply), usage)
            }
            Endpoint::Models => Output::json(&openai_text::models(), Usage::default()),
            Endpoint::Images => {
                let usage = openai_media::image_usage(&self.ask, reply.usage);
                Output::json(&openai_media::image(&reply, &usage), usage)
            }
            Endpoint::Speech => {
                Output::whole("audio/wav", openai_media::speech(), Usage { output: 0, ..reply.usage })
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                let usage = openai_media::audio_usage(&self.form);
                match openai_media::transcription(&self.form, &reply, &usage) {
                    Ok(answer) => Output::json(&answer, usage),
                    Err(text) => Output::whole("text/plain", text, usage),
                }
            }
            Endpoint::CountTokens => {
                let name = if self.dialect == Dialect::Anthropic { "input_tokens" } else { "inputTokens" };
                Output::json(&json!({name: reply.usage.input}), Usage::default())
            }
            Endpoint::Messages if self.ask.stream => {
                named_events(anthropic_answer::events(&reply), reply.usage)
            }
            Endpoint::Messages => Output::json(&anthropic_answer::answer(&reply), reply.usage),
            Endpoint::Invoke => invoked(&reply),
            Endpoint::InvokeStream => invoked_stream(&reply),
            Endpoint::Converse => Output::json(&converse_answer::answer(&reply), reply.usage),
            Endpoint::ConverseStream => {
                let events = converse_answer::events(&reply);
                let frame = |(kind, payload, tokens): &converse_answer::Event| {
                    (event_stream::event(kind, payload), *tokens)
                };
                let frames = events.iter().map(frame).collect();
                Output::events(event_stream::CONTENT_TYPE, frames, reply.usage)
            }
        }
    }

    fn openai(&self, reply: &Reply) -> Output {
        let chat = self.endpoint == Endpoint::Chat;
        let extras: Extras = openai_chat::extras(&self.body, self.dialect == Dialect::Azure);
        if !self.ask.stream {
            let answer =
                if chat { openai_chat::answer(reply, extras) } else { openai_text::completion(reply) };
            return Output::json(&answer, reply.usage);
        }
        let events = if chat {
            openai_chat::events(reply, extras)
        } else {
            openai_text::completion_events(reply, extras)
        };
        let event = |(event, tokens): &(Value, u64)| (output::written(b"data: ", event, b"\n\n"), *tokens);
        let mut events: Vec<(Bytes, u64)> = events.iter().map(event).collect();
        events.push((Bytes::from_static(b"data: [DONE]\n\n"), 0));
        Output::events(SSE, events, reply.usage)
    }

    /// An error where an answer should be, or among the events of one.
    pub fn error_inside(&self, behaviour: &Behaviour) -> Bytes {
        let default = if self.dialect == Dialect::Anthropic { 529 } else { 500 };
        let refusal = Refusal::asked(behaviour.status.unwrap_or(default));
        let body = refusal.body(self.dialect);
        if !self.ask.stream {
            return body.to_string().into();
        }
        match (self.dialect, self.endpoint) {
            (Dialect::Bedrock, _) => event_stream::exception(&refusal),
            (Dialect::Anthropic, _) => format!("event: error\ndata: {body}\n\n").into(),
            (_, Endpoint::Responses) => {
                let event = json!({"type": "error", "code": "server_error", "message": refusal.message, "param": null, "sequence_number": 0});
                format!("event: error\ndata: {event}\n\n").into()
            }
            _ => format!("data: {body}\n\n").into(),
        }
    }
}

fn read_count(body: &Value, model: &str) -> Result<Ask, Refusal> {
    let input = &body["input"];
    if let Some(converse) = read::field(input, "converse") {
        return converse::read(converse, model);
    }
    let bytes = read::text(&input["invokeModel"], "body")
        .ok_or_else(|| Refusal::bad("input: exactly one of converse and invokeModel must be set"))?;
    let body = serde_json::from_slice(&read::decode(bytes)?)
        .map_err(|error| Refusal::bad(format!("input.invokeModel.body is no JSON: {error}")))?;
    anthropic::read(&body, Host::Bedrock, Some(model))
}

/// Events of an SSE stream that are named by their own type.
fn named_events(events: Vec<(Value, u64)>, usage: Usage) -> Output {
    let event = |(event, tokens): &(Value, u64)| {
        let name = read::text(event, "type").unwrap_or("");
        (output::written(format!("event: {name}\ndata: ").as_bytes(), event, b"\n\n"), *tokens)
    };
    Output::events(SSE, events.iter().map(event).collect(), usage)
}

fn invoked(reply: &Reply) -> Output {
    let mut output = Output::json(&anthropic_answer::answer(reply), reply.usage);
    if !reply.no_usage {
        output.headers.push(("x-amzn-bedrock-input-token-count", reply.usage.input.to_string()));
        output.headers.push(("x-amzn-bedrock-output-token-count", reply.usage.output.to_string()));
    }
    output
}

fn invoked_stream(reply: &Reply) -> Output {
    let mut events = anthropic_answer::events(reply);
    if let Some((last, _)) = events.last_mut().filter(|_| !reply.no_usage) {
        last["amazon-bedrock-invocationMetrics"] = json!({
            "inputTokenCount": reply.usage.input, "outputTokenCount": reply.usage.output,
            "invocationLatency": 1, "firstByteLatency": 1,
        });
    }
    let frames = events.iter().map(|(event, tokens)| (event_stream::chunk(event), *tokens)).collect();
    let mut output = Output::events(event_stream::CONTENT_TYPE, frames, reply.usage);
    output.headers.push(("x-amzn-bedrock-content-type", "application/json".into()));
    output
}
