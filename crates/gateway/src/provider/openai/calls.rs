//! The tool calls of one stream, in the order in which they began. Most servers send one after the other; some send pieces
//! of several in turns, so a call stays open until its input is whole, or the stream ends.

use crate::provider::reply::Event;

#[derive(Debug)]
pub(super) struct Call {
    /// As the server counts, if it does.
    pub(super) at: Option<u64>,
    /// Empty: the server gave none.
    pub(super) id: String,
    /// The index of its block.
    index: usize,
    open: bool,
    input: Progress,
}

impl Call {
    pub(super) fn new(at: Option<u64>, id: &str, index: usize) -> Self {
        Self { at, id: id.to_owned(), index, open: true, input: Progress::default() }
    }

    /// Another piece of its input. False: it was whole before.
    pub(super) fn add(&mut self, json: String, events: &mut Vec<Event>) -> bool {
        if !self.open {
            return json.trim().is_empty();
        }
        self.input.read(&json);
        events.push(Event::Input { index: self.index, json });
        true
    }

    pub(super) fn close_if_whole(&mut self, events: &mut Vec<Event>) {
        if self.input.is_whole() {
            self.close(events);
        }
    }

    pub(super) fn close(&mut self, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.open) {
            events.push(Event::Close { index: self.index });
        }
    }
}

/// How far the text of a JSON object has come. Nothing is kept of it, and nothing checked.
#[derive(Debug, Default)]
struct Progress {
    begun: bool,
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Progress {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => {
                    self.begun = true;
                    self.depth += 1;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_end_where_they_end() {
        for (text, whole) in [
            ("", false),
            ("1", false),
            ("{", false),
            ("{}", true),
            (r#"{"a":[{"b":"}\"]}"}]"#, false),
            (r#"{"a":[{"b":"}\"]}"}]}"#, true),
            (r#"{"a\\":1}"#, true),
            (r#"{"a":"é}"#, false),
        ] {
            let (mut at_once, mut in_pieces) = (Progress::default(), Progress::default());
            at_once.read(text);
            text.chars().for_each(|letter| in_pieces.read(&letter.to_string()));
            assert_eq!((at_once.is_whole(), in_pieces.is_whole()), (whole, whole), "{text}");
        }
    }
}
