//! Splits a stream of server-sent events into whole events, wherever the network cut it. Every byte comes out again,
//! in order: an event carries its own terminators.
//!
//! Line ends are LF, CRLF or CR, and an empty line ends an event (WHATWG HTML, "Parsing an event stream").

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use thiserror::Error;

/// An event (or something without any empty line) larger than the gateway is willing to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the backend sent an event of more than {max} bytes")]
pub(crate) struct EventTooLarge {
    pub(crate) max: usize,
}

/// Holds what arrived last, and at most one unfinished event. What arrived is looked at where it is: only an event that the
/// network cut is copied.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// What arrived, if it began where an event does.
    arrived: Bytes,
    /// Else: an event that is not whole yet, and what arrived since.
    unfinished: Vec<u8>,
    /// Where the next event begins, in whichever of the two holds bytes.
    start: usize,
    /// Up to where it was looked at.
    scanned: usize,
    line_start: usize,
    event_bytes_max: usize,
}

impl Splitter {
    pub(crate) fn new(event_bytes_max: usize) -> Self {
        let (arrived, unfinished) = (Bytes::new(), Vec::new());
        Self { arrived, unfinished, start: 0, scanned: 0, line_start: 0, event_bytes_max }
    }

    /// Takes what arrived. Call [`Self::next_event`] until it returns `None` before the next push.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.keep();
        if self.unfinished.is_empty() {
            self.arrived = bytes;
        } else {
            self.unfinished.extend_from_slice(&bytes);
        }
    }

    /// The next whole event.
    pub(crate) fn next_event(&mut self) -> Result<Option<&[u8]>, EventTooLarge> {
        if let Some(event) = self.find() {
            return Ok(Some(&self.bytes()[event]));
        }
        self.keep();
        if self.unfinished.len() > self.event_bytes_max {
            return Err(EventTooLarge { max: self.event_bytes_max });
        }
        Ok(None)
    }

    fn bytes(&self) -> &[u8] {
        if self.unfinished.is_empty() { &self.arrived } else { &self.unfinished }
    }

    fn find(&mut self) -> Option<Range<usize>> {
        let bytes = if self.unfinished.is_empty() { &self.arrived[..] } else { &self.unfinished[..] };
        let mut scanned = self.scanned;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', &bytes[scanned..]) {
            let at = scanned + at;
            scanned = match (bytes[at], bytes.get(at + 1)) {
                // A CR at the very end: whether an LF belongs to it is not known yet.
                (b'\r', None) => {
                    self.scanned = at;
                    return None;
                }
                (b'\r', Some(b'\n')) => at + 2,
                _ => at + 1,
            };
            let empty_line = at == self.line_start;
            self.line_start = scanned;
            if empty_line {
                self.scanned = scanned;
                return Some(std::mem::replace(&mut self.start, scanned)..scanned);
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Keeps of what arrived only what no event was made of.
    fn keep(&mut self) {
        if self.unfinished.is_empty() {
            self.unfinished = self.arrived[self.start..].to_vec();
            // Of a connection's buffer, which is larger.
            self.arrived = Bytes::new();
        } else if self.start == self.unfinished.len() {
            self.unfinished = Vec::new();
        } else {
            self.unfinished.drain(..self.start);
        }
        self.scanned -= self.start;
        self.line_start -= self.start;
        self.start = 0;
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.arrived.len().max(self.unfinished.len()) - self.start
    }

    /// At the end of the stream: what is left, an event that was not finished.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        self.keep();
        self.scanned = 0;
        self.line_start = 0;
        Some(std::mem::take(&mut self.unfinished)).filter(|rest| !rest.is_empty())
    }
}

/// The data of an event: its `data` lines joined with LF; `None` if it has none (a comment, a keep-alive).
pub(crate) fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut found: Option<Cow<'_, [u8]>> = None;
    let mut rest = event;
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let Some(value) = line.strip_prefix(b"data") else { continue };
        let value = match value {
            [] => value,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        found = Some(match found {
            None => Cow::Borrowed(value),
            Some(before) => {
                let mut joined = before.into_owned();
                joined.push(b'\n');
                joined.extend_from_slice(value);
                Cow::Owned(joined)
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pushes the pieces one after the other; the remainder comes last.
    fn split(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut splitter = Splitter::new(1 << 20);
        let (mut events, mut taken) = (Vec::new(), 0);
        for piece in pieces {
            splitter.push(Bytes::copy_from_slice(piece));
            while let Some(event) = splitter.next_event().unwrap() {
                events.push(event.to_vec());
            }
            let whole: usize = events.iter().map(Vec::len).sum();
            taken += piece.len();
            assert_eq!(splitter.held(), taken - whole);
        }
        (events, splitter.rest())
    }

    #[test]
    fn every_kind_of_line_end() {
        for stream in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\n\r\ndata: b\n\n"]
        {
            let (events, rest) = split(&[stream.as_bytes()]);
            assert_eq!((events.len(), rest), (2, None), "{stream:?}");
        }
        let (events, rest) = split(&[b"data: a\r\rdata: b\r\r"]);
        assert_eq!(events.len(), 1);
        assert_eq!(rest.unwrap(), b"data: b\r\r");
    }

    #[test]
    fn data_lines() {
        assert_eq!(data(b"data: [DONE]\n\n").unwrap().as_ref(), b"[DONE]");
        assert_eq!(data(b"event: x\ndata:{\"a\":\ndata: 1}\n\n").unwrap().as_ref(), b"{\"a\":\n1}");
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(data(b"database: 1\n\n"), None);
        assert_eq!(data(b"data\n\n").unwrap().as_ref(), b"");
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::new(100);
        splitter.push(vec![b'x'; 101].into());
        assert_eq!(splitter.next_event(), Err(EventTooLarge { max: 100 }));
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["data: {\"a\":1}", "\n", "\r\n", "\r", "\n\n", ": ping", "data: [DONE]", "é"]),
                0..24,
            ),
            cuts in proptest::collection::vec(0usize..400, 0..6),
        ) {
            let stream = parts.concat().into_bytes();
            let whole = split(&[&stream]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&whole, &split(&pieces));
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&whole, &split(&bytes));
            let mut joined: Vec<u8> = whole.0.concat();
            joined.extend(whole.1.iter().flatten());
            prop_assert_eq!(joined, stream);
        }
    }
}
