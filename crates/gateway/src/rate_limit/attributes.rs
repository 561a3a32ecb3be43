//! Descriptors as attributes of a request, and the budgets of all other policies that such a request meets: the very accounts
//! that it is charged to at the HTTP door.
//!
//! Entries: `tenant`, `team`, `user`, `key` (of an API key: its id), `model`, `path`, `method`, `host`, `query`,
//! `remote_address`; anything else, or `header:NAME`, is a header. `hits` says what the hits are. `quorate_reservation`
//! asks for a reservation or names one.

use std::borrow::Cow;
use std::net::IpAddr;

use quorate_ledger::{Amount, Enforcement};
use quorate_policy::runtime::{
    Budget, BudgetMatch, Cost, CostContext, CostError, HeaderSource, Identity, IdentityRules, MODEL_HEADER,
    RequestView, Spending, TokenKind, Usage,
};
use quorate_rpc::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use quorate_rpc::rls::RateLimitRequest;

use super::question::{Line, Meaning, Mistake, Question, hits, units};
use super::reservation::{self, Reservation, mark};
use crate::policy::ActivePolicy;

/// What is counted, where a descriptor does not say it.
const PATH: &str = "/v1/chat/completions";
const METHOD: &str = "POST";
/// As everywhere.
const TENANT_BYTES_MAX: usize = 128;

pub(super) fn read(
    question: &mut Question,
    request: &RateLimitRequest,
    policy: &ActivePolicy,
) -> Result<(), Mistake> {
    let mut tenant: Option<String> = None;
    for descriptor in &request.descriptors {
        let hits = hits(request, descriptor);
        let asked = Attributes::read(descriptor, policy.policy.identity(), &question.tenant)?;
        if tenant.as_ref().is_some_and(|known| *known != asked.identity.tenant) {
            return Err(Mistake(
                "descriptors of one request name several tenants; ask for each alone".to_owned(),
            ));
        }
        tenant = Some(asked.identity.tenant.clone());
        let matched = asked.budgets(policy);
        let costs = |matched: &Matched<'_>| -> Vec<Costs> {
            matched.iter().map(|(found, at)| cost(&found.budget, at, asked.counted, hits, policy)).collect()
        };
        let meaning = match (&asked.settles, matched) {
            (Some(reservation), matched) => {
                let matched = matched.unwrap_or_default();
                settle(question, reservation, &matched, &costs(&matched));
                Meaning::Settles
            }
            (None, Ok(matched)) => {
                let costs = costs(&matched);
                lines(question, asked.holds, matched, costs)
            }
            (None, Err(Mistake(why))) => Meaning::Refused { why },
        };
        question.meanings.push((meaning, hits));
    }
    question.tenant = tenant.unwrap_or_default();
    Ok(())
}

type Matched<'a> = Vec<(BudgetMatch, CostContext<'a>)>;
/// Of one budget: see [`cost`].
type Costs = Result<Option<Amount>, Mistake>;

/// A budget that these hits say nothing of is looked at all the same. One whose cost cannot be told refuses the request, as
/// at the HTTP door; what was used is charged to the others.
fn lines(question: &mut Question, holds: bool, matched: Matched<'_>, costs: Vec<Costs>) -> Meaning {
    let refused = costs.iter().find_map(|cost| cost.as_ref().err()).map(|Mistake(why)| why.clone());
    if let Some(why) = refused.clone().filter(|_| holds) {
        return Meaning::Refused { why };
    }
    let mut lines = Vec::new();
    for ((found, _), cost) in matched.into_iter().zip(costs) {
        let Ok(cost) = cost else { continue };
        question.lines.push(Line {
            budget: found.budget,
            subject: found.subject,
            amount: cost.unwrap_or(Amount::ZERO),
            spending: if holds && cost.is_some() { Spending::Held } else { Spending::Count },
            limit: None,
            quota: false,
        });
        lines.push(question.lines.len() - 1);
    }
    match refused {
        Some(why) => Meaning::Refused { why },
        None if lines.is_empty() => Meaning::Nothing,
        None => Meaning::Budgets { lines },
    }
}

