//! What a policy makes of a request for one model: who asks, which backends may serve it in which order, and which
//! budgets it is charged to. Made anew when the policy or the model changes, always from one policy as a whole.

use std::sync::Arc;

use quorate_policy::runtime::{
    BackendRef, BodyMutation, BudgetMatch, CompiledPolicy, CostContext, HeaderMutation, MODEL_HEADER,
    MatchError, RequestView, RouteMatch, TextMatch,
};

use crate::{
    backend::Backend,
    backends::Unusable,
    choosing::Choosing,
    core::Core,
    identify::{Who, identify},
    policy::ActivePolicy,
    provider::{Api, body_mutation},
    refusal::Refusal,
    request::Asked,
    route::{known, shown},
    tokenizer::{Overheads, Tokenizer},
};

/// One way of serving the request.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// As the policy names the backend (`namespace/name`), else the config: in metrics, health and costs.
    pub(crate) name: String,
    pub(crate) backend: Result<Arc<Backend>, Unusable>,
    /// What is sent to it.
    pub(crate) model: String,
    pub(crate) headers: HeaderMutation,
    pub(crate) body: BodyMutation,
}

impl Candidate {
    pub(crate) fn tokenizer(&self) -> Tokenizer {
        match &self.backend {
            Ok(backend) => backend.tokenizer(&self.model),
            Err(_) => Tokenizer::for_model(&self.model),
        }
    }

    /// What its model adds around the text.
    pub(crate) fn overheads(&self) -> Overheads {
        let api = self.backend.as_ref().map_or(Api::OpenAI, |backend| backend.api());
        Overheads::at(api, &self.model)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) policy: Arc<ActivePolicy>,
    pub(crate) who: Arc<Who>,
    /// What budgets see: what was asked for, or what a tier put in its place.
    pub(crate) model: String,
    /// `namespace/name`; empty: none.
    pub(crate) route: String,
    /// In the order in which they are tried.
    pub(crate) candidates: Vec<Candidate>,
    /// Different priorities among them.
    pub(crate) priorities: usize,
    /// One account of each budget that applies; none: the request passes uncounted.
    pub(crate) matches: Vec<BudgetMatch>,
    /// The candidate that these are for: some budgets are a backend's own.
    matched_to: usize,
    pub(crate) total_ms: Option<u64>,
    pub(crate) idle_ms: Option<u64>,
}

impl Plan {
    /// Who asks, under `policy`.
    pub(crate) fn who(core: &Core, policy: &ActivePolicy, asked: &Asked) -> Result<Arc<Who>, Refusal> {
        let keys = core.keys.borrow().clone();
        identify(policy, &keys, core.keeper.now(), &asked.headers, asked.source).map(Arc::new)
    }

    /// Routes and matches under `policy`. `choosing`: decides among backends of one priority.
    pub(crate) fn make(
        policy: &Arc<ActivePolicy>,
        asked: &Asked,
        who: Arc<Who>,
        model: &str,
        choosing: &Choosing,
    ) -> Result<Self, Refusal> {
        who.may_ask_for(model)?;
        Self::with(policy, asked, who, model, choosing)
    }

    /// The same request for another model.
    pub(crate) fn for_model(&self, asked: &Asked, model: &str, choosing: &Choosing) -> Result<Self, Refusal> {
        Self::with(&self.policy, asked, Arc::clone(&self.who), model, choosing)
    }

    fn with(
        policy: &Arc<ActivePolicy>,
        asked: &Asked,
        who: Arc<Who>,
        model: &str,
        choosing: &Choosing,
    ) -> Result<Self, Refusal> {
        let seen = asked.seen(&who);
        let view = asked.view(model, &seen);
        let found = policy.policy.route(&view);
        let (candidates, priorities) = match &found {
            Some(found) => of_route(policy, found, &view, choosing)?,
            None if policy.policy.routes().is_empty() => (vec![of_config(policy, model)?], 1),
            None => {
                let known = models_of_routes(&policy.policy).join(", ");
                return Err(Refusal::NoRoute { model: shown(model), known });
            }
        };
        let matched_to = candidates.iter().position(|one| one.backend.is_ok()).unwrap_or(0);
        let backend = candidates.get(matched_to).filter(|_| found.is_some()).map(|one| one.name.as_str());
        let matches = matches(policy, &view, found.as_ref(), backend)?;
        let rule = found.as_ref().map(|found| found.rule);
        Ok(Self {
            policy: Arc::clone(policy),
            model: model.to_owned(),
            route: found.as_ref().map(|found| found.route.name.clone()).unwrap_or_default(),
            candidates,
            priorities,
            matches,
            matched_to,
            total_ms: rule.and_then(|rule| rule.request_timeout_ms),
            idle_ms: rule.and_then(|rule| rule.stream_idle_timeout_ms),
            who,
        })
    }

