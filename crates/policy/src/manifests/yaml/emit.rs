//! A tree as YAML text in one canonical form: keys sorted, block style, quotes only where they are needed.

use crate::manifests::yaml::scalar::sort_of;
use crate::manifests::yaml::{Entry, Node, Scalar, Sort, Value};

/// Ends with a line break. Trees that mean the same give the same text.
pub(crate) fn emit(node: &Node) -> String {
    let mut text = String::new();
    write(&mut text, node, 0, Position::Top);
    text
}

/// How long a key becomes.
pub(crate) fn key_bytes(text: &str) -> usize {
    key(text).len()
}

fn key(text: &str) -> String {
    word(&Scalar::quoted(text))
}

/// What stands before a node on its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Top,
    /// `key:`
    Field,
    /// `-`
    Item,
}

fn write(text: &mut String, node: &Node, indent: usize, position: Position) {
    match &node.value {
        Value::Map(entries) if !entries.is_empty() => {
            let mut sorted: Vec<&Entry> = entries.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            for (index, entry) in sorted.into_iter().enumerate() {
                begin_line(text, indent, position, index == 0);
                text.push_str(&key(&entry.key));
                text.push(':');
                write(text, &entry.value, indent + 2, Position::Field);
            }
        }
        Value::List(items) if !items.is_empty() => {
            // Lists stand as deep as the field that holds them, as kubectl writes them.
            let indent = if position == Position::Field { indent - 2 } else { indent };
            for (index, item) in items.iter().enumerate() {
                begin_line(text, indent, position, index == 0);
                text.push('-');
                write(text, item, indent + 2, Position::Item);
            }
        }
        Value::Map(_) => end_line(text, "{}", position),
        Value::List(_) => end_line(text, "[]", position),
        Value::Scalar(scalar) => match block(&scalar.text, indent) {
            Some(block) if scalar.sort == Sort::Text => end_line(text, &block, position),
            _ => end_line(text, &word(scalar), position),
        },
    }
}

fn begin_line(text: &mut String, indent: usize, position: Position, first: bool) {
    match (position, first) {
        (Position::Item, true) => text.push(' '),
        (Position::Field, true) => {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
        }
        _ => text.extend(std::iter::repeat_n(' ', indent)),
    }
}

fn end_line(text: &mut String, value: &str, position: Position) {
    if position != Position::Top {
        text.push(' ');
    }
    text.push_str(value);
    text.push('\n');
}

/// Several lines as a literal block, where nothing in them could be read otherwise.
fn block(value: &str, indent: usize) -> Option<String> {
    let body = value.strip_suffix('\n').unwrap_or(value);
    let fine = |line: &str| {
        !line.is_empty()
            && !line.starts_with([' ', '\t'])
            && !line.ends_with(' ')
            && line.chars().all(|c| c == ' ' || c.is_ascii_graphic())
    };
    if !body.contains('\n') || !body.split('\n').all(fine) {
        return None;
    }
    let mut block = String::from(if body.len() < value.len() { "|" } else { "|-" });
    for line in body.split('\n') {
        block.push('\n');
        block.extend(std::iter::repeat_n(' ', indent.max(2)));
        block.push_str(line);
    }
    Some(block)
}

fn word(scalar: &Scalar) -> String {
    if scalar.sort != Sort::Text {
        return match (scalar.sort, scalar.text.as_str()) {
            (Sort::Null, _) => "null".to_owned(),
            (Sort::Bool, word) => word.to_ascii_lowercase(),
            (_, number) => number.to_owned(),
        };
    }
    let text = &scalar.text;
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./ ()+@$".contains(c);
    let plain = text.chars().all(safe)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '_')
        && !text.ends_with(' ')
        && sort_of(text) == Sort::Text
        && !is_boolean_of_yaml_1_1(text);
    if plain { text.clone() } else { double_quoted(text) }
}

/// Words that older parsers take for booleans; quoted, so that the text means the same to all.
fn is_boolean_of_yaml_1_1(text: &str) -> bool {
    ["y", "n", "yes", "no", "on", "off"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
