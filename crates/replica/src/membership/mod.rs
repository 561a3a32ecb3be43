//! Changing who belongs to the cluster while it runs: adding, removing and replacing nodes, and noticing that one was
//! removed. `rejoin.rs` brings a member back that lost its folder.
//!
//! One change at a time, on the leader. A node becomes a learner first and a voter when it has caught up; voters change by
//! joint consensus (Raft, section 6). Whatever a dead leader or an impatient caller leaves half done, the same command
//! takes up again; a joint membership that was left is finished by the leader itself.

mod change;
mod error;
mod newcomer;
mod removed;
mod survey;
mod view;

pub use change::Changed;
pub(crate) use change::finish_what_is_left;
pub use error::MembershipError;
pub(crate) use newcomer::NEARLY_THERE;
pub(crate) use removed::MembershipQuestion;
pub(crate) use view::View;

/// What this release can read in the log, counted up with each kind of entry that older ones cannot.
/// 1: changes of the membership stand in the audit log.
pub(crate) const LOG_VERSION: u32 = 1;
