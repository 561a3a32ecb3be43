//! `GET /v1/models`: the models of the config, or the backend's own list where the config names none.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;

use crate::{
    backend::Backend,
    body::ResponseBody,
    core::Core,
    headers,
    refusal::Refusal,
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

fn model<'a>(id: &'a str, backend: &'a Backend) -> Model<'a> {
    Model { id, object: "model", created: 0, owned_by: &backend.name }
}

/// All models; those of the config if it names any.
pub(crate) async fn list(core: &Core, client: &HeaderMap) -> Result<Response<ResponseBody>, Refusal> {
    let mut data: Vec<Model<'_>> = Vec::new();
    for backend in core.backends.all() {
        for id in &backend.models {
            if !data.iter().any(|known| known.id == id) {
                data.push(model(id, backend));
            }
        }
    }
    match core.backends.any() {
        Some(backend) if data.is_empty() => proxied(core, backend, "/models", client).await,
        _ => Ok(json(&List { object: "list", data })),
    }
}

/// One model.
pub(crate) async fn one(
    core: &Core,
    id: &str,
    client: &HeaderMap,
) -> Result<Response<ResponseBody>, Refusal> {
    let backend = core.backends.for_model(id);
    match backend {
        Some(backend) if backend.models.iter().any(|known| known == id) => Ok(json(&model(id, backend))),
        Some(backend) => proxied(core, backend, &format!("/models/{}", escaped(id)), client).await,
        None => Err(Refusal::UnknownModel { model: shown(id), known: known(&core.backends) }),
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
    client: &HeaderMap,
) -> Result<Response<ResponseBody>, Refusal> {
    let name = || backend.name.clone();
    let headers = headers::up(client, backend);
    let sent = core.upstream.send(backend, Method::GET, (path, None), headers, Bytes::new()).await;
    let response = sent.map_err(|error| {
        tracing::warn!(backend = name(), %error, "backend did not answer");
        match error {
            SendError::NotSent(_) => Refusal::BackendUnreachable { backend: name() },
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
    *response.headers_mut() = headers::down(parts.headers, &backend.name);
    Ok(response)
}

/// Percent-encodes what cannot stand in a path; slashes stay.
fn escaped(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
