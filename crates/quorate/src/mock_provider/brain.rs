//! What the simulated model says: the same words in every dialect, always the same for the same request.
//!
//! No language model: a few phrases of the last user turn decide, in the order of [`think`].

use serde_json::{Value, json};

use super::ask::{Ask, Block, Format, Part, Reply, Stop, Tool, ToolChoice, Turn, Usage};
use super::behaviour::Behaviour;
use super::schema;

const REFUSAL: &str = "I cannot help with that.";
const COUNT_TO: u64 = 20;
const TOKENS_MAX: u64 = 1_000_000;
/// Bytes of JSON in one piece.
const JSON_PIECE: usize = 8;

/// `tokens`: of an answer that has nothing to say. `cached`: of the input, read from and written to a cache.
pub(super) fn think(ask: &Ask, behaviour: &Behaviour, tokens: u64, cached: (u64, u64)) -> Reply {
    let (mut parts, mut stop) = say(ask, behaviour, tokens);
    if let Some(sequence) = cut_at_sequence(&mut parts, &ask.stop) {
        stop = Stop::Sequence(sequence);
    }
    if ask.thinking_tokens > 0 {
        let thoughts = (0..ask.thinking_tokens).map(|_| "hmm ".to_owned()).collect();
        parts.insert(0, Part::Thinking(thoughts));
    }
    if cut_at_limit(&mut parts, ask.tokens_max) {
        stop = Stop::Limit;
    }
    let choices = ask.choices.max(1);
    let of = |thinking: bool| -> u64 {
        let parts = parts.iter().filter(|part| !thinking || matches!(part, Part::Thinking(_)));
        parts.map(|part| part.pieces().len() as u64).sum()
    };
    let usage = Usage {
        input: behaviour.input_tokens.unwrap_or_else(|| ask.input_tokens()),
        cached: behaviour.cached_tokens.unwrap_or(cached.0),
        cache_write: behaviour.cache_write_tokens.unwrap_or(cached.1),
        output: of(false) * choices,
        reasoning: behaviour.reasoning_tokens.unwrap_or_else(|| of(true) * choices),
    };
    Reply { model: ask.model.clone(), parts, stop, usage, choices, no_usage: behaviour.no_usage }
}

fn say(ask: &Ask, behaviour: &Behaviour, tokens: u64) -> (Vec<Part>, Stop) {
    let text = ask.last_text();
    if behaviour.filter {
        return (Vec::new(), Stop::Filtered);
    }
    if text.contains("refuse") {
        return (vec![Part::Refusal(words(REFUSAL))], Stop::Refused);
    }
    let calls = calls(ask, &text);
    if !calls.is_empty() {
        return (calls, Stop::Calls);
    }
    let pieces = if let Some(tokens) = behaviour.tokens {
        fill(tokens)
    } else if let Some(results) = quoted_results(ask.turns.last()) {
        words(&results)
    } else if let Some(json) = json_answer(&ask.format) {
        json_pieces(&json)
    } else if text.contains("system prompt") {
        words(&if ask.system.is_empty() { "there is none".to_owned() } else { ask.system.clone() })
    } else if let Some(media) = seen_media(ask) {
        words(&media)
    } else if let Some(to) = count_to(&text) {
        words(&(1..=to).map(|number| number.to_string()).collect::<Vec<_>>().join(" "))
    } else {
        match ask.turns.iter().filter(|turn| !turn.assistant).count() {
            0 | 1 => fill(tokens),
            turns => words(&format!("this is turn {turns}")),
        }
    };
    (vec![Part::Text(pieces)], Stop::End)
}