/// A line whose account these attributes do not meet keeps what was held: the policy may have changed since.
fn settle(question: &mut Question, reservation: &Reservation, matched: &Matched<'_>, costs: &[Costs]) {
    question.used(reservation, |line| {
        let is_met = |(found, _): &(BudgetMatch, _)| mark(&found.budget.rule.name, &found.subject) == line;
        let cost = costs.get(matched.iter().position(is_met)?)?;
        cost.as_ref().ok().map(|cost| cost.unwrap_or(Amount::ZERO))
    });
}

/// What the hits of a descriptor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Input and output together: how much of each is not known.
    Total,
    Tokens(TokenKind),
    Requests,
}

const COUNTED: [(&str, Counted); 7] = [
    ("total_tokens", Counted::Total),
    ("input_tokens", Counted::Tokens(TokenKind::Input)),
    ("output_tokens", Counted::Tokens(TokenKind::Output)),
    ("cached_input_tokens", Counted::Tokens(TokenKind::CachedInput)),
    ("cache_creation_tokens", Counted::Tokens(TokenKind::CacheCreationInput)),
    ("reasoning_tokens", Counted::Tokens(TokenKind::Reasoning)),
    ("requests", Counted::Requests),
];

/// `None`: these hits are none of the budget's business, or say too little (dollars of a total).
fn cost(budget: &Budget, at: &CostContext<'_>, counted: Counted, hits: u64, policy: &ActivePolicy) -> Costs {
    if counted == Counted::Requests {
        let times =
            u64::checked_mul(budget.request_cost.micros(), hits).and_then(|n| Amount::from_micros(n).ok());
        let amount = times.ok_or_else(|| Mistake(format!("{hits} requests are more than can be counted")))?;
        return Ok((!budget.request_cost.is_zero()).then_some(amount));
    }
    let usage = match counted {
        Counted::Total => Usage { total: hits, ..Usage::default() },
        Counted::Tokens(TokenKind::Input) => Usage { input: hits, total: hits, ..Usage::default() },
        Counted::Tokens(TokenKind::Output) => Usage { output: hits, total: hits, ..Usage::default() },
        Counted::Tokens(TokenKind::CachedInput) => Usage { cached_input: hits, ..Usage::default() },
        Counted::Tokens(TokenKind::CacheCreationInput) => {
            Usage { cache_creation_input: hits, ..Usage::default() }
        }
        Counted::Tokens(_) => Usage { reasoning: hits, ..Usage::default() },
        Counted::Requests => return Ok(None),
    };
    let says_enough = match (&budget.cost, counted) {
        (Cost::Tokens(kind), Counted::Total) => *kind == TokenKind::Total,
        (Cost::Tokens(kind), Counted::Tokens(of)) => kind.of(&usage) > 0 || *kind == of,
        // Parts of the input and the output have been charged with them.
        (Cost::Dollars | Cost::Cel(_), Counted::Tokens(of)) => {
            matches!(of, TokenKind::Input | TokenKind::Output)
        }
        _ => false,
    };
    if !says_enough {
        return Ok(None);
    }
    if let Cost::Tokens(kind) = &budget.cost {
        return units(kind.of(&usage)).map(Some);
    }
    let cost = budget.cost.of(&usage, at, policy.policy.prices(), budget.price_fallback.as_ref());
    // As at the HTTP door: a budget that only watches lets it pass, and an expression that fails is not free.
    match cost {
        Ok(cost) => Ok(Some(cost)),
        Err(CostError::NoPrice { .. }) if budget.rule.enforcement == Enforcement::Shadow => Ok(None),
        Err(error @ CostError::NoPrice { .. }) => {
            Err(Mistake(format!("budget {}: {error}", budget.rule.name)))
        }
        Err(error) => {
            let total = usage.total;
            tracing::warn!(budget = budget.rule.name, %error, total, "a cost failed; the token total is charged");
            units(total).map(Some)
        }
    }
}

/// A request as a descriptor tells it.
struct Attributes<'a> {
    entries: Vec<(Cow<'a, str>, &'a str)>,
    identity: Identity,
    method: &'a str,
    path: &'a str,
    host: Option<&'a str>,
    query: Option<&'a str>,
    source: Option<IpAddr>,
    model: &'a str,
    counted: Counted,
    holds: bool,
    settles: Option<Reservation>,
    /// The headers that carry tenant, team and user.
    names: [String; 3],
}

impl HeaderSource for Attributes<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(known) = self.identity.header(&self.names, name) {
            return known.map(Cow::Borrowed);
        }
        let found = self.entries.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| Cow::Borrowed(*value))
    }
}

