//! `GET /v1/models`: the models that routes name, those of the config, or the backend's own list where neither names any.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, Limited};
use quorate_policy::runtime::{HeaderMutation, MODEL_HEADER, TextMatch};
use serde::Serialize;

use crate::{
    backend::Backend,
    backends::Unusable,
    body::ResponseBody,
    core::Core,
    headers,
    plan::{Plan, models_of_routes},
    policy::ActivePolicy,
    provider::percent,
    refusal::Refusal,
    request::Asked,
    route::{known, shown},
    upstream::SendError,
};

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

fn model<'a>(id: &'a str, owned_by: &'a str) -> Model<'a> {
    Model { id, object: "model", created: 0, owned_by }
}

/// The policy in force, for clients that it lets in; and whether their credentials were meant for this gateway. Before it
/// is known who may ask, nobody may: a backend's own list is asked for with its key.
fn admitted(core: &Core, asked: &Asked) -> Result<(Arc<ActivePolicy>, bool), Refusal> {
    let policy = core.policy.borrow().clone().ok_or(Refusal::NoPolicy)?;
    let who = Plan::who(core, &policy, asked)?;
    Ok((policy, who.consumed))
}

/// The models that the policy's routes name.
fn routed(policy: &ActivePolicy) -> Vec<Model<'_>> {
    let mut models: Vec<Model<'_>> = Vec::new();
    for rule in policy.policy.routes().iter().flat_map(|route| &route.rules) {
        for header in rule.matches.iter().flatten() {
            if let (MODEL_HEADER, TextMatch::Exact(id)) = (header.name.as_str(), &header.value)
                && !models.iter().any(|known| known.id == id)
            {
                let owned_by = rule.models_owned_by.as_deref().unwrap_or("quorate");
                models.push(Model { created: rule.models_created_at.unwrap_or(0), ..model(id, owned_by) });
            }
        }
    }
    models
}

/// All models: those of the routes, else those of the config, else those of the backend for any.
pub(crate) async fn list(core: &Core, asked: &Asked) -> Result<Response<ResponseBody>, Refusal> {
    let (policy, consumed) = admitted(core, asked)?;
    let mut data = routed(&policy);
    let configured = &core.sources.configured;
    if data.is_empty() {
        for backend in configured.all() {
            for id in &backend.models {
                if !data.iter().any(|known| known.id == id) {
                    data.push(model(id, &backend.name));
                }
            }
        }
    }
    match configured.any() {
        Some(backend) if data.is_empty() => proxied(core, backend, "/models", asked, consumed).await,
        _ => Ok(json(&List { object: "list", data })),
    }
}

/// One model.
pub(crate) async fn one(core: &Core, id: &str, asked: &Asked) -> Result<Response<ResponseBody>, Refusal> {
    let (policy, consumed) = admitted(core, asked)?;
    let configured = &core.sources.configured;
    if !policy.policy.routes().is_empty() {
        let found = routed(&policy).into_iter().find(|model| model.id == id);
        let known = || models_of_routes(&policy.policy).join(", ");
        return found
            .map(|model| json(&model))
            .ok_or_else(|| Refusal::UnknownModel { model: shown(id), known: known() });
    }
    match configured.for_model(id) {
        Some(backend) if backend.models.iter().any(|known| known == id) => {
            Ok(json(&model(id, &backend.name)))
        }
        Some(backend) => {
            proxied(core, backend, &format!("/models/{}", percent::encoded_but(id, b"/:@")), asked, consumed)
                .await
        }
        None => Err(Refusal::UnknownModel { model: shown(id), known: known(configured) }),
    }
}

fn json(value: &impl Serialize) -> Response<ResponseBody> {
    // Plain strings and numbers: cannot fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(ResponseBody::full(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn proxied(
    core: &Core,
    backend: &Backend,
    path: &str,
    asked: &Asked,
    consumed: bool,
) -> Result<Response<ResponseBody>, Refusal> {
    let name = || backend.name.clone();
    let headers = headers::up(&asked.headers, backend, consumed, &HeaderMutation::default());
    let sent = core.upstream.send(backend, Method::GET, (path, None), headers, Bytes::new()).await;
    let response = sent.map_err(|error| {
        tracing::warn!(backend = name(), %error, "backend did not answer");
        match error {
            SendError::NotSent(_) => Refusal::BackendUnreachable { backend: name() },
            SendError::Busy => Refusal::BackendBusy { backend: name() },
            SendError::NoCredentials(_) => Refusal::Unusable(Unusable::no_credentials(name())),
            SendError::Unanswered(_) => Refusal::BackendDied { backend: name() },
            SendError::TimedOut => Refusal::BackendTimeout { backend: name() },
            SendError::CutOff => Refusal::Stopping,
        }
    })?;
    if response.status().is_redirection() {
        return Err(Refusal::BackendRedirect { backend: name() });
    }
    let (parts, body) = response.into_parts();
    let reading = Limited::new(body, core.config.limits.answer_bytes_max).collect();
    let within = std::time::Duration::from_millis(core.config.timeouts.idle_ms);
    let bytes = match tokio::time::timeout(within, reading).await {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(_)) => return Err(Refusal::BackendDied { backend: name() }),
        Err(_) => return Err(Refusal::BackendTimeout { backend: name() }),
    };
    let mut response = Response::new(ResponseBody::full(bytes));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers::down(parts.headers);
    if let Ok(value) = HeaderValue::from_str(&backend.name) {
        response.headers_mut().insert("x-ai-provider", value);
    }
    Ok(response)
}
