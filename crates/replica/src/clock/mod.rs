//! The clock guard: this node's clock beside those of its peers.
//!
//! `source` reads this node's clocks, `sample` estimates a peer's, `verdict` says whose is wrong, `guard` makes up its mind
//! slowly, `stamp` is the time that batches are stamped with. All of these are pure but the first. `state` holds them
//! together, and `compare` asks the peers and acts: a node whose clock is off does not lead.
//!
//! Amounts need none of this: they hold whatever the clocks do. Windows and deadlines follow the leader's clock, and the
//! ledger's time never goes back: one leader far ahead would move it for good.

mod compare;
mod guard;
mod sample;
mod source;
mod stamp;
mod state;
mod verdict;

pub(crate) use compare::compare;
pub use source::Clock;
pub(crate) use state::Clocks;
pub use state::{ClockReport, PeerOffset};
