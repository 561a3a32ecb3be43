//! Descriptors of a domain of envoyproxy/ratelimit's configuration, and the limits that they meet.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_ledger::{Amount, Window};
use quorate_policy::runtime::{DomainIndex, Spending, override_subject};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::envoy::r#type::v3::RateLimitUnit;
use quorate_rpc::rls::RateLimitRequest;

use super::question::{Limit, Line, Meaning, Mistake, Question, hits, pairs, units};
use super::reservation::{self, Reservation, mark};
use super::subject::fitting;
use crate::policy::ActivePolicy;

pub(super) fn read(
    question: &mut Question,
    request: &RateLimitRequest,
    policy: &ActivePolicy,
) -> Result<(), Mistake> {
    let domain = policy.policy.domain(&request.domain);
    // Those that others of the same request stand in for.
    let mut replaced = HashSet::new();
    for descriptor in &request.descriptors {
        let hits = hits(request, descriptor);
        let named = descriptor.entries.iter().find(|entry| entry.key == reservation::ENTRY);
        let amount = units(hits);
        if let Some(reservation) = named.and_then(|entry| Reservation::decode(&entry.value)) {
            settle(question, domain, descriptor, &reservation, amount.ok());
            question.meanings.push((Meaning::Settles, hits));
            continue;
        }
        let holds = named.is_some_and(|entry| entry.value == reservation::HOLD);
        let meaning = match (domain, amount) {
            (None, _) => Meaning::Nothing,
            // Often it is the client who says it, and who is then not let through uncounted.
            (_, Err(Mistake(why))) => Meaning::Refused { why },
            (Some(domain), Ok(amount)) if descriptor.limit.is_some() => {
                brought(question, domain, descriptor, holds, amount)?
            }
            (Some(domain), Ok(amount)) => {
                configured(question, domain, descriptor, holds, amount, &mut replaced)
            }
        };
        question.meanings.push((meaning, hits));
    }
    replace(question, &replaced);
    Ok(())
}

/// The entries that name a limit.
fn besides_reservation(descriptor: &RateLimitDescriptor) -> Vec<(&str, &str)> {
    pairs(descriptor).filter(|(key, _)| *key != reservation::ENTRY).collect()
}

/// For every line of the reservation or, where the descriptor has other entries too, for the one of the limit that these
/// meet. Hits of several descriptors for one line add up.
fn settle(
    question: &mut Question,
    domain: Option<&DomainIndex>,
    descriptor: &RateLimitDescriptor,
    reservation: &Reservation,
    amount: Option<Amount>,
) {
    let entries = besides_reservation(descriptor);
    if entries.is_empty() {
        return question.used(reservation, |_| amount);
    }
    let found = domain.and_then(|domain| domain.find(entries.into_iter()));
    let met = found.and_then(|found| Some(mark(&found.budget?.rule.name, &fitting(found.subject))));
    question.used(reservation, |line| amount.filter(|_| met == Some(line)));
}

fn configured(
    question: &mut Question,
    domain: &DomainIndex,
    descriptor: &RateLimitDescriptor,
    holds: bool,
    amount: Amount,
    replaced: &mut HashSet<String>,
) -> Meaning {
    let found = if holds {
        domain.find(besides_reservation(descriptor).into_iter())
    } else {
        domain.find(pairs(descriptor))
    };
    let Some(found) = found else { return Meaning::Nothing };
    replaced.extend(found.limit.replaces.iter().cloned());
    let limit = Arc::clone(found.limit);
    let Some(budget) = found.budget else { return Meaning::Unlimited };
    question.lines.push(Line {
        budget: Arc::clone(budget),
        subject: fitting(found.subject),
        amount,
        spending: if holds { Spending::Held } else { limit.spending },
        limit: None,
        quota: limit.quota,
    });
    let line = question.lines.len() - 1;
    Meaning::Limit { line, limit: Limit::Configured { limit, metric: found.metric } }
}

/// A limit that the descriptor brings itself: counted in the domain, compared here.
fn brought(
    question: &mut Question,
    domain: &DomainIndex,
    descriptor: &RateLimitDescriptor,
    holds: bool,
    amount: Amount,
) -> Result<Meaning, Mistake> {
    let Some(limit) = &descriptor.limit else { return Ok(Meaning::Nothing) };
    if limit.unit_multiplier.is_some_and(|times| times > 1) {
        return Err(Mistake(
            "unit_multiplier of a limit override is not supported: name a whole unit".to_owned(),
        ));
    }
    if holds {
        return Err(Mistake(format!(
            "{}: {} goes not with a limit override: leave one of the two out",
            reservation::ENTRY,
            reservation::HOLD
        )));
    }
    let window = match limit.unit() {
        RateLimitUnit::Second => Window::Second,
        RateLimitUnit::Minute => Window::Minute,
        RateLimitUnit::Hour => Window::Hour,
        RateLimitUnit::Day => Window::Day,
        RateLimitUnit::Week => Window::Week,
        RateLimitUnit::Month => Window::Month,
        RateLimitUnit::Year => Window::Year,
        RateLimitUnit::Unknown => return Err(Mistake("a limit override needs a unit".to_owned())),
    };
    let Some(found) = domain.of_override(window) else { return Ok(Meaning::Nothing) };
    question.lines.push(Line {
        budget: Arc::clone(&found.budget),
        subject: fitting(override_subject(pairs(descriptor))),
        amount,
        spending: Spending::Count,
        limit: Some(units(limit.requests_per_unit.into())?),
        quota: false,
    });
    let line = question.lines.len() - 1;
    Ok(Meaning::Limit { line, limit: Limit::Brought { metric: Arc::clone(&found.metric) } })
}

/// Takes the limits out that others of the same request stand in for.
fn replace(question: &mut Question, replaced: &HashSet<String>) {
    if replaced.is_empty() {
        return;
    }
    let lines = std::mem::take(&mut question.lines);
    for (meaning, _) in &mut question.meanings {
        let Meaning::Limit { line, limit } = meaning else { continue };
        if let Limit::Configured { limit, .. } = limit
            && replaced.contains(&limit.name)
        {
            *meaning = Meaning::Nothing;
            continue;
        }
        let Some(kept) = lines.get(*line) else { continue };
        question.lines.push(kept.clone());
        *line = question.lines.len() - 1;
    }
}
