//! What a request would meet: its route, the backends in their order, its budgets, and what it would hold of each. The
//! policy is the one in force and the balances are the ledger's; nothing is changed.
//!
//! As a gateway would decide it, except for what a gateway alone knows: keys and tokens, the exact size of the input,
//! the health of backends.

use std::net::IpAddr;

use quorate_ledger::{Amount, Charge, Command, Enforcement, Ledger, ReservationId};
use quorate_policy::runtime::{
    Budget, BudgetMatch, CompiledPolicy, CostContext, Identity, IdentityField, RequestView, RouteMatch,
    TierAction, WhenShort, tier_at,
};
use quorate_rpc::{admin, budget};
use tonic::Status;

use crate::admin_reads::Reads;
use crate::policies::{InForce, Policies};
use crate::policy_words;
use crate::tenants::now;

const INPUT_DEFAULT: u64 = 1_000;
const HEADERS_MAX: usize = 256;

/// The request that is explained, and where it would go.
struct Case<'a> {
    compiled: &'a CompiledPolicy,
    identity: &'a Identity,
    model: &'a str,
    contexts: Vec<CostContext<'a>>,
    input: u64,
    max_tokens: Option<u64>,
}

impl Reads {
    pub async fn explain(
        &self,
        policies: &Policies,
        request: admin::ExplainRequestRequest,
    ) -> Result<admin::ExplainRequestResponse, Status> {
        if request.headers.len() > HEADERS_MAX {
            return Err(Status::invalid_argument(format!("headers: at most {HEADERS_MAX}")));
        }
        let source = match request.source.as_str() {
            "" => None,
            text => {
                let parsed: Result<IpAddr, _> = text.parse();
                Some(parsed.map_err(|_| Status::invalid_argument("source: wanted an IP address"))?)
            }
        };
        let policy = policies.in_force().await?;
        let headers: Vec<(String, String)> = request
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), header.value.clone()))
            .collect();
        let mut notes = Vec::new();
        let identity = identity(&policy.compiled, &request, &headers, &mut notes);
        let host = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        let or = |text: &'static str, given: &'_ str| -> String {
            if given.is_empty() { text.to_owned() } else { given.to_owned() }
        };
        let (method, path) = (or("POST", &request.method), or("/v1/chat/completions", &request.path));
        let view = RequestView {
            method: &method,
            path: &path,
            query: Some(request.query.as_str()).filter(|query| !query.is_empty()),
            host,
            source,
            model: &request.model,
            headers: &headers,
            identity: &identity,
        };
        let route = policy.compiled.route(&view);
        let budgets = policy.compiled.budgets(&view, route.as_ref());
        let budgets = budgets.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let case = Case {
            compiled: &policy.compiled,
            identity: &identity,
            model: &request.model,
            contexts: contexts(&view, route.as_ref()),
            input: if request.input_tokens == 0 { INPUT_DEFAULT } else { request.input_tokens },
            max_tokens: request.max_tokens,
        };
        let response = self.replica.read(|ledger, at| admin::ExplainRequestResponse {
            policy_version: policy.version,
            tenant: identity.tenant.clone(),
            team: identity.team.clone().unwrap_or_default(),
            user: identity.user.clone().unwrap_or_default(),
            route: route.as_ref().map(|found| found.route.name.clone()).unwrap_or_default(),
            backends: backends(&policy, route.as_ref(), &request.model),
            budgets: budgets.iter().map(|found| case.budget(ledger, found, &mut notes)).collect(),
            notes: Vec::new(),
            read_point: self.point(at, ledger.time()),
        });
        if route.is_none() && !policy.compiled.routes().is_empty() {
            notes.push(
                "no route matches: the gateway's own configuration says where it goes, if it has one"
                    .to_owned(),
            );
        }
        if budgets.is_empty() {
            notes.push("no budget applies: it is not counted".to_owned());
        }
        Ok(admin::ExplainRequestResponse { notes, ..response })
    }
}

fn contexts<'a>(view: &RequestView<'a>, route: Option<&RouteMatch<'a>>) -> Vec<CostContext<'a>> {
    let nowhere = CostContext { model: view.model, backend: "", route: "" };
    let contexts = route.map(|route| route.contexts(view.model)).unwrap_or_default();
    if contexts.is_empty() { vec![nowhere] } else { contexts }
}

fn identity(
    compiled: &CompiledPolicy,
    request: &admin::ExplainRequestRequest,
    headers: &[(String, String)],
    notes: &mut Vec<String>,
) -> Identity {
    let rules = compiled.identity();
    let from = |given: &str, field: &IdentityField| {
        let header = field.header.as_ref().and_then(|name| headers.iter().find(|(known, _)| known == name));
        let header = header.map(|(_, value)| value.clone()).filter(|value| !value.is_empty());
        Some(given.to_owned()).filter(|given| !given.is_empty()).or(header).or_else(|| field.default.clone())
    };
    let tenant = from(&request.tenant, &rules.tenant);
    if tenant.is_none() {
        notes.push(
            "no tenant: the request names none and the policy has no default; it would be refused".to_owned(),
        );
    }
    if rules.keys || rules.jwt.is_some() {
        notes.push("keys or tokens may say who it is: name tenant, team and user as they would".to_owned());
    }
    Identity {
        tenant: tenant.unwrap_or_default(),
        team: from(&request.team, &rules.team),
        user: from(&request.user, &rules.user),
        key: None,
    }
}

