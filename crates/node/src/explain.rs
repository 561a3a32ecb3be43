//! What a request would meet: its route, the backends in their order, its budgets, and what it would hold of each. The
//! policy is the one in force and the balances are the ledger's; nothing is changed.
//!
//! As a gateway would decide it, except for what a gateway alone knows: keys and tokens, the exact size of the input,
//! what it has seen of backends and not told yet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use quorate_ledger::{
    Amount, Charge, Command, Enforcement, Ledger, ProviderView, ReservationId, TimestampMs,
};
use quorate_policy::runtime::{
    BackendRef, Budget, BudgetMatch, CompiledPolicy, CostContext, ExplainedBudget, Explanation, HeaderSource,
    Identity, IdentityField, OutputBounds, OutputTooLarge, Ranked, RequestView, RouteMatch, Signals, Sticky,
    TierAction, Verdict, tier_at,
};
use quorate_rpc::{admin, budget};
use tonic::Status;

use crate::admin_reads::Reads;
use crate::explain_rest;
use crate::policies::Policies;
use crate::policy_words;

const INPUT_DEFAULT: u64 = 1_000;
/// What a gateway takes for the output of a request that names none, to compare prices.
const OUTPUT_DEFAULT: u64 = 1_024;
const HEADERS_MAX: usize = 256;
/// As a gateway: what was measured longer ago is no measurement any more.
const FRESH_MS: u64 = 60_000;
/// Budgets that do not apply, of which it is told why.
const OTHERS_MAX: usize = 50;

/// The request that is explained, and where it would go.
struct Case<'a> {
    time: TimestampMs,
    compiled: &'a CompiledPolicy,
    identity: &'a Identity,
    model: &'a str,
    /// The output that the request names.
    named: Option<u64>,
    contexts: Vec<CostContext<'a>>,
    input: u64,
    output: Result<OutputBounds, OutputTooLarge>,
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
        let identity = match request.key.as_str() {
            "" => identity(&policy.compiled, &request, &headers, &mut notes),
            id => self.identity_of_key(id, &request.model, &mut notes)?,
        };
        let names = policy.compiled.identity().headers();
        let host = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        let or = |text: &'static str, given: &'_ str| -> String {
            if given.is_empty() { text.to_owned() } else { given.to_owned() }
        };
        let (method, path) = (or("POST", &request.method), or("/v1/chat/completions", &request.path));
        let seen = Seen { headers: &headers, identity: &identity, names: &names };
        let view = RequestView {
            method: &method,
            path: &path,
            query: Some(request.query.as_str()).filter(|query| !query.is_empty()),
            host,
            source,
            model: &request.model,
            headers: &seen,
            identity: &identity,
        };
        let input = if request.input_tokens == 0 { INPUT_DEFAULT } else { request.input_tokens };
        let latencies = self.latencies();
        let signals = Signals {
            draw: 0,
            conversation: None,
            input,
            output: request.max_tokens.unwrap_or(OUTPUT_DEFAULT),
            prices: policy.compiled.prices(),
            latency_ms: &|backend, model| latencies.get(backend)?.get(model).copied(),
        };
        let Explanation { route, backends, budgets } = policy.compiled.explain(&view, &signals);
        match &route {
            Some(found) => notes.extend(routing_notes(found, &view)),
            None => notes.push(nowhere(policy.compiled.routes().is_empty()).to_owned()),
        }
        let matches = matches(budgets, &mut notes)?;
        let case = Case {
            time: self.replica.now(),
            compiled: &policy.compiled,
            identity: &identity,
            model: &request.model,
            named: request.max_tokens,
            contexts: contexts(&view, route.as_ref(), &backends),
            input,
            output: OutputBounds::of(request.max_tokens, u64::MAX, 1, &matches),
        };
        let circuits: Vec<ProviderView> = self.replica.read(|ledger, _| ledger.providers().collect());
        let response = self.replica.read(|ledger, at| admin::ExplainRequestResponse {
            policy_version: policy.version,
            tenant: identity.tenant.clone(),
            team: identity.team.clone().unwrap_or_default(),
            user: identity.user.clone().unwrap_or_default(),
            route: route.as_ref().map(|found| found.route.name.clone()).unwrap_or_default(),
            routing: route.as_ref().map(|found| found.rule.routing.to_string()).unwrap_or_default(),
            backends: backends
                .iter()
                .map(|one| {
                    let alone = backends.len() == 1;
                    let rests = case.rests(&circuits, one);
                    case.backend(one, case.short(ledger, &view, route.as_ref(), one, alone), rests, alone)
                })
                .collect(),
            budgets: matches
                .iter()
                .enumerate()
                .map(|(number, found)| case.budget(ledger, found, number, &mut notes))
                .collect(),
            notes: Vec::new(),
            read_point: self.point(at, ledger.time()),
        });
        Ok(admin::ExplainRequestResponse { notes, ..response })
    }

    /// As the fleet measured them in the last minute, by backend and model.
    fn latencies(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut latencies: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let time = self.replica.now();
        self.replica.read(|ledger, _| {
            for view in ledger.providers() {
                let is_fresh = view.first_byte_at.is_some_and(|at| time.since(at) < FRESH_MS);
                if let Some(ms) = view.first_byte_ms.filter(|_| is_fresh) {
                    latencies.entry(view.backend).or_default().insert(view.model, ms);
                }
            }
        });
        latencies
    }

    /// Whom the key stands for.
    fn identity_of_key(&self, id: &str, model: &str, notes: &mut Vec<String>) -> Result<Identity, Status> {
        let record = self.replica.read(|ledger, _| ledger.key(id).cloned());
        let record = record.ok_or_else(|| {
            Status::invalid_argument(format!("key: there is none of id {id}; `quorate keys list` shows them"))
        })?;
        if record.revoked_at.is_some() || record.expires_at.is_some_and(|at| at <= self.replica.now()) {
            notes.push(format!("key {id} is revoked or has expired: it would be refused"));
        }
        if !record.models.is_empty() && !record.models.iter().any(|known| known == model) {
            notes.push(format!("key {id} may not ask for {model}: it would be refused"));
        }
        let part = |text: String| Some(text).filter(|text| !text.is_empty());
        Ok(Identity {
            tenant: record.tenant,
            team: part(record.team),
            user: part(record.user),
            key: Some(record.id),
        })
    }
}

