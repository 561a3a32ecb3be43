//! Descriptors of a domain of envoyproxy/ratelimit's configuration, and the limits that they meet.

use std::collections::HashSet;
use std::sync::Arc;

use quorate_ledger::{Amount, Window};
use quorate_policy::runtime::{DomainIndex, Spending, override_subject};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::envoy::r#type::v3::RateLimitUnit;
use quorate_rpc::rls::RateLimitRequest;

use super::question::{Limit, Line, Meaning, Mistake, Question, Settle, hits, pairs, units};
use super::reservation::{self, Reservation};
use crate::policy::ActivePolicy;

pub(super) fn read(
    question: &mut Question,
    request: &RateLimitRequest,
    policy: &ActivePolicy,
) -> Result<(), Mistake> {
    let domain = policy.policy.domain(&request.domain);
    for descriptor in &request.descriptors {
        let hits = hits(request, descriptor);
        let named = descriptor.entries.iter().find(|entry| entry.key == reservation::ENTRY);
        if let Some(reservation) = named.and_then(|entry| Reservation::decode(&entry.value)) {
            settle(question, reservation, units(hits)?);
            question.meanings.push((Meaning::Settles, hits));
            continue;
        }
        let holds = named.is_some_and(|entry| entry.value == reservation::HOLD);
        let meaning = match (domain, &descriptor.limit) {
            (None, _) => Meaning::Nothing,
            (Some(domain), Some(_)) => brought(question, domain, descriptor, hits)?,
            (Some(domain), None) => configured(question, domain, descriptor, holds, hits)?,
        };
        question.meanings.push((meaning, hits));
    }
    replace(question);
    Ok(())
}

/// Hits of several descriptors for one reservation add up. Every line of it counts the same hits.
fn settle(question: &mut Question, reservation: Reservation, amount: Amount) {
    match question.settles.iter_mut().find(|known| known.reservation.id == reservation.id) {
        Some(known) => {
            let more = |before: &mut Amount| *before = before.checked_add(amount).unwrap_or(Amount::MAX);
            known.amounts.iter_mut().for_each(more);
        }
        None => {
            let amounts = vec![amount; reservation.marks.len()];
            question.settles.push(Settle { reservation, amounts });
        }
    }
}

fn configured(
    question: &mut Question,
    domain: &DomainIndex,
    descriptor: &RateLimitDescriptor,
    holds: bool,
    hits: u64,
) -> Result<Meaning, Mistake> {
    let found = if holds {
        let without: Vec<(&str, &str)> =
            pairs(descriptor).filter(|(key, _)| *key != reservation::ENTRY).collect();
        domain.find(without.iter().copied())
    } else {
        domain.find(pairs(descriptor))
    };
    let Some(found) = found.map_err(|error| Mistake(error.to_string()))? else { return Ok(Meaning::Nothing) };
    let limit = Arc::clone(found.limit);
    let Some(budget) = found.budget else { return Ok(Meaning::Unlimited) };
    question.lines.push(Line {
        budget: Arc::clone(budget),
        subject: found.subject,
        amount: units(hits)?,
        spending: if holds { Spending::Held } else { limit.spending },
        limit: None,
    });
    let line = question.lines.len() - 1;
    Ok(Meaning::Limit { line, limit: Limit::Configured { limit, metric: found.metric } })
}

/// A limit that the descriptor brings itself: counted in the domain, compared here.
fn brought(
    question: &mut Question,
    domain: &DomainIndex,
    descriptor: &RateLimitDescriptor,
    hits: u64,
) -> Result<Meaning, Mistake> {
    let Some(limit) = &descriptor.limit else { return Ok(Meaning::Nothing) };
    if limit.unit_multiplier.is_some_and(|times| times > 1) {
        return Err(Mistake(
            "unit_multiplier of a limit override is not supported: name a whole unit".to_owned(),
        ));
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
    let Some(budget) = domain.override_budget(window) else { return Ok(Meaning::Nothing) };
    let subject =
        override_subject(&budget.rule.name, pairs(descriptor)).map_err(|error| Mistake(error.to_string()))?;
    question.lines.push(Line {
        budget: Arc::clone(budget),
        subject,
        amount: units(hits)?,
        spending: Spending::Count,
        limit: Some(units(limit.requests_per_unit.into())?),
    });
    let line = question.lines.len() - 1;
    Ok(Meaning::Limit { line, limit: Limit::Brought })
}

/// Takes the limits out that others of the same request stand in for.
fn replace(question: &mut Question) {
    let replacing = |meaning: &Meaning| match meaning {
        Meaning::Limit { limit: Limit::Configured { limit, .. }, .. } => limit.replaces.clone(),
        _ => Vec::new(),
    };
    let replaced: HashSet<String> =
        question.meanings.iter().flat_map(|(meaning, _)| replacing(meaning)).collect();
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
