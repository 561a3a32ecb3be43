//! The health of providers on the wire and in the ledger's words: reports, claims of probes, circuits.

use quorate_ledger::{
    Outcome, ProbeEnd, ProbeRefusal, ProbeVerdict, ProviderCause, ProviderReport, ProviderSignal,
    ProviderState, ProviderView, TimestampMs,
};

use crate::budget as wire;
use crate::convert::ConvertError;

impl TryFrom<wire::ReportProvider> for ProviderReport {
    type Error = ConvertError;

    fn try_from(report: wire::ReportProvider) -> Result<Self, ConvertError> {
        use wire::report_provider::Signal;
        let signal = report.signal.map(|signal| match signal {
            Signal::Limited(limited) => ProviderSignal::Limited { retry_after_ms: limited.retry_after_ms },
            Signal::Failing(_) => ProviderSignal::Failing,
        });
        Ok(Self {
            probe: report.probe.map(ProbeEnd::try_from).transpose()?,
            backend: report.backend,
            model: report.model,
            reporter: report.reporter,
            successes: report.successes,
            failures: report.failures,
            consecutive_failures: report.consecutive_failures,
            first_byte_ms_sum: report.first_byte_ms_sum,
            first_byte_count: report.first_byte_count,
            signal,
            reason: report.reason,
        })
    }
}

impl From<&ProviderReport> for wire::ReportProvider {
    fn from(report: &ProviderReport) -> Self {
        use wire::report_provider::Signal;
        let signal = report.signal.as_ref().map(|signal| match signal {
            ProviderSignal::Limited { retry_after_ms } => {
                Signal::Limited(wire::Limited { retry_after_ms: *retry_after_ms })
            }
            ProviderSignal::Failing => Signal::Failing(wire::Failing {}),
        });
        Self {
            backend: report.backend.clone(),
            reason: report.reason.clone(),
            reporter: report.reporter.clone(),
            model: report.model.clone(),
            successes: report.successes,
            failures: report.failures,
            consecutive_failures: report.consecutive_failures,
            first_byte_ms_sum: report.first_byte_ms_sum,
            first_byte_count: report.first_byte_count,
            signal,
            probe: report.probe.map(|end| wire::ProbeEnd {
                probe: end.probe,
                verdict: wire::ProbeVerdict::from(end.verdict).into(),
            }),
        }
    }
}

impl TryFrom<wire::ProbeEnd> for ProbeEnd {
    type Error = ConvertError;

    fn try_from(end: wire::ProbeEnd) -> Result<Self, ConvertError> {
        let verdict = match end.verdict() {
            wire::ProbeVerdict::Passed => ProbeVerdict::Passed,
            wire::ProbeVerdict::Failed => ProbeVerdict::Failed,
            wire::ProbeVerdict::GivenUp => ProbeVerdict::GivenUp,
            wire::ProbeVerdict::Unspecified => {
                return Err(ConvertError::new("report_provider.probe.verdict", "is missing"));
            }
        };
        Ok(Self { probe: end.probe, verdict })
    }
}

impl From<ProbeVerdict> for wire::ProbeVerdict {
    fn from(verdict: ProbeVerdict) -> Self {
        match verdict {
            ProbeVerdict::Passed => Self::Passed,
            ProbeVerdict::Failed => Self::Failed,
            ProbeVerdict::GivenUp => Self::GivenUp,
        }
    }
}

impl From<ProviderView> for wire::ProviderHealth {
    fn from(view: ProviderView) -> Self {
        let cause = match view.cause {
            None => wire::ProviderCause::Unspecified,
            Some(ProviderCause::Limited) => wire::ProviderCause::Limited,
            Some(ProviderCause::Failing) => wire::ProviderCause::Failing,
        };
        let state = match view.state {
            ProviderState::Closed => wire::ProviderState::Closed,
            ProviderState::Open => wire::ProviderState::Open,
            ProviderState::HalfOpen => wire::ProviderState::HalfOpen,
        };
        Self {
            backend: view.backend,
            state: state.into(),
            since_ms: view.since.0,
            reason: view.reason,
            until_ms: view.until.map_or(0, |until| until.0),
            reporter: view.reporter,
            model: view.model,
            cause: cause.into(),
            holder: view.holder,
            openings: view.openings,
            first_byte_ms: view.first_byte_ms,
            first_byte_at_ms: view.first_byte_at.map_or(0, |at| at.0),
            drained_since_ms: view.drained_since.map_or(0, |at| at.0),
            drained_by: view.drained_by,
            revision: view.revision,
            forgotten: false,
        }
    }
}

impl TryFrom<wire::ProviderHealth> for ProviderView {
    type Error = ConvertError;

    fn try_from(health: wire::ProviderHealth) -> Result<Self, ConvertError> {
        let state = match health.state() {
            wire::ProviderState::Closed => ProviderState::Closed,
            wire::ProviderState::Open => ProviderState::Open,
            wire::ProviderState::HalfOpen => ProviderState::HalfOpen,
            wire::ProviderState::Unspecified => {
                return Err(ConvertError::new("provider.state", "is missing"));
            }
        };
        let cause = match health.cause() {
            wire::ProviderCause::Unspecified => None,
            wire::ProviderCause::Limited => Some(ProviderCause::Limited),
            wire::ProviderCause::Failing => Some(ProviderCause::Failing),
        };
        let moment = |ms: u64| (ms > 0).then_some(TimestampMs(ms));
        Ok(Self {
            state,
            cause,
            backend: health.backend,
            model: health.model,
            since: TimestampMs(health.since_ms),
            until: moment(health.until_ms),
            reason: health.reason,
            reporter: health.reporter,
            holder: health.holder,
            openings: health.openings,
            first_byte_ms: health.first_byte_ms,
            first_byte_at: moment(health.first_byte_at_ms),
            drained_since: moment(health.drained_since_ms),
            drained_by: health.drained_by,
            revision: health.revision,
        })
    }
}