/// Headers as a gateway shows them to the policy: those that carry the identity say what is known of it.
struct Seen<'a> {
    headers: &'a [(String, String)],
    identity: &'a Identity,
    names: &'a [String; 3],
}

impl HeaderSource for Seen<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.identity.header(self.names, name) {
            Some(known) => known.map(Cow::Borrowed),
            None => HeaderSource::get(self.headers, name),
        }
    }
}

/// What becomes of a request that no route takes.
fn nowhere(no_routes: bool) -> &'static str {
    if no_routes {
        "the policy has no routes: where it goes is up to the gateway's own configuration"
    } else {
        "no route of the policy takes it: it would be refused (404 model_not_found)"
    }
}

/// What only a gateway knows of how backends are chosen.
fn routing_notes(found: &RouteMatch<'_>, view: &RequestView<'_>) -> Vec<String> {
    let routing = &found.rule.routing;
    let mut notes = Vec::new();
    match &routing.sticky {
        Some(Sticky::Header(name)) if found.sticky_key(view, None).is_none() => {
            notes.push(format!("without header {name}, equals are drawn by weight for each request"));
        }
        Some(Sticky::Conversation) => {
            notes.push("which of equals serves a conversation depends on how it begins".to_owned());
        }
        _ => {}
    }
    notes
}

/// Those that apply; of the others, why not.
fn matches(budgets: Vec<ExplainedBudget>, notes: &mut Vec<String>) -> Result<Vec<BudgetMatch>, Status> {
    let (mut matches, mut others) = (Vec::new(), 0);
    for ExplainedBudget { budget, verdict } in budgets {
        match verdict {
            Verdict::Applies { subject, .. } => {
                let subject = subject.map_err(|error| Status::invalid_argument(error.to_string()))?;
                matches.push(BudgetMatch { budget, subject });
            }
            Verdict::DoesNot { because } => {
                others += 1;
                if others <= OTHERS_MAX {
                    notes.push(format!("budget {} does not apply: {because}", budget.rule.name));
                }
            }
        }
    }
    if others > OTHERS_MAX {
        notes.push(format!("{} more budgets do not apply", others - OTHERS_MAX));
    }
    if matches.is_empty() {
        notes.push("no budget applies: where it is served, it is not counted".to_owned());
    }
    Ok(matches)
}

/// In the order in which the backends are tried.
fn contexts<'a>(
    view: &RequestView<'a>,
    route: Option<&RouteMatch<'a>>,
    backends: &[Ranked<'a>],
) -> Vec<CostContext<'a>> {
    let nowhere = CostContext { model: view.model, backend: "", route: "" };
    let context = |route: &RouteMatch<'a>| {
        backends.iter().map(|one| route.context(one.backend, view.model)).collect::<Vec<_>>()
    };
    let contexts = route.map(context).unwrap_or_default();
    if contexts.is_empty() { vec![nowhere] } else { contexts }
}

fn identity(
    compiled: &CompiledPolicy,
    request: &admin::ExplainRequestRequest,
    headers: &[(String, String)],
    notes: &mut Vec<String>,
) -> Identity {
    let rules = compiled.identity();
    let [of_tenant, of_team, of_user] = rules.headers();
    let from = |given: &str, field: &IdentityField, name: &str| {
        let header = headers.iter().find(|(known, _)| known == name);
        let header = header.map(|(_, value)| value.clone()).filter(|value| !value.is_empty());
        Some(given.to_owned()).filter(|given| !given.is_empty()).or(header).or_else(|| field.default.clone())
    };
    let tenant = from(&request.tenant, &rules.tenant, &of_tenant);
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
        team: from(&request.team, &rules.team, &of_team),
        user: from(&request.user, &rules.user, &of_user),
        key: None,
    }
}