impl<'a> Attributes<'a> {
    fn read(
        descriptor: &'a RateLimitDescriptor,
        rules: &IdentityRules,
        tenant: &str,
    ) -> Result<Self, Mistake> {
        let mut own = Self {
            entries: Vec::new(),
            identity: Identity::default(),
            method: METHOD,
            path: PATH,
            host: None,
            query: None,
            source: None,
            model: "",
            counted: Counted::Total,
            holds: false,
            settles: None,
            names: rules.headers(),
        };
        let mut said: [Option<&str>; 3] = [None; 3];
        for entry in &descriptor.entries {
            let value = entry.value.as_str();
            match entry.key.as_str() {
                "tenant" => said[0] = Some(value),
                "team" => said[1] = Some(value),
                "user" => said[2] = Some(value),
                "key" => own.identity.key = Some(value.to_owned()),
                "model" | MODEL_HEADER => own.model = value,
                "method" => own.method = value,
                "path" => {
                    let (path, query) =
                        value.split_once('?').map_or((value, None), |(path, rest)| (path, Some(rest)));
                    own.path = path;
                    own.query = own.query.or(query);
                }
                "query" => own.query = Some(value),
                "host" => own.host = Some(value),
                "remote_address" => own.source = value.parse().ok(),
                "hits" => {
                    let known = COUNTED.iter().find(|(name, _)| *name == value);
                    own.counted = known.map(|(_, counted)| *counted).ok_or_else(|| {
                        let names: Vec<&str> = COUNTED.iter().map(|(name, _)| *name).collect();
                        Mistake(format!("hits of kind {value:?}; known are {}", names.join(", ")))
                    })?;
                }
                reservation::ENTRY if value == reservation::HOLD => own.holds = true,
                reservation::ENTRY => {
                    let known = Reservation::decode(value);
                    own.settles = Some(known.ok_or_else(|| Mistake("unknown reservation".to_owned()))?);
                }
                key => {
                    let name = key.strip_prefix("header:").unwrap_or(key);
                    own.entries.push((Cow::Owned(name.to_ascii_lowercase()), value));
                }
            }
        }
        own.identify(rules, said, tenant);
        Ok(own)
    }

    /// Who asks is the same whether a descriptor says `user` or the header that names users, and both are seen. As at the
    /// HTTP door, what is empty is missing.
    fn identify(&mut self, rules: &IdentityRules, said: [Option<&str>; 3], tenant: &str) {
        let by_header =
            |name: &String| self.entries.iter().find(|(known, _)| *known == **name).map(|(_, value)| *value);
        let fields = [&rules.tenant, &rules.team, &rules.user];
        let known = |part: usize| {
            let found = said[part].or_else(|| by_header(&self.names[part]));
            found.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let identity = Identity {
            tenant: known(0).unwrap_or_else(|| tenant.to_owned()),
            team: known(1).or_else(|| fields[1].default.clone()),
            user: known(2).or_else(|| fields[2].default.clone()),
            key: self.identity.key.clone(),
        };
        self.identity = identity;
    }

    /// An error is the request's, and the HTTP door would refuse it.
    fn budgets<'p>(&'p self, policy: &'p ActivePolicy) -> Result<Matched<'p>, Mistake> {
        let tenant = &self.identity.tenant;
        if tenant.len() > TENANT_BYTES_MAX || tenant.chars().any(char::is_control) {
            return Err(Mistake(format!(
                "a tenant of {} bytes or with control characters; 1 to {TENANT_BYTES_MAX} bytes without them are allowed",
                tenant.len()
            )));
        }
        let view = RequestView {
            method: self.method,
            path: self.path,
            query: self.query,
            host: self.host,
            source: self.source,
            model: self.model,
            headers: self,
            identity: &self.identity,
        };
        let route = policy.policy.route(&view);
        let found =
            policy.policy.budgets(&view, route.as_ref()).map_err(|error| Mistake(error.to_string()))?;
        let contexts = match &route {
            Some(route) => route.contexts(self.model),
            None => Vec::new(),
        };
        let own = CostContext { model: self.model, backend: "", route: "" };
        let at = contexts.first().copied().unwrap_or(own);
        Ok(found.into_iter().map(|found| (found, at)).collect())
    }
}
