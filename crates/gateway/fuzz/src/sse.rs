//! What must hold of any bytes as server-sent events.

use bytes::Bytes;

use crate::provider::sse::{Splitter, data};

const EVENT_BYTES_MAX: usize = 1 << 20;

fn split<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let mut splitter = Splitter::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        splitter.push(Bytes::copy_from_slice(piece));
        while let Some(event) = splitter.next_event().unwrap() {
            events.push(event.to_vec());
        }
    }
    (events, splitter.rest())
}

/// # Panics
/// It does not hold.
pub fn hold(bytes: &[u8]) {
    let whole = split(std::iter::once(bytes));
    for size in [1, 2, 3, 7] {
        assert_eq!(whole, split(bytes.chunks(size)));
    }
    let (events, rest) = whole;
    let mut joined: Vec<u8> = events.concat();
    joined.extend(rest.iter().flatten());
    assert_eq!(joined, bytes);
    for event in &events {
        if let Some(data) = data(event) {
            assert!(data.len() <= event.len());
        }
    }
    let mut small = Splitter::new(16);
    small.push(Bytes::copy_from_slice(bytes));
    while let Ok(Some(_)) = small.next_event() {}
}
