//! What came of a call, as Envoy reads it: a code, one status for each descriptor, headers, a body for the client.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_ledger::{Amount, Enforcement, TimestampMs, Window};
use quorate_rpc::envoy::config::core::v3::HeaderValue;
use quorate_rpc::rls::rate_limit_response::rate_limit::Unit;
use quorate_rpc::rls::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use quorate_rpc::rls::{RateLimitRequest, RateLimitResponse};

use super::bodies;
use super::config::RateLimitConfig;
use super::group::Standing;
use super::metadata;
use super::metrics::{Hits, RateLimitMetrics};
use super::question::{Limit, Meaning, Question};
use super::reservation::{self, Reservation};

/// The verdict over one descriptor.
struct Verdict {
    over: bool,
    shadow: bool,
    quota: bool,
    /// The line that decides; `None`: nothing limits it.
    line: Option<usize>,
    status: DescriptorStatus,
}

/// Everything but the reservation, which is only for a request that goes on.
pub(super) struct Answer {
    pub response: RateLimitResponse,
    /// The request may go on.
    pub passes: bool,
}

pub(super) struct Answering<'a> {
    pub config: &'a RateLimitConfig,
    pub metrics: &'a RateLimitMetrics,
    pub now: TimestampMs,
}

impl Answering<'_> {
    pub(super) fn answer(
        &self,
        request: &RateLimitRequest,
        question: &Question,
        spent: &[Standing],
    ) -> Answer {
        let verdicts: Vec<Verdict> = question
            .meanings
            .iter()
            .map(|(meaning, hits)| self.verdict(question, meaning, *hits, spent))
            .collect();
        let quotas = verdicts.iter().filter(|verdict| verdict.quota);
        let all_quotas_over = quotas.clone().next().is_some() && quotas.clone().all(|verdict| verdict.over);
        let is_over = |verdict: &&Verdict| verdict.over && !verdict.shadow;
        let over = all_quotas_over || verdicts.iter().any(|verdict| is_over(&verdict) && !verdict.quota);
        let passes = !over || self.config.shadow_mode;
        if over && passes {
            self.metrics.global_shadow.inc();
        }
        let tightest = tightest(&verdicts, spent);
        let mut response = RateLimitResponse {
            overall_code: if passes { Code::Ok } else { Code::OverLimit }.into(),
            ..RateLimitResponse::default()
        };
        if self.config.response_headers
            && let Some(standing) = tightest.map(|(_, standing)| standing)
        {
            response.response_headers_to_add = self.headers(standing);
        }
        let refused = question.meanings.iter().find_map(|(meaning, _)| match meaning {
            Meaning::Refused { why } => Some(why),
            _ => None,
        });
        if !passes && let Some(why) = refused {
            response.response_headers_to_add.push(header("content-type", "application/json"));
            response.raw_body = bodies::refused(why);
        } else if !passes && let Some((line, standing)) = tightest {
            if let Some(seconds) = self.seconds(standing) {
                response.response_headers_to_add.push(header("retry-after", seconds.to_string()));
            }
            response.response_headers_to_add.push(header("content-type", "application/json"));
            if let Some(line) = question.lines.get(line) {
                let twins = question.lines.iter().filter(|other| other.is_twin_of(line));
                let asked =
                    twins.fold(Amount::ZERO, |sum, twin| sum.checked_add(twin.amount).unwrap_or(Amount::MAX));
                response.raw_body = bodies::over(&line.budget.rule.name, asked, standing, self.now);
            }
        }
        if self.config.dynamic_metadata {
            let kept = question.meanings.iter().zip(&verdicts).filter(|(_, verdict)| !verdict.over);
            let metadata = kept.filter_map(|((meaning, _), _)| match meaning {
                Meaning::Limit { limit: Limit::Configured { limit, .. }, .. } => limit.metadata.as_ref(),
                _ => None,
            });
            let fields = metadata::of_request(request, metadata);
            response.dynamic_metadata = Some(prost_types::Struct { fields });
        }
        response.statuses = verdicts.into_iter().map(|verdict| verdict.status).collect();
        Answer { response, passes }
    }

    fn verdict(&self, question: &Question, meaning: &Meaning, hits: u64, spent: &[Standing]) -> Verdict {
        let ok = |limit_remaining| Verdict {
            over: false,
            shadow: false,
            quota: false,
            line: None,
            status: DescriptorStatus {
                code: Code::Ok.into(),
                limit_remaining,
                ..DescriptorStatus::default()
            },
        };
        match meaning {
            Meaning::Nothing | Meaning::Settles => ok(0),
            Meaning::Unlimited => ok(u32::MAX),
            Meaning::Refused { .. } => {
                let mut refused = ok(0);
                (refused.over, refused.quota) = (true, self.config.quota_mode);
                refused.status.code = Code::OverLimit.into();
                refused
            }
            Meaning::Limit { line, limit } => {
                let Some(standing) = spent.get(*line) else { return ok(0) };
                let window =
                    question.lines.get(*line).map_or(Window::Lifetime, |line| line.budget.rule.window);
                let (name, shadow, quota) = match limit {
                    Limit::Configured { limit, metric } => {
                        self.metrics.hits(metric, Hits::of(hits, standing, limit.shadow));
                        (limit.name.clone(), limit.shadow, limit.quota || self.config.quota_mode)
                    }
                    Limit::Brought { metric } => {
                        self.metrics.hits(metric, Hits::of(hits, standing, false));
                        (String::new(), false, self.config.quota_mode)
                    }
                };
                self.limited(*line, standing, window, name, shadow, quota)
            }
            Meaning::Budgets { lines } => {
                let of_lines = lines.iter().filter_map(|line| Some((*line, spent.get(*line)?)));
                let shadow = |line: usize| {
                    question
                        .lines
                        .get(line)
                        .is_some_and(|line| line.budget.rule.enforcement == Enforcement::Shadow)
                };
                let tightest = of_lines
                    .min_by_key(|(line, standing)| (shadow(*line), !standing.over, standing.share_left()));
                let Some((line, standing)) = tightest else { return ok(0) };
                let Some(rule) = question.lines.get(line).map(|line| &line.budget.rule) else { return ok(0) };
                self.limited(
                    line,
                    standing,
                    rule.window,
                    rule.name.clone(),
                    shadow(line),
                    self.config.quota_mode,
                )
            }
        }
    }

    fn limited(
        &self,
        line: usize,
        standing: &Standing,
        window: Window,
        name: String,
        shadow: bool,
        quota: bool,
    ) -> Verdict {
        let over = standing.over && !shadow;
        let status = DescriptorStatus {
            code: if over { Code::OverLimit } else { Code::Ok }.into(),
            current_limit: Some(RateLimit {
                requests_per_unit: small(standing.limit),
                unit: unit(window).into(),
                name,
                unit_multiplier: None,
            }),
            limit_remaining: if standing.over { 0 } else { small(standing.left) },
            duration_until_reset: standing.resets_at.and_then(|at| {
                prost_types::Duration::try_from(Duration::from_millis(at.since(self.now))).ok()
            }),
            quota: None,
        };
        Verdict { over, shadow, quota, line: Some(line), status }
    }

    /// `RateLimit-*` of the third draft.
    fn headers(&self, standing: &Standing) -> Vec<HeaderValue> {
        let left = if standing.over { Amount::ZERO } else { standing.left };
        let mut headers = vec![
            header("RateLimit-Limit", standing.limit.units_floor().to_string()),
            header("RateLimit-Remaining", left.units_floor().to_string()),
        ];
        headers.extend(self.seconds(standing).map(|seconds| header("RateLimit-Reset", seconds.to_string())));
        headers
    }

    fn seconds(&self, standing: &Standing) -> Option<u64> {
        standing.resets_at.map(|at| at.since(self.now).div_ceil(1_000).max(1))
    }
}

