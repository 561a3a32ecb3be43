//! What must hold of any bytes as JSON of a dialect: understood or refused, and what is understood can be said in every
//! dialect, or is refused there by name.

use crate::{
    order,
    provider::{
        anthropic, bedrock,
        conversation::{Conversation, Target},
        error_body::BadRequest,
        openai,
        reply::{ApiError, Context, Event, Garbage, Outgoing, Reply, Unsupported},
        splice::OutputField,
        sse,
    },
};

const MODELS: [&str; 3] = ["gpt-4o", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-opus-4-8"];

/// # Panics
/// It does not hold.
pub fn hold(bytes: &[u8]) {
    request(openai::request::decode(bytes));
    request(anthropic::request::decode(bytes));
    for answer in
        [openai::answer::decode(bytes), anthropic::answer::decode(bytes), bedrock::answer::decode(bytes)]
    {
        reply(answer);
    }
    for error in [
        openai::error::decode(500, "", bytes),
        anthropic::error::decode(500, "", bytes),
        bedrock::error::decode(500, "", bytes),
    ] {
        says_something(&error);
    }
    // An event a line.
    let lines = || bytes.split(|byte| *byte == b'\n');
    let mut decoder = openai::stream::Decoder::default();
    let read = events(lines(), |line| decoder.push("", line));
    streamed(read, decoder.finish());
    let mut decoder = anthropic::stream::Decoder::default();
    let read = events(lines(), |line| decoder.push("", line));
    streamed(read, decoder.finish());
}

fn request(decoded: Result<Conversation, BadRequest>) {
    let conversation = match decoded {
        Ok(conversation) => conversation,
        Err(error) => return assert!(!error.message.is_empty()),
    };
    for model in MODELS {
        let target = Target { model, output_limit: None };
        for encoded in [
            openai::request::encode(&conversation, &target, OutputField::MaxTokens, true),
            openai::request::encode(&conversation, &target, OutputField::MaxCompletionTokens, false),
            anthropic::request::encode(&conversation, &target),
            bedrock::request::encode(&conversation, &target),
        ] {
            sent(encoded);
        }
    }
}

fn sent(encoded: Result<Outgoing, Unsupported>) {
    match encoded {
        Ok(outgoing) => {
            assert!(outgoing.path.starts_with('/') && outgoing.path.is_ascii());
            assert!(serde_json::from_slice::<serde_json::Value>(&outgoing.body).unwrap().is_object());
        }
        Err(refused) => assert!(!refused.param.is_empty() && !refused.why.is_empty()),
    }
}

fn context() -> Context {
    Context { model: "m".to_owned(), id: "1".to_owned(), created: 1, usage_asked: true, renamed: Vec::new() }
}

/// What an encoder wrote, its own decoder reads.
fn reply(decoded: Result<Reply, Garbage>) {
    let reply = match decoded {
        Ok(reply) => reply,
        Err(garbage) => return assert!(!garbage.0.is_empty()),
    };
    let said = openai::answer::encode(&reply, &context());
    openai::answer::decode(&said).unwrap();
    let said = anthropic::answer::encode(&reply, &context());
    anthropic::answer::decode(&said).unwrap();
}

fn events<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    mut push: impl FnMut(&[u8]) -> Result<Vec<Event>, Garbage>,
) -> (Vec<Event>, bool) {
    let mut all = Vec::new();
    for line in lines {
        match push(line) {
            Ok(events) => all.extend(events),
            Err(garbage) => {
                assert!(!garbage.0.is_empty());
                return (all, false);
            }
        }
    }
    (all, true)
}

/// In order, and as server-sent events of both client dialects.
fn streamed((mut read, whole): (Vec<Event>, bool), end: Vec<Event>) {
    if whole {
        read.extend(end);
    }
    order::hold(&read);
    let mut out = Vec::new();
    let mut encoder = openai::stream::Encoder::new(context());
    read.iter().for_each(|event| encoder.encode(event, &mut out));
    are_events(&out);
    let mut out = Vec::new();
    let mut encoder = anthropic::stream::Encoder::new(context());
    read.iter().for_each(|event| encoder.encode(event, &mut out));
    are_events(&out);
}

fn are_events(bytes: &[u8]) {
    let mut splitter = sse::Splitter::new(1 << 24);
    splitter.push(bytes::Bytes::copy_from_slice(bytes));
    while let Some(event) = splitter.next_event().unwrap() {
        if let Some(data) = sse::data(event) {
            assert!(data.as_ref() == b"[DONE]" || serde_json::from_slice::<serde_json::Value>(&data).is_ok());
        }
    }
    assert_eq!(splitter.rest(), None);
}

fn says_something(error: &ApiError) {
    assert!((400..600).contains(&error.status), "{error:?}");
    assert!(!error.message.is_empty() && error.message.len() < 8_000, "{error:?}");
    for said in [openai::error::encode(error), anthropic::error::encode(error)] {
        assert!(serde_json::from_slice::<serde_json::Value>(&said).unwrap().is_object());
    }
    are_events(&openai::error::encode_event(error));
    are_events(&anthropic::error::encode_event(error));
    assert!((400..600).contains(&openai::error::status(error)));
    assert!((400..600).contains(&anthropic::error::status(error)));
}
