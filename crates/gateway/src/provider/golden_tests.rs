//! What every pair of dialects makes of recorded-like requests, answers and streams, against the files in `golden/`.
//! `QUORATE_GOLDEN=write cargo test -p quorate-gateway golden` writes them anew; read what changed before it is committed.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use serde_json::Value;

use super::{
    Api, Endpoint, Facts, Way, bedrock,
    exchange::{self, Reading, To},
    reply::Context,
    splice::OutputField,
    stream::{Piece, StreamReader},
};

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", name].iter().collect()
}

/// Inputs of a folder: case, dialect and content. `extensions`: which files are inputs.
fn inputs(name: &str) -> Vec<(String, String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parts: Vec<&str> = file.split('.').collect();
        if let [case, dialect, _] = parts[..]
            && !dialect.contains("-to-")
        {
            found.push((case.to_owned(), dialect.to_owned(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no inputs in golden/{name}");
    found
}

fn matches(folder_name: &str, file: &str, actual: &str) {
    let path = folder(folder_name).join(file);
    if std::env::var("QUORATE_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "golden/{folder_name}/{file}: QUORATE_GOLDEN=write writes it anew");
}

fn api(dialect: &str) -> Api {
    match dialect {
        "openai" => Api::OpenAI,
        "azure" => Api::Azure,
        "anthropic" => Api::Anthropic,
        "bedrock" => Api::Converse,
        "bedrock-anthropic" => Api::InvokeAnthropic,
        other => panic!("{other} is no dialect"),
    }
}

fn model(api: Api) -> &'static str {
    match api {
        Api::OpenAI | Api::Azure => "gpt-5-mini",
        Api::Anthropic => "claude-sonnet-4-5",
        Api::Converse | Api::InvokeAnthropic => "anthropic.claude-sonnet-4-5-20250929-v1:0",
    }
}

fn reading(endpoint: Endpoint, api: Api) -> Reading {
    let context = Context {
        model: "asked".to_owned(),
        id: "1234".to_owned(),
        created: 1_700_000_000,
        usage_asked: true,
        renamed: Vec::new(),
    };
    Reading { endpoint, api, way: endpoint.way(api).unwrap(), context, hides_usage: false, plain: false }
}

/// The endpoints whose clients do not speak as `api` does.
fn translated(api: Api) -> Vec<(&'static str, Endpoint)> {
    let both = [("openai", Endpoint::Chat), ("anthropic", Endpoint::Messages)];
    both.into_iter().filter(|(_, endpoint)| endpoint.way(api) == Some(Way::Translate)).collect()
}

#[test]
fn golden_requests() {
    for (case, from, body) in inputs("requests") {
        let endpoint = if from == "openai" { Endpoint::Chat } else { Endpoint::Messages };
        let body = Bytes::from(body);
        let facts = Facts::decode(endpoint, &body).unwrap();
        for to in ["openai", "azure", "anthropic", "bedrock", "bedrock-anthropic"] {
            let api = api(to);
            if endpoint.way(api) == Some(Way::Pass) || (from == "openai" && to == "azure") {
                continue;
            }
            let to_backend = To {
                api,
                model: model(api),
                output_limit: None,
                output_field: OutputField::MaxCompletionTokens,
                stream_usage: true,
                betas: "claude-code-20250219,interleaved-thinking-2025-05-14",
            };
            let text = match exchange::send(&facts, &body, &to_backend) {
                Ok(sent) => {
                    let body: Value = serde_json::from_slice(&sent.body).unwrap();
                    let body = serde_json::to_string_pretty(&body).unwrap();
                    format!("POST {}\ndropped: {}\n\n{body}\n", sent.path, sent.dropped.join(", "))
                }
                Err(why) => format!("refused: {why}\n"),
            };
            assert_eq!(
                text.starts_with("refused"),
                case.starts_with("refused") && endpoint.way(api) == Some(Way::Translate),
                "{case} {from} to {to}: {text}"
            );
            matches("requests", &format!("{case}.{from}-to-{to}.txt"), &text);
        }
    }
}

#[test]
fn golden_answers() {
    for (case, from, body) in inputs("answers") {
        for (to, endpoint) in translated(api(&from)) {
            let whole = reading(endpoint, api(&from)).whole(&Bytes::from(body.clone())).unwrap();
            let answer: Value = serde_json::from_slice(&whole.body).unwrap();
            let answer = serde_json::to_string_pretty(&answer).unwrap();
            matches(
                "answers",
                &format!("{case}.{from}-to-{to}.txt"),
                &format!("{:?}\n{answer}\n", whole.usage),
            );
        }
    }
}

/// Everything that a reader makes of a stream cut into `pieces`.
fn read<'a>(mut reader: StreamReader, pieces: impl Iterator<Item = &'a [u8]>) -> (String, String) {
    let (sink, piece) = reader.read_all(pieces);
    let end = match piece {
        Piece { error: Some(_), .. } => "error",
        Piece { done: true, .. } => "done",
        _ => "cut off",
    };
    let said = format!("{end}, {:?}, text {:?}", piece.usage, sink.text);
    (String::from_utf8(sink.out).unwrap(), said)
}

#[test]
fn golden_streams_wherever_they_are_cut() {
    for (case, from, content) in inputs("streams") {
        let api = api(&from);
        let bytes = if api == Api::Converse { frames(&content) } else { content };
        for (to, endpoint) in translated(api) {
            let reader = || reading(endpoint, api).stream(1 << 20);
            let whole = read(reader(), std::iter::once(bytes.as_slice()));
            matches("streams", &format!("{case}.{from}-to-{to}.txt"), &format!("{}\n\n{}", whole.1, whole.0));
            assert_eq!(read(reader(), bytes.chunks(1)), whole, "{case} {from} to {to}, byte by byte");
            for cut in 1..bytes.len() {
                let (first, second) = bytes.split_at(cut);
                assert_eq!(
                    read(reader(), [first, second].into_iter()),
                    whole,
                    "{case} {from} to {to}, cut at {cut}"
                );
            }
        }
    }
}

#[test]
fn passing_streams_wherever_they_are_cut() {
    let mut passed = 0;
    for (case, from, content) in inputs("streams") {
        let api = api(&from);
        let endpoint = if from == "openai" { Endpoint::Chat } else { Endpoint::Messages };
        if endpoint.way(api) != Some(Way::Pass) {
            continue;
        }
        passed += 1;
        for hides_usage in [false, true] {
            let reader = || Reading { hides_usage, ..reading(endpoint, api) }.stream(1 << 20);
            let read = |pieces: &[&[u8]]| {
                let mut reader = reader();
                let (mut sink, said) = reader.read_all(pieces.iter().copied());
                let end = reader.end(&mut sink);
                (sink, said, end)
            };
            let whole = read(&[&content]);
            if from != "openai" || !hides_usage {
                assert!(content.starts_with(&whole.0.out), "{case} {from}: other bytes than came");
            }
            let bytes: Vec<&[u8]> = content.chunks(1).collect();
            assert_eq!(read(&bytes), whole, "{case} {from}, byte by byte");
            for cut in 1..content.len() {
                let (first, second) = content.split_at(cut);
                assert_eq!(read(&[first, second]), whole, "{case} {from}, cut at {cut}");
            }
        }
    }
    assert!(passed > 1, "no streams that pass");
}

/// A line an event: its type, and its payload.
fn frames(lines: &[u8]) -> Vec<u8> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    let events: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').unwrap()).collect();
    bedrock::frame::tests::encode_frames(&events)
}
