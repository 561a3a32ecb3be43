//! ConverseStream's events, one message after the other. Deliberately absent: the frames around them.
//!
//! `messageStart`, then each block (`contentBlockStart` only for tools, its deltas, `contentBlockStop`), `messageStop`, and
//! `metadata` with the usage.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    answer, error,
    frame::{Kind, Message},
    usage::TokenUsage,
};
use crate::provider::reply::{Event, Garbage, Opening};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStart {
    content_block_index: u64,
    start: Start,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    tool_use: Option<ToolStart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolStart {
    tool_use_id: String,
    name: String,
    /// Of a tool that the provider runs itself: such ones are never asked for.
    r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta {
    content_block_index: u64,
    delta: Delta,
}

/// One of its members is there. Citations are passed over: no client asked for them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<ToolDelta>,
    reasoning_content: Option<ReasoningDelta>,
    image: Option<Value>,
}

#[derive(Deserialize)]
struct ToolDelta {
    input: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReasoningDelta {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStop {
    content_block_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageStop {
    stop_reason: String,
    additional_model_response_fields: Option<Value>,
}

#[derive(Deserialize)]
struct Metadata {
    usage: Option<TokenUsage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Thinking,
    Tool,
}

/// The block that is open. Bedrock streams one after the other.
#[derive(Debug, Clone, Copy)]
struct Current {
    /// As Bedrock counts.
    number: u64,
    index: usize,
    shape: Shape,
}

#[derive(Debug, Default)]
pub(crate) struct Decoder {
    started: bool,
    current: Option<Current>,
    /// Blocks opened so far.
    opened: usize,
    stopped: bool,
    /// Done, or an error: nothing follows.
    ended: bool,
}

impl Decoder {
    /// One message of the stream.
    pub(crate) fn message(&mut self, message: &Message) -> Result<Vec<Event>, Garbage> {
        match message.kind {
            Kind::Event => self.event(&message.name, &message.payload),
            Kind::Exception | Kind::Error => Ok(self.error(&message.name, &message.payload)),
        }
    }

    /// The body ended.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        if !self.stopped || self.ended {
            return Vec::new();
        }
        self.ended = true;
        vec![Event::Done]
    }

    fn error(&mut self, name: &str, data: &[u8]) -> Vec<Event> {
        if self.ended {
            return Vec::new();
        }
        self.ended = true;
        vec![Event::Error(error::decode(0, name, data))]
    }

    fn event(&mut self, name: &str, data: &[u8]) -> Result<Vec<Event>, Garbage> {
        let mut events = Vec::new();
        if self.ended {
            return Ok(events);
        }
        let of_block = matches!(name, "contentBlockStart" | "contentBlockDelta" | "contentBlockStop");
        if of_block && self.stopped {
            return Err(Garbage(format!("`{name}` after `messageStop`")));
        }
        match name {
            "messageStart" => self.start(&mut events),
            "contentBlockStart" => self.block_start(parse(name, data)?, &mut events)?,
            "contentBlockDelta" => self.block_delta(parse(name, data)?, &mut events)?,
            "contentBlockStop" => {
                let stop: BlockStop = parse(name, data)?;
                // A block without any piece was never opened.
                if self.current.is_some_and(|current| current.number == stop.content_block_index) {
                    self.close(&mut events);
                }
            }
            "messageStop" if !self.stopped => {
                let stop: MessageStop = parse(name, data)?;
                let fields = stop.additional_model_response_fields.as_ref();
                let stop = answer::stop(&stop.stop_reason, fields)?;
                self.start(&mut events);
                self.close(&mut events);
                self.stopped = true;
                events.push(Event::Stop(stop));
            }
            "metadata" => {
                let metadata: Metadata = parse(name, data)?;
                self.start(&mut events);
                events.extend(metadata.usage.and_then(|usage| usage.usage()).map(Event::Usage));
                if self.stopped {
                    self.ended = true;
                    events.push(Event::Done);
                }
            }
            // Those of a later API.
            _ => {}
        }
        Ok(events)
    }

    fn block_start(&mut self, start: BlockStart, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let number = start.content_block_index;
        match start.start.tool_use {
            Some(ToolStart { tool_use_id: id, name, r#type: None }) => {
                self.open(number, Shape::Tool, Opening::ToolUse { id, name }, events);
                Ok(())
            }
            _ => Err(Garbage(format!("block {number} is of a kind that cannot be carried over"))),
        }
    }

    fn block_delta(&mut self, delta: BlockDelta, events: &mut Vec<Event>) -> Result<(), Garbage> {
        let number = delta.content_block_index;
        let delta = delta.delta;
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            let index = self.piece(number, Shape::Text, events)?;
            events.push(Event::Text { index, text });
        }
        if let Some(tool) = delta.tool_use {
            let index = self.piece(number, Shape::Tool, events)?;
            if !tool.input.is_empty() {
                events.push(Event::Input { index, json: tool.input });
            }
        }
        if let Some(reasoning) = delta.reasoning_content {
            self.reasoning(number, reasoning, events)?;
        }
        if delta.image.is_some() {
            return Err(Garbage(format!("block {number} is an image, which cannot be carried over")));
        }
        Ok(())
    }

    fn reasoning(
        &mut self,
        number: u64,
        delta: ReasoningDelta,
        events: &mut Vec<Event>,
    ) -> Result<(), Garbage> {
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            let index = self.piece(number, Shape::Thinking, events)?;
            events.push(Event::Thinking { index, text });
        }
        if let Some(signature) = delta.signature.filter(|signature| !signature.is_empty()) {
            let index = self.piece(number, Shape::Thinking, events)?;
            events.push(Event::Signature { index, signature });
        }
        // Comes whole, as a block of its own.
        if let Some(redacted) = delta.redacted_content.filter(|redacted| !redacted.is_empty()) {
            self.open(number, Shape::Thinking, Opening::RedactedThinking(redacted), events);
            self.close(events);
        }
        Ok(())
    }

    /// The index of the block to which a piece belongs; opened, if it needed no start.
    fn piece(&mut self, number: u64, shape: Shape, events: &mut Vec<Event>) -> Result<usize, Garbage> {
        if let Some(current) = self.current.filter(|current| current.number == number) {
            if current.shape != shape {
                return Err(Garbage(format!("block {number} holds pieces of two kinds")));
            }
            return Ok(current.index);
        }
        match shape {
            Shape::Tool => {
                Err(Garbage(format!("a piece of tool input for block {number}, which is not open")))
            }
            Shape::Text => Ok(self.open(number, shape, Opening::Text, events)),
            Shape::Thinking => Ok(self.open(number, shape, Opening::Thinking, events)),
        }
    }

    fn open(&mut self, number: u64, shape: Shape, block: Opening, events: &mut Vec<Event>) -> usize {
        self.start(events);
        self.close(events);
        let index = self.opened;
        self.opened += 1;
        self.current = Some(Current { number, index, shape });
        events.push(Event::Open { index, block });
        index
    }

    fn start(&mut self, events: &mut Vec<Event>) {
        if !self.started {
            self.started = true;
            events.push(Event::Start { id: String::new(), model: String::new() });
        }
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if let Some(current) = self.current.take() {
            events.push(Event::Close { index: current.index });
        }
    }
}

fn parse<T: DeserializeOwned>(name: &str, data: &[u8]) -> Result<T, Garbage> {
    serde_json::from_slice(data)
        .map_err(|error| Garbage(format!("`{name}` of the stream is not as Bedrock's: {error}")))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
