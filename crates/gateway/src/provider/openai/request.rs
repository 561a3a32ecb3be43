//! A chat completion's request: decoded for a client of this dialect, encoded for a backend of it.

pub(crate) use super::{request_in::decode, request_out::encode};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Number, Value, json};

    use super::*;
    use crate::provider::{
        conversation::{
            Block, Content, Conversation, Format, Reasoning, Role, Source, Target, Tool, ToolChoice, Turn,
        },
        splice::OutputField,
    };

    fn text() -> impl Strategy<Value = Content> {
        "[a-zé\"\\\\\n]{1,12}".prop_map(Content::Text)
    }

    fn user_turn() -> impl Strategy<Value = Turn> {
        let image = ("[a-zA-Z0-9+/]{4,8}", proptest::option::of("low|high")).prop_map(|(data, detail)| {
            Content::Image { source: Source::Base64 { media_type: "image/png".to_owned(), data }, detail }
        });
        let url = "[a-z]{1,8}".prop_map(|path| Content::Image {
            source: Source::Url(format!("https://example.com/{path}")),
            detail: None,
        });
        let document = "[a-z]{1,8}".prop_map(|name| Content::Document {
            source: Source::Base64 { media_type: "application/pdf".to_owned(), data: "JVBERi0=".to_owned() },
            name: Some(name),
        });
        let said = proptest::collection::vec(prop_oneof![text(), image, url, document], 1..4);
        let results = proptest::collection::vec(
            ("call_[0-9]{1,3}", "[a-z ]{1,9}").prop_map(|(id, text)| Content::ToolResult {
                id,
                blocks: vec![Content::Text(text).into()],
                is_error: false,
            }),
            1..3,
        );
        prop_oneof![said, results].prop_map(|contents| turn(Role::User, contents))
    }

    fn assistant_turn() -> impl Strategy<Value = Turn> {
        let call = ("call_[0-9]{1,3}", "[a-z_]{1,8}", "[a-z\"]{0,6}").prop_map(|(id, name, city)| {
            Content::ToolUse { id, name, input: json!({ "city": city, "n": 1.5 }).to_string() }
        });
        (proptest::option::of(text()), proptest::collection::vec(call, 1..3))
            .prop_map(|(text, calls)| turn(Role::Assistant, text.into_iter().chain(calls).collect()))
    }

    fn turn(role: Role, contents: Vec<Content>) -> Turn {
        Turn { role, blocks: contents.into_iter().map(Block::from).collect() }
    }

    /// Neighbouring turns of calls are one turn to the decoder, and results stand before all else that the user says.
    fn apart(turns: Vec<Turn>) -> Vec<Turn> {
        let results = |turn: &Turn| matches!(turn.blocks[0].content, Content::ToolResult { .. });
        let mut kept: Vec<Turn> = Vec::new();
        for turn in turns {
            let before = kept.last().map(|turn| turn.role);
            if before != Some(turn.role) || (turn.role == Role::User && !results(&turn)) {
                kept.push(turn);
            }
        }
        kept
    }

    fn conversation() -> impl Strategy<Value = Conversation> {
        let turns =
            proptest::collection::vec(prop_oneof![user_turn(), assistant_turn()], 0..6).prop_map(apart);
        let format = prop_oneof![
            Just(Format::Text),
            Just(Format::Json),
            Just(Format::Schema {
                name: Some("answer".to_owned()),
                schema: json!({"type": "object"}),
                strict: Some(true)
            }),
        ];
        let choice = prop_oneof![
            Just(None),
            Just(Some(ToolChoice::Auto)),
            Just(Some(ToolChoice::None)),
            Just(Some(ToolChoice::Any)),
            Just(Some(ToolChoice::Named("look".to_owned()))),
        ];
        let numbers = (proptest::option::of(1u64..9000), proptest::option::of(1u64..50), 0u32..200);
        (
            (proptest::option::of(text()), turns, choice, format),
            (numbers, any::<bool>(), proptest::collection::vec("[a-z]{1,4}", 0..3)),
        )
            .prop_map(
                |((system, mut turns, choice, format), ((limit, top_k, warmth), stream, stop))| {
                    turns.push(turn(Role::User, vec![Content::Text("and?".to_owned())]));
                    Conversation {
                        model: "some-model".to_owned(),
                        system: system.into_iter().map(Block::from).collect(),
                        turns,
                        tools: vec![Tool {
                            name: "look".to_owned(),
                            description: Some("Looks.".to_owned()),
                            schema: json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}),
                            strict: Some(true),
                            cache: None,
                        }],
                        tool_choice: choice,
                        parallel_tools: stream.then_some(false),
                        output_limit: limit,
                        temperature: Number::from_f64(f64::from(warmth) / 100.0),
                        top_k,
                        stop,
                        format,
                        stream,
                        user: Some("u-1".to_owned()),
                        ..Conversation::default()
                    }
                },
            )
    }

    const AGENT: &[u8] = include_bytes!("../../../golden/openai/agent_request.json");

    /// Puts `by` in the place of the value that is the `at`th below `value`; says whether there are so many.
    fn put(value: &mut Value, at: &mut usize, by: &Value) -> bool {
        let below: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(members) => members.values_mut().collect(),
            _ => return false,
        };
        below.into_iter().any(|inner| {
            if *at == 0 {
                *inner = by.clone();
                return true;
            }
            *at -= 1;
            put(inner, at, by)
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_again(conversation in conversation()) {
            let target = Target { model: "some-model", output_limit: None };
            let out = encode(&conversation, &target, OutputField::MaxTokens, true).unwrap();
            prop_assert_eq!(&out.dropped, &Vec::<String>::new());
            prop_assert_eq!(decode(&out.body).unwrap(), conversation);
        }

        /// Any value in the place of any other gives a request or an error that names something.
        #[test]
        fn misplaced_values_are_never_a_panic(at in 0usize..100, by in 0usize..7) {
            let mut body: Value = serde_json::from_slice(AGENT).unwrap();
            let by = [json!(null), json!(true), json!(-1), json!("x"), json!([]), json!({}), json!([{"type": "text"}])][by].clone();
            let found = put(&mut body, &mut { at }, &by);
            prop_assert!(found);
            if let Err(error) = decode(body.to_string().as_bytes()) {
                prop_assert!(error.param.is_some_and(|param| !param.is_empty()), "{}", error.message);
            }
        }

        #[test]
        fn damaged_requests_never_panic(at in 0usize..4000, byte in any::<u8>()) {
            let mut body = AGENT.to_vec();
            let at = at % body.len();
            body[at] = byte;
            let _ = decode(&body);
            let _ = decode(&body[..at]);
        }
    }

    #[test]
    fn effort_round_trip() {
        for (model, reasoning) in [
            ("gpt-5.1", Reasoning::Off),
            ("gpt-5.2", Reasoning::Effort("xhigh".to_owned())),
            ("o3", Reasoning::Effort("low".to_owned())),
        ] {
            let conversation = Conversation {
                model: model.to_owned(),
                turns: vec![turn(Role::User, vec![Content::Text("hi".to_owned())])],
                reasoning: Some(reasoning),
                ..Conversation::default()
            };
            let target = Target { model, output_limit: None };
            let out = encode(&conversation, &target, OutputField::MaxCompletionTokens, true).unwrap();
            assert_eq!(decode(&out.body).unwrap(), conversation);
        }
    }
}
