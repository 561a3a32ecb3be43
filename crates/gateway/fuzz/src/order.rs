//! The order that events promise, whatever the provider sent.

use std::collections::BTreeSet;

use crate::provider::reply::Event;

/// # Panics
/// It does not hold.
pub fn hold(events: &[Event]) {
    let mut open = BTreeSet::new();
    let (mut opened, mut stopped) = (0, false);
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Start { .. } => {
                assert!(events[..at].iter().all(|before| *before == Event::Ping), "{events:?}")
            }
            Event::Open { index, .. } => {
                assert!(*index == opened && open.insert(*index) && !stopped, "{events:?}");
                opened += 1;
            }
            Event::Text { index, .. }
            | Event::Thinking { index, .. }
            | Event::Signature { index, .. }
            | Event::Refusal { index, .. }
            | Event::Input { index, .. } => assert!(open.contains(index), "{events:?}"),
            Event::Close { index } => assert!(open.remove(index), "{events:?}"),
            Event::Stop(_) => {
                assert!(open.is_empty() && !stopped, "{events:?}");
                stopped = true;
            }
            Event::Done | Event::Error(_) => assert_eq!(at, events.len() - 1, "{events:?}"),
            Event::Usage(_) | Event::Ping => {}
        }
    }
}