fn backends(policy: &InForce, route: Option<&RouteMatch<'_>>, model: &str) -> Vec<admin::ExplainedBackend> {
    let Some(route) = route else { return Vec::new() };
    // Any draw: those of one priority are drawn by weight, request by request.
    let backends = route.backends(0).into_iter().map(|backend| admin::ExplainedBackend {
        name: backend.backend.clone(),
        provider: policy
            .compiled
            .backend(&backend.backend)
            .map(|spec| spec.provider.name().to_owned())
            .unwrap_or_default(),
        priority: backend.priority,
        weight: backend.weight,
        model: backend.model_override.clone().unwrap_or_else(|| model.to_owned()),
    });
    backends.collect()
}

impl Case<'_> {
    fn budget(
        &self,
        ledger: &Ledger,
        found: &BudgetMatch,
        notes: &mut Vec<String>,
    ) -> admin::ExplainedBudget {
        let (rule, time) = (&found.budget.rule, now());
        let account = ledger.account(time, &self.identity.tenant, &rule.name, &found.subject);
        let (limit, spent, reserved, available) =
            account.as_ref().map_or((rule.limit, Amount::ZERO, Amount::ZERO, rule.limit), |account| {
                (account.limit, account.spent, account.reserved, account.available)
            });
        let window = account.map_or_else(|| rule.span_at(time), |account| account.window);
        let asked = self.asked(&found.budget);
        let verdict = match &asked {
            Err(problem) => problem.clone(),
            Ok((amount, at_least)) => self.verdict(ledger, found, (*amount, *at_least), available).to_owned(),
        };
        if let Some(action) = tier_at(&found.budget.tiers, available, limit) {
            notes.push(format!("budget {}: {}", rule.name, tier(action)));
        }
        let held = match rule.enforcement {
            // Counted when the answer is there.
            Enforcement::Count => Amount::ZERO,
            Enforcement::Reserve | Enforcement::Shadow => asked.map_or(Amount::ZERO, |(amount, _)| amount),
        };
        admin::ExplainedBudget {
            name: rule.name.clone(),
            source: found.budget.explains.clone(),
            subject: found.subject.clone(),
            unit: budget::Unit::from(rule.unit).into(),
            limit_micros: limit.micros(),
            spent_micros: spent.micros(),
            reserved_micros: reserved.micros(),
            would_reserve_micros: held.micros(),
            enforcement: policy_words::enforcement(rule.enforcement).to_owned(),
            verdict,
            resets_at_ms: window.end.map_or(0, |end| end.0),
        }
    }

    /// The most it can cost, and the least that it is admitted with.
    fn asked(&self, budget: &Budget) -> Result<(Amount, Amount), String> {
        let prices = self.compiled.prices();
        let bound = |output| {
            let bound = budget.bound(self.input, output, &self.contexts, prices);
            bound.map_err(|error| format!("{}: {error}", self.model))
        };
        let most = budget.output_max.unwrap_or(u64::MAX);
        let output = self.max_tokens.unwrap_or(budget.output_default).min(most);
        let shrinks = self.max_tokens.is_none() || budget.when_short == WhenShort::Clamp;
        let least = if shrinks { output.min(budget.output_floor) } else { output };
        Ok((bound(output)?, bound(least)?))
    }

    fn verdict(
        &self,
        ledger: &Ledger,
        found: &BudgetMatch,
        (amount, at_least): (Amount, Amount),
        available: Amount,
    ) -> &'static str {
        let rule = &found.budget.rule;
        if rule.enforcement == Enforcement::Shadow {
            return if available < at_least { "would be denied (shadow)" } else { "granted" };
        }
        let Some(id) = ReservationId::from_u128(uuid::Uuid::now_v7().as_u128()) else { return "granted" };
        let charge = Charge { budget: rule.name.clone(), subject: found.subject.clone(), amount, at_least };
        let reserve = Command::Reserve {
            tenant: self.identity.tenant.clone(),
            id,
            charges: vec![charge],
            ttl_ms: 1_000,
            wait: false,
        };
        match ledger.would_deny(now(), &reserve) {
            Some(denial) if denial.held_by_reservations => "denied (others hold what is left)",
            Some(_) => "denied",
            None if rule.enforcement == Enforcement::Reserve && available < amount => {
                "granted, with less output"
            }
            None => "granted",
        }
    }
}

fn tier(action: &TierAction) -> String {
    match action {
        TierAction::Model(model) => format!("by what is left, it is served with model {model}"),
        TierAction::Reject => "by what is left, it is rejected".to_owned(),
        TierAction::Wait => "by what is left, it waits, then is rejected".to_owned(),
    }
}