impl Case<'_> {
    /// `short`: the budget of its own that is. `rests`: why it gets no requests. `alone`: there is no other backend.
    fn backend(
        &self,
        ranked: &Ranked<'_>,
        short: Option<String>,
        rests: Option<String>,
        alone: bool,
    ) -> admin::ExplainedBackend {
        let Ranked { backend, rank, reason } = ranked;
        let spec = self.compiled.backend(&backend.backend);
        let so = if alone { "" } else { "passed over: " };
        let short = short.map(|budget| format!("; {so}its budget {budget} is short"));
        let rests = rests.map(|why| format!("; {so}{why}"));
        admin::ExplainedBackend {
            name: backend.backend.clone(),
            provider: spec.map(|spec| spec.provider.name().to_owned()).unwrap_or_default(),
            priority: backend.priority,
            weight: backend.weight,
            model: self.model_at(backend).to_owned(),
            rank: u32::try_from(rank + 1).unwrap_or(u32::MAX),
            reason: format!("{reason}{}", rests.or(short).unwrap_or_default()),
        }
    }

    fn model_at<'b>(&'b self, backend: &'b BackendRef) -> &'b str {
        backend.model_override.as_deref().unwrap_or(self.model)
    }

    fn rests(&self, circuits: &[ProviderView], ranked: &Ranked<'_>) -> Option<String> {
        explain_rest::why(circuits, self.time, (&ranked.backend.backend, self.model_at(ranked.backend)))
    }

    /// The first budget of the backend's own that would deny the request. While there are others, one that has room for
    /// a shorter answer does.
    fn short(
        &self,
        ledger: &Ledger,
        view: &RequestView<'_>,
        route: Option<&RouteMatch<'_>>,
        ranked: &Ranked<'_>,
        alone: bool,
    ) -> Option<String> {
        let matches = self.compiled.budgets_on(view, route, Some(&ranked.backend.backend)).ok()?;
        let case = Case {
            output: OutputBounds::of(self.named, u64::MAX, 1, &matches),
            contexts: route.iter().map(|found| found.context(ranked.backend, view.model)).collect(),
            ..*self
        };
        let short = |(number, found): &(usize, &BudgetMatch)| {
            let account =
                ledger.account(self.time, &self.identity.tenant, &found.budget.rule.name, &found.subject);
            let available = account.map_or(found.budget.rule.limit, |account| account.available);
            case.asked(&found.budget, *number).is_ok_and(|(amount, least)| {
                let whole = !alone && amount <= found.budget.rule.limit;
                let asked = (amount, if whole { amount } else { least });
                case.verdict(ledger, found, asked, available).starts_with("denied")
            })
        };
        let own = |(_, found): &(usize, &BudgetMatch)| found.budget.is_of_backend();
        let found = matches.iter().enumerate().filter(own).find(short);
        found.map(|(_, found)| found.budget.rule.name.clone())
    }

    fn budget(
        &self,
        ledger: &Ledger,
        found: &BudgetMatch,
        number: usize,
        notes: &mut Vec<String>,
    ) -> admin::ExplainedBudget {
        let (rule, time) = (&found.budget.rule, self.time);
        let account = ledger.account(time, &self.identity.tenant, &rule.name, &found.subject);
        let (limit, spent, reserved, available) =
            account.as_ref().map_or((rule.limit, Amount::ZERO, Amount::ZERO, rule.limit), |account| {
                (account.limit, account.spent, account.reserved, account.available)
            });
        let window = account.map_or_else(|| rule.span_at(time), |account| account.window);
        let asked = self.asked(&found.budget, number);
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
            Enforcement::Reserve | Enforcement::Shadow | Enforcement::Lease => {
                asked.map_or(Amount::ZERO, |(amount, _)| amount)
            }
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

    /// The most it can cost, and the least that it is admitted with, of the matches' budget `number`.
    fn asked(&self, budget: &Budget, number: usize) -> Result<(Amount, Amount), String> {
        let output = self.output.as_ref().map_err(|OutputTooLarge { budget, named, max }| {
            format!("refused: budget {budget} allows at most {max} output tokens, not {named}")
        })?;
        let bound = |output| {
            // A backend's own is charged for that backend alone.
            let serving = if budget.is_of_backend() { 1 } else { self.contexts.len() };
            let at = self.contexts.get(..serving).unwrap_or_default();
            let bound = budget.bound(self.input, output, at, self.compiled.prices());
            bound.map_err(|error| format!("{}: {error}", self.model))
        };
        let least = output.least.get(number).copied().unwrap_or(output.most);
        Ok((bound(output.most)?, bound(least)?))
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
        match ledger.would_deny(self.time, &reserve) {
            Some(denial) if denial.held_by_reservations => "denied (others hold what is left)",
            Some(_) => "denied",
            None if rule.enforcement.binds() && available < amount => "granted, with less output",
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
