//! The chunks of a streamed chat completion, read into events.
//!
//! Chunks have no blocks: one is opened when its first piece comes and closed when another kind of piece, or another tool
//! call, does (a call only if its input is whole: see [`Call`]). Servers disagree on the end (a `finish_reason` in several chunks or in none, usage before, with or after it),
//! so [`Event::Stop`] waits until `[DONE]` or the end of the body.

use serde_json::Value;

use super::{answered, calls::Call, error};
use crate::provider::{
    reply::{Event, Garbage, Opening, Stop},
    usage::Usage,
};

pub(crate) use super::chunks::Encoder;

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    /// After the end, or an error.
    over: bool,
    id: String,
    /// Blocks so far.
    blocks: usize,
    /// The open block and what it holds, apart from calls.
    open: Option<(usize, Kind)>,
    calls: Vec<Call>,
    refused: bool,
    finish: Option<Stop>,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Refusal,
}

impl Decoder {
    /// The data of one event.
    pub(crate) fn push(&mut self, name: &str, data: &[u8]) -> Result<Vec<Event>, Garbage> {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return Ok(Vec::new());
        }
        if data == b"[DONE]" {
            return if self.started {
                Ok(self.end())
            } else {
                Err(Garbage("the stream ended before its first chunk".to_owned()))
            };
        }
        let chunk: Value = serde_json::from_slice(data)
            .map_err(|error| Garbage(format!("a chunk of the stream is not valid JSON: {error}")))?;
        let failed = chunk.get("error").is_some_and(|error| !error.is_null());
        if failed || name == "error" || chunk.get("object").is_some_and(|object| object == "error") {
            self.over = true;
            return Ok(vec![Event::Error(error::decode_inside(data))]);
        }
        let mut usage = [chunk.get("usage"), chunk.pointer("/x_groq/usage")].into_iter().flatten();
        let usage = usage.find_map(|usage| serde_json::from_value::<Usage>(usage.clone()).ok());
        if usage.is_none() && !chunk.get("choices").is_some_and(Value::is_array) {
            return Err(Garbage("a chunk of the stream has no `choices`".to_owned()));
        }
        let mut events = Vec::new();
        let choices = answered::list(&chunk, "choices");
        // Azure begins with a chunk without choices (and without an id).
        if !self.started && (usage.is_some() || !choices.is_empty()) {
            self.started = true;
            self.id = answered::text(&chunk, "id").to_owned();
            events.push(Event::Start {
                id: self.id.clone(),
                model: answered::text(&chunk, "model").to_owned(),
            });
        }
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        for choice in choices.iter().filter(first) {
            // A server that does not stream sends the whole message.
            if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
                self.delta(delta, &mut events)?;
            }
            if let Some(stop) = answered::stop(choice) {
                self.finish = Some(stop);
            }
        }
        if let Some(usage) = usage {
            let news = self.usage.replace(usage) != Some(usage);
            if news && self.finish.is_none() {
                events.push(Event::Usage(usage));
            }
        }
        Ok(events)
    }

    /// The body ended: the end if the answer was complete, nothing if it was cut off.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        if self.over || self.finish.is_none() { Vec::new() } else { self.end() }
    }

    fn end(&mut self) -> Vec<Event> {
        self.over = true;
        let mut events = Vec::new();
        self.close(&mut events);
        self.calls.iter_mut().for_each(|call| call.close(&mut events));
        let stop = self.finish.take().unwrap_or(Stop::End);
        events.push(Event::Stop(answered::settled(stop, !self.calls.is_empty(), self.refused)));
        events.extend(self.usage.map(Event::Usage));
        events.push(Event::Done);
        events
    }

    fn delta(&mut self, delta: &Value, events: &mut Vec<Event>) -> Result<(), Garbage> {
        self.thoughts(delta, events);
        let text = answered::said(delta.get("content"));
        if !text.is_empty() {
            let index = self.block(Kind::Text, events);
            events.push(Event::Text { index, text });
        }
        let refusal = answered::text(delta, "refusal");
        if !refusal.is_empty() {
            self.refused = true;
            let index = self.block(Kind::Refusal, events);
            events.push(Event::Refusal { index, text: refusal.to_owned() });
        }
        for call in answered::list(delta, "tool_calls") {
            self.call(call, events)?;
        }
        Ok(())
    }

    /// LiteLLM's `thinking_blocks` repeat the plain text, with signatures.
    fn thoughts(&mut self, delta: &Value, events: &mut Vec<Event>) {
        let signed = answered::list(delta, "thinking_blocks");
        if signed.is_empty() {
            self.thought(answered::reasoning(delta), events);
        }
        for block in signed {
            if answered::text(block, "type") == "redacted_thinking" {
                self.close(events);
                let index = self.next();
                let data = answered::text(block, "data").to_owned();
                events.push(Event::Open { index, block: Opening::RedactedThinking(data) });
                events.push(Event::Close { index });
                continue;
            }
            self.thought(answered::text(block, "thinking"), events);
            let signature = answered::text(block, "signature");
            if !signature.is_empty() {
                let index = self.block(Kind::Thinking, events);
                events.push(Event::Signature { index, signature: signature.to_owned() });
                // It is the last of its block: what is thought afterwards is signed anew.
                self.close(events);
            }
        }
    }

    fn thought(&mut self, text: &str, events: &mut Vec<Event>) {
        if !text.is_empty() {
            let index = self.block(Kind::Thinking, events);
            events.push(Event::Thinking { index, text: text.to_owned() });
        }
    }

    fn call(&mut self, delta: &Value, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let nothing = Value::Null;
        let function = delta.get("function").unwrap_or(&nothing);
        let (id, name) = (answered::text(delta, "id"), answered::text(function, "name"));
        let at = delta.get("index").and_then(Value::as_u64);
        let call = match self.known(at, id, name) {
            Some(call) => call,
            None if name.is_empty() => {
                return Err(Garbage("a tool call of the stream begins without its name".to_owned()));
            }
            None => {
                self.close(events);
                let call = self.calls.len();
                let index = self.next();
                self.calls.push(Call::new(at, id, index));
                let id = if id.is_empty() { answered::call_id(&self.id, call) } else { id.to_owned() };
                events.push(Event::Open { index, block: Opening::ToolUse { id, name: name.to_owned() } });
                call
            }
        };
        let json = answered::arguments(function);
        if json.is_empty() || self.calls[call].add(json, events) {
            return Ok(());
        }
        Err(Garbage("a tool call of the stream goes on after its input was whole".to_owned()))
    }

    /// The call that a piece belongs to. `None`: it begins one. Some servers give every call the index 0, or none at all.
    fn known(&self, at: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let found = match at {
            Some(_) => self.calls.iter().rposition(|call| call.at == at),
            None if !id.is_empty() => self.calls.iter().rposition(|call| call.id == id),
            None if name.is_empty() => self.calls.len().checked_sub(1),
            None => None,
        };
        let other = |call: &usize| {
            !id.is_empty() && !name.is_empty() && self.calls.get(*call).is_some_and(|call| call.id != id)
        };
        found.filter(|call| !other(call))
    }

    /// The open block of that kind, opened if need be.
    fn block(&mut self, kind: Kind, events: &mut Vec<Event>) -> usize {
        if let Some((index, _)) = self.open.filter(|(_, open)| *open == kind) {
            return index;
        }
        self.close(events);
        let block = match kind {
            Kind::Thinking => Opening::Thinking,
            Kind::Refusal => Opening::Refusal,
            Kind::Text => Opening::Text,
        };
        let index = self.next();
        events.push(Event::Open { index, block });
        self.open = Some((index, kind));
        index
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        events.extend(self.open.take().map(|(index, _)| Event::Close { index }));
        self.calls.iter_mut().for_each(|call| call.close_if_whole(events));
    }

    fn next(&mut self) -> usize {
        self.blocks += 1;
        self.blocks - 1
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
