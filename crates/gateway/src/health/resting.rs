//! Why no backend may be used now, in words: what the client reads, and when it may come back.

use std::fmt;

use jiff::Timestamp;
use quorate_ledger::{ProviderCause, ProviderView, TimestampMs};

use super::{cause, local::Rest};

/// A probe is decided on sooner than its lease runs out.
const PROBED_RETRY_MS: u64 = 1_000;
/// Waiting longer than this is not what an SDK should do on its own.
const RETRY_WORTH_MS: u64 = 60_000;

/// One backend that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resting {
    cause: Option<ProviderCause>,
    reason: String,
    /// `None`: nobody knows.
    until: Option<TimestampMs>,
    /// Somebody tries whether it works again.
    probed: bool,
    drained: bool,
}

impl Resting {
    pub(super) fn drained() -> Self {
        Self { cause: None, reason: String::new(), until: None, probed: false, drained: true }
    }

    pub(super) fn of_rest(rest: &Rest) -> Self {
        Self {
            cause: Some(rest.cause),
            reason: rest.reason.clone(),
            until: Some(rest.until),
            probed: false,
            drained: false,
        }
    }

    pub(super) fn of_view(view: &ProviderView) -> Self {
        let open = view.state == quorate_ledger::ProviderState::Open;
        Self {
            cause: view.cause,
            reason: view.reason.clone(),
            until: view.until.filter(|_| open),
            probed: !open,
            drained: false,
        }
    }

    /// Its rest is over, and a request of this gateway has it.
    pub(super) fn claimed(view: &ProviderView) -> Self {
        Self { until: None, probed: true, ..Self::of_view(view) }
    }

    /// Ready a moment ago, or just being tried: nothing better is known.
    pub(crate) fn being_tried() -> Self {
        Self { cause: None, reason: String::new(), until: None, probed: true, drained: false }
    }
}

/// No candidate of a request may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoneReady {
    /// Backend, model, why. Not empty.
    pub(crate) backends: Vec<(String, String, Resting)>,
    pub(crate) now: TimestampMs,
}

impl NoneReady {
    /// All of them limit: the client is to slow down. Otherwise something is out of order.
    pub(crate) fn is_limit(&self) -> bool {
        self.backends.iter().all(|(_, _, resting)| resting.cause == Some(ProviderCause::Limited))
    }

    /// For an SDK that would wait on its own.
    pub(crate) fn waiting_is_pointless(&self) -> bool {
        self.retry_after_ms().is_none_or(|ms| ms > RETRY_WORTH_MS)
    }

    /// Until the first may be tried; `None`: all are drained.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        let wait = |resting: &Resting| match resting {
            Resting { drained: true, .. } => None,
            Resting { until: Some(until), .. } => Some(until.since(self.now).max(1)),
            Resting { .. } => Some(PROBED_RETRY_MS),
        };
        self.backends.iter().filter_map(|(_, _, resting)| wait(resting)).min()
    }
}

/// `no backend of this request can be used now: ns/openai is limited for gpt-4o until 2026-11-25T17:20:03Z (status 429);
/// ns/azure is drained`. By whom is in the audit log: clients need not know.
impl fmt::Display for NoneReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no backend of this request can be used now: ")?;
        for (index, (backend, model, resting)) in self.backends.iter().enumerate() {
            f.write_str(if index > 0 { "; " } else { "" })?;
            if resting.drained {
                write!(f, "{backend} is drained")?;
                continue;
            }
            write!(f, "{backend} {} for {model}", cause(resting.cause))?;
            match resting.until {
                Some(until) => write!(f, " and rests until {}", moment(until))?,
                None if resting.probed => {
                    f.write_str(" and another request is trying whether it works again")?
                }
                None => {}
            }
            if !resting.reason.is_empty() {
                write!(f, " ({})", resting.reason)?;
            }
        }
        Ok(())
    }
}

fn moment(at: TimestampMs) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "a time far away".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(until: u64) -> Resting {
        Resting {
            cause: Some(ProviderCause::Limited),
            reason: "status 429".to_owned(),
            until: Some(TimestampMs(until)),
            probed: false,
            drained: false,
        }
    }

    fn none_ready(backends: Vec<Resting>) -> NoneReady {
        let named = |(index, resting)| (format!("ns/b{index}"), "gpt-4o".to_owned(), resting);
        NoneReady { backends: backends.into_iter().enumerate().map(named).collect(), now: TimestampMs(1_000) }
    }

    #[test]
    fn it_says_which_why_and_until_when() {
        let both = none_ready(vec![limited(1_792_567_683_250), Resting::drained()]);
        assert_eq!(
            both.to_string(),
            "no backend of this request can be used now: ns/b0 is limited for gpt-4o and rests until \
             2026-10-21T07:28:03.25Z (status 429); ns/b1 is drained"
        );
        assert!(!both.is_limit());
        let tried = none_ready(vec![Resting { until: None, probed: true, ..limited(0) }]);
        assert!(tried.is_limit() && tried.to_string().contains("trying whether it works again"), "{tried}");
    }

    #[test]
    fn the_first_that_may_be_tried_says_when_to_come_back() {
        assert_eq!(none_ready(vec![limited(31_000), limited(3_000)]).retry_after_ms(), Some(2_000));
        assert_eq!(none_ready(vec![limited(31_000), Resting::drained()]).retry_after_ms(), Some(30_000));
        assert_eq!(none_ready(vec![limited(31_000), Resting::being_tried()]).retry_after_ms(), Some(1_000));
        let drained = none_ready(vec![Resting::drained()]);
        assert!(drained.retry_after_ms().is_none() && drained.waiting_is_pointless());
        assert!(none_ready(vec![limited(61_001)]).waiting_is_pointless());
        assert!(!none_ready(vec![limited(61_000)]).waiting_is_pointless());
    }
}