impl From<ProbeRefusal> for wire::ProbeRefused {
    fn from(refusal: ProbeRefusal) -> Self {
        use wire::ProbeRefusalReason as Reason;
        let (reason, until, holder) = match refusal {
            ProbeRefusal::NotNeeded => (Reason::NotNeeded, TimestampMs(0), String::new()),
            ProbeRefusal::Resting { until } => (Reason::Resting, until, String::new()),
            ProbeRefusal::Held { holder, until } => (Reason::Held, until, holder),
            ProbeRefusal::Drained => (Reason::Drained, TimestampMs(0), String::new()),
        };
        Self { reason: reason.into(), until_ms: until.0, holder }
    }
}

impl TryFrom<wire::ProbeRefused> for ProbeRefusal {
    type Error = ConvertError;

    fn try_from(refused: wire::ProbeRefused) -> Result<Self, ConvertError> {
        use wire::ProbeRefusalReason as Reason;
        let until = TimestampMs(refused.until_ms);
        match refused.reason() {
            Reason::NotNeeded => Ok(Self::NotNeeded),
            Reason::Resting => Ok(Self::Resting { until }),
            Reason::Held => Ok(Self::Held { holder: refused.holder, until }),
            Reason::Drained => Ok(Self::Drained),
            Reason::Unspecified => Err(ConvertError::new("probe_refused.reason", "is missing")),
        }
    }
}

/// `None`: no outcome about the health of providers.
pub(crate) fn result_kind(outcome: &Outcome) -> Option<wire::result::Kind> {
    use wire::result::Kind;
    match outcome {
        Outcome::ProviderReported { revision } => {
            Some(Kind::ProviderReported(wire::ProviderReported { revision: *revision }))
        }
        Outcome::ProbeGranted { until, revision } => {
            Some(Kind::ProbeGranted(wire::ProbeGranted { until_ms: until.0, revision: *revision }))
        }
        Outcome::ProbeRefused(refusal) => Some(Kind::ProbeRefused(refusal.clone().into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_ledger::Command;

    use super::*;
    use crate::convert::{operation, outcome, result};

    #[test]
    fn reports_and_claims_come_back_as_themselves() {
        let report = ProviderReport {
            backend: "default/openai".to_owned(),
            model: "gpt-4o".to_owned(),
            reporter: "g1".to_owned(),
            successes: 1,
            failures: 2,
            consecutive_failures: 1,
            first_byte_ms_sum: 300,
            first_byte_count: 3,
            signal: Some(ProviderSignal::Limited { retry_after_ms: 2_000 }),
            probe: Some(ProbeEnd { probe: 7, verdict: ProbeVerdict::GivenUp }),
            reason: "status 429".to_owned(),
        };
        let plain = ProviderReport { signal: Some(ProviderSignal::Failing), probe: None, ..report.clone() };
        let claim = Command::ClaimProbe {
            backend: "b".to_owned(),
            model: String::new(),
            holder: "g1".to_owned(),
            probe: u64::MAX,
            lease_ms: 10_000,
        };
        for command in [Command::ReportProvider(report), Command::ReportProvider(plain), claim] {
            let sent = operation(&command, 0).unwrap();
            assert_eq!(Command::try_from(sent).unwrap(), command);
        }
    }

    #[test]
    fn answers_and_circuits_come_back_as_themselves() {
        let until = TimestampMs(1_790_000_000_000);
        for answer in [
            Outcome::ProviderReported { revision: 3 },
            Outcome::ProbeGranted { until, revision: 4 },
            Outcome::ProbeRefused(ProbeRefusal::NotNeeded),
            Outcome::ProbeRefused(ProbeRefusal::Resting { until }),
            Outcome::ProbeRefused(ProbeRefusal::Held { holder: "g2".to_owned(), until }),
            Outcome::ProbeRefused(ProbeRefusal::Drained),
        ] {
            let kind = result(answer.clone(), 1, 2).kind.unwrap();
            assert_eq!(outcome(kind).unwrap(), answer);
        }
        let view = ProviderView {
            backend: "b".to_owned(),
            model: "m".to_owned(),
            state: ProviderState::HalfOpen,
            since: until,
            until: Some(until),
            cause: Some(ProviderCause::Failing),
            reason: "timeout".to_owned(),
            reporter: "g1".to_owned(),
            holder: "g2".to_owned(),
            openings: 2,
            first_byte_ms: Some(0),
            first_byte_at: Some(TimestampMs(9)),
            drained_since: Some(until),
            drained_by: "root".to_owned(),
            revision: 9,
        };
        assert_eq!(ProviderView::try_from(wire::ProviderHealth::from(view.clone())).unwrap(), view);
    }
}
