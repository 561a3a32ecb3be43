//! Recorded answers of the real OpenAI, replayed: the client sees the same status and bytes, and pays the usage.

use std::path::Path;

use serde_yaml_ng::Value;

use super::{
    provider::{Step, answer_with},
    shared::shared,
    world::{World, per_user},
};
use crate::{
    estimate,
    provider::{Endpoint, Facts, chunk, facts, sse::Splitter},
    tokenizer::{Overheads, Tokenizer},
};

struct Recording {
    name: String,
    path: String,
    request: String,
    status: u64,
    content_type: String,
    body: String,
}

fn recordings() -> Vec<Recording> {
    let Some(folder) = shared("fixtures/openai") else { return Vec::new() };
    let files = std::fs::read_dir(folder).unwrap();
    let mut recordings: Vec<Recording> = files.map(|file| read(&file.unwrap().path())).collect();
    assert!(!recordings.is_empty(), "a folder without recordings");
    recordings.sort_by(|a, b| a.name.cmp(&b.name));
    recordings
}

fn read(path: &Path) -> Recording {
    let value: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let interaction = &value["interactions"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (request, response) = (&interaction["request"], &interaction["response"]);
    Recording {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        path: text(&request["url"]).split_once("api.openai.com").unwrap().1.to_owned(),
        request: text(&request["body"]),
        status: response["code"].as_u64().unwrap(),
        content_type: text(&response["headers"]["Content-Type"][0]),
        body: text(&response["body"]),
    }
}

impl Recording {
    fn is_stream(&self) -> bool {
        self.content_type.starts_with("text/event-stream")
    }

    fn endpoint(&self) -> Endpoint {
        match self.path.as_str() {
            "/v1/chat/completions" => Endpoint::Chat,
            "/v1/completions" => Endpoint::Completions,
            _ => Endpoint::Embeddings,
        }
    }

    /// (input, total)
    fn usage(&self) -> Option<(u64, u64)> {
        if self.is_stream() {
            let mut splitter = Splitter::new(1 << 20);
            splitter.push(self.body.clone().into());
            let mut usage = None;
            while let Some(event) = splitter.next_event().unwrap() {
                usage = chunk::inspect(event, &mut String::new()).unwrap().usage.or(usage);
            }
            return usage.map(|usage| (usage.input, usage.total));
        }
        let body: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        let usage = body.get("usage")?;
        Some((usage["prompt_tokens"].as_u64()?, usage["total_tokens"].as_u64()?))
    }
}

#[tokio::test]
async fn the_client_sees_the_same_and_pays_the_usage() {
    for recording in recordings() {
        let world = World::new(&per_user(1_000_000)).await;
        let headers = format!("content-type: {}\r\n", recording.content_type);
        world.provider.plays([answer_with(
            &format!("{} Recorded", recording.status),
            &headers,
            &recording.body,
        )]);
        let answer = world.ask(&recording.path, &recording.request, &[("te", "trailers")]).await;
        assert_eq!(u64::from(answer.status.as_u16()), recording.status, "{}", recording.name);
        assert_eq!(answer.text(), recording.body, "{}", recording.name);
        assert_eq!(answer.header("content-type"), Some(recording.content_type.as_str()));
        let (spent, reserved) = world.alice();
        assert_eq!(reserved, 0, "{}", recording.name);
        match recording.usage() {
            Some((_, total)) => assert_eq!(spent, total, "{}", recording.name),
            None if recording.status >= 400 => assert_eq!(spent, 0, "{}", recording.name),
            None => assert!(spent > 0, "{} has no usage and was counted", recording.name),
        }
    }
}

/// Streams recorded without usage, replayed with what OpenAI sends when it is asked for: hidden, and charged.
#[tokio::test]
async fn streams_cut_at_every_byte_come_out_the_same() {
    for recording in recordings().into_iter().filter(Recording::is_stream) {
        let world = World::new(&per_user(1_000_000)).await;
        let usage = super::provider::usage(8, 70);
        let asked = recording.request.contains("include_usage");
        let sent = if asked {
            recording.body.clone()
        } else {
            recording.body.replace("data: [DONE]", &format!("{usage}data: [DONE]"))
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
            recording.content_type,
            sent.len()
        );
        let mut steps = vec![Step::Write(head.into_bytes())];
        steps.extend(sent.as_bytes().chunks(1).map(|byte| Step::Write(byte.to_vec())));
        world.provider.plays(steps);
        let answer = world.ask(&recording.path, &recording.request, &[]).await;
        let total = recording.usage().map_or(78, |(_, total)| total);
        assert_eq!(answer.text(), format!("{}: x-ai-gateway-tokens-used={total}\n\n", recording.body));
        assert_eq!(world.alice(), (total, 0), "{}", recording.name);
    }
}

/// The bound, and the exact count with its overheads, are never below what OpenAI counted.
#[test]
fn estimates_are_upper_bounds_of_what_openai_counted() {
    for recording in recordings() {
        let Some((input, _)) = recording.usage() else { continue };
        let body = recording.request.as_bytes();
        let facts = Facts::decode(recording.endpoint(), body).unwrap();
        let model = facts.model.clone().unwrap();
        let (tokenizer, overheads) = (Tokenizer::for_model(&model), Overheads::for_model(&model));
        let measured =
            facts::measure_input(recording.endpoint(), body, |text| tokenizer.count(text)).unwrap();
        let exact = estimate::input_exact(&facts, overheads, &measured);
        let bound = estimate::input_bound(&facts, overheads);
        eprintln!("{}: counted {input}, exact {exact}, by bytes {bound}", recording.name);
        assert!(input <= exact && exact <= bound, "{}: {input} {exact} {bound}", recording.name);
        assert!(exact <= input + 100, "{}: {exact} is far above {input}", recording.name);
    }
}