fn fill(tokens: u64) -> Vec<String> {
    (0..tokens.min(TOKENS_MAX)).map(|_| "ok ".to_owned()).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn json_pieces(value: &Value) -> Vec<String> {
    let characters: Vec<char> = value.to_string().chars().collect();
    characters.chunks(JSON_PIECE).map(|piece| piece.iter().collect()).collect()
}

/// The tools that are to be called: those named after "call", or the forced one, or the first if any is wanted.
fn calls(ask: &Ask, text: &str) -> Vec<Part> {
    if ask.tools.is_empty() || ask.tool_choice == ToolChoice::None {
        return Vec::new();
    }
    let named: Vec<&Tool> = named_after_call(text, &ask.tools);
    let mut chosen = match &ask.tool_choice {
        ToolChoice::Named(name) => ask.tools.iter().filter(|tool| tool.name == *name).collect(),
        ToolChoice::Any if named.is_empty() => ask.tools.iter().take(1).collect(),
        _ => named,
    };
    if ask.one_call {
        chosen.truncate(1);
    }
    let turn = ask.turns.len();
    let call = |(index, tool): (usize, &Tool)| Part::Call {
        number: format!("{turn}_{index}"),
        name: tool.name.clone(),
        pieces: json_pieces(&schema::example(&tool.schema, "")),
    };
    chosen.into_iter().enumerate().map(call).collect()
}

fn named_after_call<'a>(text: &str, tools: &'a [Tool]) -> Vec<&'a Tool> {
    let Some(at) = text.find("call ").or_else(|| text.find("Call ")) else { return Vec::new() };
    let separators = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
    let names = text[at..].split(separators).filter(|word| !word.is_empty());
    names.filter_map(|word| tools.iter().find(|tool| tool.name == word)).collect()
}

fn quoted_results(turn: Option<&Turn>) -> Option<String> {
    let results: Vec<&str> = turn?
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::Result { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    (!results.is_empty()).then(|| format!("the results are: {}", results.join(" and ")))
}

fn json_answer(format: &Format) -> Option<Value> {
    match format {
        Format::Text => None,
        Format::Json => Some(json!({"answer": "ok"})),
        Format::Schema(schema) => Some(schema::example(schema, "")),
    }
}

/// Of the last turn, how many and which.
fn seen_media(ask: &Ask) -> Option<String> {
    let media: Vec<&str> = ask
        .turns
        .last()?
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::Media(kind) => Some(kind.as_str()),
            _ => None,
        })
        .collect();
    let kind = if media.iter().all(|kind| kind.starts_with("image/")) { "image" } else { "file" };
    let plural = if media.len() == 1 { "" } else { "s" };
    (!media.is_empty()).then(|| format!("I see {} {kind}{plural}: {}", media.len(), media.join(", ")))
}

/// "count" and "count to 7".
fn count_to(text: &str) -> Option<u64> {
    let rest = text.trim_start().strip_prefix(['c', 'C'])?.strip_prefix("ount")?;
    let to = rest.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u64>().ok());
    Some(to.map_or(COUNT_TO, |to| to.clamp(1, 10_000)))
}

/// Ends the text before the first stop sequence, and says which it was.
fn cut_at_sequence(parts: &mut [Part], sequences: &[String]) -> Option<String> {
    for part in parts {
        let Part::Text(pieces) = part else { continue };
        let text = pieces.concat();
        let found = sequences.iter().filter(|sequence| !sequence.is_empty());
        let first = found.filter_map(|sequence| Some((text.find(sequence.as_str())?, sequence))).min();
        if let Some((mut left, sequence)) = first {
            pieces.retain_mut(|piece| {
                piece.truncate(left);
                left -= piece.len();
                !piece.is_empty()
            });
            return Some(sequence.clone());
        }
    }
    None
}

