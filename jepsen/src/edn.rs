//! The history in Jepsen's own form, EDN, one map a line: so that Knossos and Elle can read it. Names become keywords,
//! numbers and text stay what they are; times are nanoseconds, and the nemesis is a process of its own.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::Value;

use crate::history::{Event, History, Kind, NEMESIS};

/// # Errors
/// `into` cannot be written.
pub fn write(history: &History, into: &mut impl Write) -> std::io::Result<()> {
    history.events.iter().try_for_each(|event| writeln!(into, "{}", line(event)))
}

fn line(event: &Event) -> String {
    let kind = match event.kind {
        Kind::Invoke => ":invoke",
        Kind::Ok => ":ok",
        Kind::Fail => ":fail",
        Kind::Info => ":info",
    };
    let process = match event.workload.as_str() {
        NEMESIS => ":nemesis".to_owned(),
        // What happened without being asked for has no process.
        _ if event.process == u64::MAX => ":harness".to_owned(),
        _ => event.process.to_string(),
    };
    let mut line = format!(
        "{{:index {}, :time {}, :process {process}, :type {kind}, :f {}, :workload {}, :value ",
        event.index,
        event.time_us.saturating_mul(1_000),
        keyword(&event.f),
        keyword(&event.workload),
    );
    put(&event.value, &mut line);
    if let Some(error) = &event.error {
        line.push_str(", :error ");
        put_text(error, &mut line);
    }
    line.push('}');
    line
}

fn put(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => put_number(number, out),
        Value::String(text) => put_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(' ');
                }
                put(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (place, (name, field)) in fields.iter().enumerate() {
                if place > 0 {
                    out.push_str(", ");
                }
                out.push_str(&keyword(name));
                out.push(' ');
                put(field, out);
            }
            out.push('}');
        }
    }
}

/// Beyond 63 bits a reader needs to be told that it is a big integer.
fn put_number(number: &serde_json::Number, out: &mut String) {
    let _ = write!(out, "{number}");
    if number.is_u64() && number.as_i64().is_none() {
        out.push('N');
    }
}

/// EDN knows these escapes and no others; it takes everything else as it is.
fn put_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// `:name`, with what no keyword may have replaced; `:inject:kill-one` would be read as two in places.
fn keyword(name: &str) -> String {
    let plain = |character: char| {
        let fits = character.is_ascii_alphanumeric() || "-_.?!*+".contains(character);
        if fits { character } else { '-' }
    };
    let mut keyword: String = name.chars().map(plain).collect();
    if keyword.is_empty() {
        keyword.push('-');
    }
    // A digit may not come first, where a name begins.
    if keyword.starts_with(|first: char| first.is_ascii_digit()) {
        keyword.insert(0, '_');
    }
    format!(":{keyword}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(workload: &str, f: &str, kind: Kind, value: Value) -> Event {
        let (workload, f) = (workload.to_owned(), f.to_owned());
        Event { index: 4, time_us: 1_500, workload, process: 7, kind, f, value, error: None }
    }

    #[test]
    fn a_line_is_as_jepsen_writes_it() {
        let value = json!({"tenant": "acme", "charges": [{"account": "user/a", "amount": 5}]});
        assert_eq!(
            line(&event("account", "reserve", Kind::Invoke, value)),
            "{:index 4, :time 1500000, :process 7, :type :invoke, :f :reserve, :workload :account, \
             :value {:tenant \"acme\", :charges [{:account \"user/a\", :amount 5}]}}"
        );
        let heal = Event {
            error: Some("it said \"no\"".to_owned()),
            ..event(NEMESIS, "heal:kill-one", Kind::Info, json!(null))
        };
        assert_eq!(
            line(&heal),
            "{:index 4, :time 1500000, :process :nemesis, :type :info, :f :heal-kill-one, :workload :nemesis, \
             :value nil, :error \"it said \\\"no\\\"\"}"
        );
    }

    #[test]
    fn a_number_beyond_63_bits_says_so() {
        let mut out = String::new();
        put(&json!([u64::MAX, i64::MAX, -1, 0.5, true]), &mut out);
        assert_eq!(out, "[18446744073709551615N 9223372036854775807 -1 0.5 true]");
    }

    /// As much of a reader as these histories need.
    struct Reader<'a>(&'a str);

    impl Reader<'_> {
        fn space(&mut self) {
            self.0 = self.0.trim_start_matches([' ', ',']);
        }

        fn value(&mut self) -> Value {
            self.space();
            let first = self.0.chars().next().unwrap();
            match first {
                '{' => {
                    let items = self.items('}');
                    let pair = |pair: &[Value]| (pair[0].as_str().unwrap().to_owned(), pair[1].clone());
                    assert!(items.len().is_multiple_of(2));
                    Value::Object(items.chunks(2).map(pair).collect())
                }
                '[' => Value::Array(self.items(']')),
                '"' => self.text(),
                _ => {
                    let end = self.0.find([' ', ',', '}', ']']).unwrap_or(self.0.len());
                    let (word, rest) = self.0.split_at(end);
                    self.0 = rest;
                    match word {
                        "nil" => Value::Null,
                        "true" => json!(true),
                        "false" => json!(false),
                        _ if word.starts_with(':') => json!(word),
                        _ => serde_json::from_str(word.trim_end_matches('N')).unwrap(),
                    }
                }
            }
        }

        fn items(&mut self, end: char) -> Vec<Value> {
            self.0 = &self.0[1..];
            let mut items = Vec::new();
            loop {
                self.space();
                if let Some(rest) = self.0.strip_prefix(end) {
                    self.0 = rest;
                    return items;
                }
                items.push(self.value());
            }
        }

        fn text(&mut self) -> Value {
            let (mut text, mut escaped) = (String::new(), false);
            for (place, character) in self.0.char_indices().skip(1) {
                match (escaped, character) {
                    (true, 'n') => text.push('\n'),
                    (true, 't') => text.push('\t'),
                    (true, 'r') => text.push('\r'),
                    (true, other) => text.push(other),
                    (false, '\\') => {}
                    (false, '"') => {
                        self.0 = &self.0[place + 1..];
                        return Value::String(text);
                    }
                    (false, other) => text.push(other),
                }
                escaped = !escaped && character == '\\';
            }
            panic!("a text without an end");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
            "[\"\\\\\n\t\r ,]*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z][a-z_]{0,6}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Maps are written with keywords.
    fn as_read(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(as_read).collect(),
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| (format!(":{name}"), as_read(value));
                Value::Object(fields.iter().map(field).collect())
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_can_be_read(value in any_value()) {
            let text = line(&event("account", "reserve", Kind::Ok, value.clone()));
            let mut reader = Reader(&text);
            let read = reader.value();
            prop_assert_eq!(reader.0, "");
            prop_assert_eq!(&read[":value"], &as_read(&value));
            prop_assert_eq!(&read[":process"], &json!(7));
        }
    }
}