/// The limit that headers tell of: one that is over, else the one with the least left.
fn tightest<'a>(verdicts: &[Verdict], spent: &'a [Standing]) -> Option<(usize, &'a Standing)> {
    let limited = verdicts.iter().filter_map(|verdict| Some((verdict, verdict.line?)));
    let standings = limited.filter_map(|(verdict, line)| Some((verdict, line, spent.get(line)?)));
    let tightest = standings.min_by_key(|(verdict, _, standing)| {
        (!verdict.over, verdict.quota, verdict.shadow, standing.left.units_floor())
    });
    tightest.map(|(_, line, standing)| (line, standing))
}

/// Tells the proxy of what is held for the request, in both of the ways that it can hand on.
pub(super) fn name_reservation(response: &mut RateLimitResponse, reservation: &Reservation) {
    let name = reservation.encode();
    response.request_headers_to_add.push(header(reservation::HEADER, name.clone()));
    let metadata =
        response.dynamic_metadata.get_or_insert_with(|| prost_types::Struct { fields: BTreeMap::new() });
    metadata.fields.insert(reservation::ENTRY.to_owned(), metadata::text(name));
}

fn header(key: &str, value: impl Into<String>) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value: value.into(), raw_value: Bytes::new() }
}

/// Whole units, as far as the field reaches.
fn small(amount: Amount) -> u32 {
    u32::try_from(amount.units_floor()).unwrap_or(u32::MAX)
}

fn unit(window: Window) -> Unit {
    match window {
        Window::Second => Unit::Second,
        Window::Minute => Unit::Minute,
        Window::Hour => Unit::Hour,
        Window::Day => Unit::Day,
        Window::Week => Unit::Week,
        Window::Month => Unit::Month,
        Window::Year => Unit::Year,
        Window::Lifetime | Window::Sliding { .. } => Unit::Unknown,
    }
}