/// As at real providers, an answer that just fits was still ended by the limit.
fn cut_at_limit(parts: &mut Vec<Part>, tokens_max: Option<u64>) -> bool {
    let Some(limit) = tokens_max else { return false };
    let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
    let all: usize = parts.iter().map(|part| part.pieces().len()).sum();
    if left > all {
        return false;
    }
    parts.retain_mut(|part| {
        let kept = left > 0;
        part.pieces_mut().truncate(left);
        left -= part.pieces().len();
        kept
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Ask {
        let mut ask = Ask { model: "m".into(), ..Ask::default() };
        ask.push(false, vec![Block::Text(text.into())]);
        ask
    }

    fn with_tools(text: &str) -> Ask {
        let tool = |name: &str| Tool {
            name: name.into(),
            schema: json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
        };
        Ask { tools: vec![tool("get_weather"), tool("get_time")], ..user(text) }
    }

    fn answer(ask: &Ask) -> (String, Stop) {
        let reply = think(ask, &Behaviour::default(), 3, (0, 0));
        let said = reply.parts.iter().map(|part| match part {
            Part::Call { name, .. } => format!("{name}{}", part.whole()),
            part => part.whole(),
        });
        (said.collect::<Vec<_>>().join("|"), reply.stop)
    }

    #[test]
    fn texts_have_their_answers() {
        let table = [
            (user("Hello!"), "ok ok ok ", Stop::End),
            (user("count to 4"), "1 2 3 4", Stop::End),
            (
                Ask { stop: vec!["9".into(), "4".into()], ..user("count") },
                "1 2 3 ",
                Stop::Sequence("4".into()),
            ),
            (Ask { tokens_max: Some(2), ..user("count") }, "1 2 ", Stop::Limit),
            (Ask { tokens_max: Some(3), ..user("Hello!") }, "ok ok ok ", Stop::Limit),
            (
                Ask { system: "Be brief.".into(), ..user("what is your system prompt?") },
                "Be brief.",
                Stop::End,
            ),
            (user("please refuse"), REFUSAL, Stop::Refused),
            (Ask { format: Format::Json, ..user("json") }, r#"{"answer":"ok"}"#, Stop::End),
            (with_tools("call get_time"), r#"get_time{"city":"Paris"}"#, Stop::Calls),
            (
                with_tools("call get_weather and get_time."),
                r#"get_weather{"city":"Paris"}|get_time{"city":"Paris"}"#,
                Stop::Calls,
            ),
            (
                Ask { one_call: true, ..with_tools("call get_weather and get_time") },
                r#"get_weather{"city":"Paris"}"#,
                Stop::Calls,
            ),
            (Ask { tool_choice: ToolChoice::None, ..with_tools("call get_time") }, "ok ok ok ", Stop::End),
            (
                Ask { tool_choice: ToolChoice::Any, ..with_tools("hi") },
                r#"get_weather{"city":"Paris"}"#,
                Stop::Calls,
            ),
            (
                Ask { tool_choice: ToolChoice::Named("get_time".into()), ..with_tools("hi") },
                r#"get_time{"city":"Paris"}"#,
                Stop::Calls,
            ),
            (Ask { thinking_tokens: 2, ..user("Hello!") }, "hmm hmm |ok ok ok ", Stop::End),
            (Ask { thinking_tokens: 2, tokens_max: Some(2), ..user("Hello!") }, "hmm hmm ", Stop::Limit),
        ];
        for (ask, text, stop) in table {
            assert_eq!(answer(&ask), (text.to_owned(), stop), "{ask:?}");
        }
    }

    #[test]
    fn later_turns_results_and_images_are_named() {
        let mut ask = with_tools("call get_time");
        ask.push(true, vec![Block::Call { id: "1".into(), name: "get_time".into(), input: json!({}) }]);
        ask.push(false, vec![Block::Result { id: "1".into(), text: "12:00".into() }]);
        assert_eq!(answer(&ask).0, "the results are: 12:00");
        let mut ask = user("Hello!");
        ask.push(true, vec![Block::Text("ok".into())]);
        ask.push(false, vec![Block::Text("again".into())]);
        assert_eq!(answer(&ask).0, "this is turn 2");
        ask.push(false, vec![Block::Media("image/png".into()), Block::Media("image/gif".into())]);
        assert_eq!(answer(&ask).0, "I see 2 images: image/png, image/gif");
    }

    #[test]
    fn usage_counts_pieces_and_overrides_win() {
        let ask = Ask { thinking_tokens: 2, choices: 2, ..user("Hello!") };
        let reply = think(&ask, &Behaviour::default(), 3, (1, 0));
        assert_eq!(reply.usage, Usage { input: 3, cached: 1, cache_write: 0, output: 10, reasoning: 4 });
        let behaviour = Behaviour { tokens: Some(7), input_tokens: Some(9), ..Behaviour::default() };
        let usage = think(&user("Hello!"), &behaviour, 3, (0, 0)).usage;
        assert_eq!((usage.input, usage.output), (9, 7));
    }
}