    /// Whether the budgets are those of a request that goes to this candidate.
    pub(crate) fn is_matched_to(&self, candidate: usize) -> bool {
        self.matched_to == candidate || !self.policy.has_budgets_of_backends
    }

    /// The same plan with these budgets.
    pub(crate) fn matching(&self, asked: &Asked, candidate: usize) -> Result<Self, Refusal> {
        let seen = asked.seen(&self.who);
        let view = asked.view(&self.model, &seen);
        let found = self.policy.policy.route(&view);
        let backend = self.candidates.get(candidate).filter(|_| found.is_some());
        let matches = matches(&self.policy, &view, found.as_ref(), backend.map(|one| one.name.as_str()))?;
        Ok(Self { matches, matched_to: candidate, ..self.clone() })
    }

    /// Whether the candidates are the same, in the same order.
    pub(crate) fn has_candidates_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy) && self.model == other.model
    }

    /// As the backends know them.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(|candidate| candidate.model.as_str())
    }

    /// What costs depend on besides tokens.
    pub(crate) fn context<'a>(&'a self, candidate: &'a Candidate) -> CostContext<'a> {
        CostContext { model: &candidate.model, backend: &candidate.name, route: &self.route }
    }
}

fn matches(
    policy: &ActivePolicy,
    view: &RequestView<'_>,
    found: Option<&RouteMatch<'_>>,
    backend: Option<&str>,
) -> Result<Vec<BudgetMatch>, Refusal> {
    let matched = policy.policy.budgets_on(view, found, backend);
    matched.map_err(|error: MatchError| Refusal::WrongSubject(error.to_string()))
}

fn of_config(policy: &ActivePolicy, model: &str) -> Result<Candidate, Refusal> {
    let configured = &policy.sources.configured;
    let backend = configured
        .for_model(model)
        .ok_or_else(|| Refusal::UnknownModel { model: shown(model), known: known(configured) })?;
    Ok(Candidate {
        name: backend.name.clone(),
        backend: Ok(Arc::clone(backend)),
        model: model.to_owned(),
        headers: HeaderMutation::default(),
        body: BodyMutation::default(),
    })
}

fn of_route(
    policy: &ActivePolicy,
    found: &RouteMatch<'_>,
    request: &RequestView<'_>,
    choosing: &Choosing,
) -> Result<(Vec<Candidate>, usize), Refusal> {
    let refs = choosing.order(found, request, policy.policy.prices());
    if refs.is_empty() {
        return Err(Refusal::NoBackend { route: found.route.name.clone() });
    }
    let mut priorities: Vec<u32> = refs.iter().map(|one| one.priority).collect();
    // Ordered by priority already.
    priorities.dedup();
    let candidate = |one: &&BackendRef| Candidate {
        name: one.backend.clone(),
        backend: usable(policy, one),
        model: one.model_override.clone().unwrap_or_else(|| request.model.to_owned()),
        headers: one.header_mutation.clone(),
        body: one.body_mutation.clone(),
    };
    Ok((refs.iter().map(candidate).collect(), priorities.len()))
}

/// The backend, unless the route asks for a change that would go around the budgets.
fn usable(policy: &ActivePolicy, one: &BackendRef) -> Result<Arc<Backend>, Unusable> {
    let fields = one.body_mutation.set.iter().map(|field| field.name.as_str());
    let mut fields = fields.chain(one.body_mutation.remove.iter().map(String::as_str));
    match fields.find(|field| !body_mutation::is_allowed(field)) {
        None => policy.backend(&one.backend),
        Some(field) => Err(Unusable::Wrong {
            backend: one.backend.clone(),
            problem: format!(
                "its bodyMutation changes `{field}`, which can cost tokens that were not reserved; take it out"
            ),
        }),
    }
}

/// The models that the routes name, for errors and for the list of models.
pub(crate) fn models_of_routes(policy: &CompiledPolicy) -> Vec<String> {
    let mut models = Vec::new();
    let rules = policy.routes().iter().flat_map(|route| &route.rules);
    for header in rules.flat_map(|rule| &rule.matches).flatten() {
        if let (MODEL_HEADER, TextMatch::Exact(model)) = (header.name.as_str(), &header.value)
            && !models.contains(model)
        {
            models.push(model.clone());
        }
    }
    models
}
