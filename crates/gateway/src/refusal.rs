//! Every answer that the gateway gives in its own name, and the one table from errors to HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use quorate_ledger::{Balance, Denial};
use thiserror::Error;

use crate::{
    backends::Unusable,
    body::ResponseBody,
    health::NoneReady,
    provider::{
        Dialect, anthropic, error_body,
        error_body::{BadRequest, ErrorWords},
        exchange::NotSendable,
        openai,
        reply::ApiError,
    },
    ratelimit,
};

/// Why a request is not (or no longer) served. The text is what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error(
        "there is no {path} here; this gateway serves POST /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, /v1/images/generations, /v1/audio/speech, /v1/audio/transcriptions, /v1/audio/translations, /v1/messages and /v1/messages/count_tokens, and GET /v1/models"
    )]
    NoSuchPath { path: String },
    #[error("{path} takes {allow}, not {method}")]
    WrongMethod { path: String, method: String, allow: &'static str },
    #[error("the request body is larger than {max} bytes; send a smaller one")]
    BodyTooLarge { max: usize },
    #[error("the request body did not arrive within {ms} ms; send it again")]
    BodyTimeout { ms: u64 },
    #[error("the request body could not be read to its end")]
    BodyBroken,
    #[error("content-encoding {encoding} is not supported; send the body without it")]
    BodyEncoded { encoding: String },
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    #[error("the request names no model; put one into the body (`model`) or into the header x-ai-eg-model")]
    NoModel,
    #[error("the model `{model}` does not exist here; known are: {known}")]
    UnknownModel { model: String, known: String },
    #[error("no route of the policy takes this request for the model `{model}`; its routes name: {known}")]
    NoRoute { model: String, known: String },
    #[error("route {route} sends no request anywhere: it has no backend of a weight above 0")]
    NoBackend { route: String },
    #[error(transparent)]
    Unusable(Unusable),
    #[error("{0}")]
    NoneReady(Box<NoneReady>),
    #[error(
        "the request has no tenant: send header {header}, or let the policy's kind Identity name a default"
    )]
    NoTenant { header: String },
    #[error(
        "the tenant in header {header} has {bytes} bytes or control characters in it; 1 to 128 bytes without are allowed"
    )]
    WrongTenant { header: String, bytes: usize },
    #[error("this gateway does not know who asks: send {remedy}")]
    NotIdentified { remedy: String },
    #[error("{0}")]
    WrongKey(String),
    #[error("the token {0}")]
    WrongToken(String),
    #[error("header {header} claims another identity than the key or token proves; leave it out")]
    ClaimsAnother { header: String },
    #[error("this API key may not ask for the model `{model}`; it may ask for: {allowed}")]
    ModelNotAllowed { model: String, allowed: String },
    #[error("{0}")]
    WrongSubject(String),
    #[error("budget {budget} allows {max} output tokens at most, this request names {named}; ask for fewer")]
    OutputTooLarge { budget: String, named: u64, max: u64 },
    #[error(
        "budget {budget} counts dollars, and there is no price for the model `{model}`: add a ModelPrice for it, or a fallback price to the budget"
    )]
    NoPrice { budget: String, model: String },
    #[error("{0}")]
    TooManyAccounts(String),
    #[error("{}", ratelimit::tier_message(tenant, account))]
    TierRejects { tenant: String, account: Box<Balance>, window: Option<quorate_ledger::Window> },
    #[error(
        "files, tools that the provider runs, and input that the provider keeps (`previous_response_id`, `conversation`, a stored `prompt`, item references) cannot be used under a token budget, because their tokens cannot be bounded beforehand; send the text instead"
    )]
    Unbounded,
    #[error("{}", ratelimit::denial_message(tenant, denial))]
    Denied { tenant: String, denial: Box<Denial>, window: Option<quorate_ledger::Window> },
    #[error("this gateway has not received a policy from the budget nodes yet; try again shortly")]
    NoPolicy,
    #[error(
        "the budget nodes cannot be reached or have no leader, so no budget can be granted; try again shortly"
    )]
    ClusterUnavailable { retry_after_ms: u64 },
    #[error("the budget nodes refused the reservation: {0}")]
    ClusterRefused(String),
    #[error("this gateway is at its limit of requests at once; try again shortly")]
    Overloaded,
    #[error("this gateway is stopping; try again, another one will answer")]
    Stopping,
    #[error("the client left while its request waited for budget")]
    ClientGone,
    #[error("backend {backend} is at its limit of requests at once; try again shortly")]
    BackendBusy { backend: String },
    #[error("backend {backend} cannot be reached")]
    BackendUnreachable { backend: String },
    #[error("backend {backend} answered with status {status}")]
    BackendStatus { backend: String, status: u16 },
    #[error("backend {backend} did not answer in time")]
    BackendTimeout { backend: String },
    #[error("backend {backend} broke off its answer")]
    BackendDied { backend: String },
    #[error("backend {backend} answered with more than the gateway accepts")]
    AnswerTooLarge { backend: String },
    #[error("backend {backend} answered with something that is no answer: {problem}")]
    BackendGarbage { backend: String, problem: String },
    /// The provider's own words.
    #[error("backend {backend} answered with an error: {}", error.message)]
    BackendError { backend: String, error: ApiError },
    #[error("the request cannot be sent to backend {backend}: {why}")]
    NotSendable { backend: String, why: NotSendable },
    #[error("backend {backend} answered with a redirect, which is not followed; correct its base_url")]
    BackendRedirect { backend: String },
    #[error("the gateway failed to finish this request; its reservation stays until it expires")]
    Internal,
}

struct Row {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
}

impl Refusal {
    /// The table: error → status, `type`, `code`.
    fn row(&self) -> Row {
        let row = |status, kind, code| Row { status, kind, code };
        let invalid = "invalid_request_error";
        match self {
            Self::NoSuchPath { .. } => row(StatusCode::NOT_FOUND, invalid, Some("unknown_url")),
            Self::WrongMethod { .. } => {
                row(StatusCode::METHOD_NOT_ALLOWED, invalid, Some("method_not_allowed"))
            }
            Self::BodyTooLarge { .. } => row(StatusCode::PAYLOAD_TOO_LARGE, invalid, Some("body_too_large")),
            Self::BodyTimeout { .. } => row(StatusCode::REQUEST_TIMEOUT, invalid, Some("body_timeout")),
            Self::BodyBroken | Self::BadRequest(_) => row(StatusCode::BAD_REQUEST, invalid, None),
            Self::BodyEncoded { .. } => {
                row(StatusCode::UNSUPPORTED_MEDIA_TYPE, invalid, Some("content_encoding"))
            }
            Self::NoModel => row(StatusCode::BAD_REQUEST, invalid, Some("model_missing")),
            Self::UnknownModel { .. } => row(StatusCode::NOT_FOUND, invalid, Some("model_not_found")),
            Self::NoRoute { .. } => row(StatusCode::NOT_FOUND, invalid, Some("model_not_found")),
            Self::NoBackend { .. } => {
                row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("backend_missing"))
            }
            Self::Unusable(Unusable::NotSpoken { .. }) => {
                row(StatusCode::NOT_IMPLEMENTED, "server_error", Some("provider_not_supported"))
            }
            Self::Unusable(Unusable::Wrong { .. }) => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("backend_unusable"))
            }
            Self::NoneReady(none) if none.is_limit() => {
                row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", Some("provider_limited"))
            }
            Self::NoneReady(_) => {
                row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("backends_resting"))
            }
            Self::NoTenant { .. } => row(StatusCode::UNAUTHORIZED, invalid, Some("tenant_missing")),
            Self::NotIdentified { .. } => row(StatusCode::UNAUTHORIZED, invalid, Some("identity_missing")),
            Self::WrongKey(_) => row(StatusCode::UNAUTHORIZED, invalid, Some("invalid_api_key")),
            Self::WrongToken(_) => row(StatusCode::UNAUTHORIZED, invalid, Some("invalid_token")),
            Self::ClaimsAnother { .. } => row(StatusCode::FORBIDDEN, invalid, Some("identity_mismatch")),
            Self::ModelNotAllowed { .. } => row(StatusCode::FORBIDDEN, invalid, Some("model_not_allowed")),
            Self::WrongTenant { .. } | Self::WrongSubject(_) => {
                row(StatusCode::BAD_REQUEST, invalid, Some("identity_invalid"))
            }
            Self::OutputTooLarge { .. } => row(StatusCode::BAD_REQUEST, invalid, Some("output_too_large")),
            Self::NoPrice { .. } => row(StatusCode::FORBIDDEN, invalid, Some("no_price")),
            Self::TooManyAccounts(_) => {
                row(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("too_many_accounts"))
            }
            Self::TierRejects { account, .. } if account.resets_at.is_none() => {
                row(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("insufficient_quota"))
            }
            Self::TierRejects { .. } => {
                row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", Some("rate_limit_exceeded"))
            }
            Self::Unbounded => row(StatusCode::BAD_REQUEST, invalid, Some("unbounded_input")),
            Self::Denied { denial, .. } if denial.retry_after_ms.is_none() => {
                row(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", Some("insufficient_quota"))
            }
            Self::Denied { .. } => {
                row(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", Some("rate_limit_exceeded"))
            }
            Self::NoPolicy => row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("no_policy")),
            Self::ClusterUnavailable { .. } => {
                row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("budget_unavailable"))
            }
            Self::ClusterRefused(_) => {
                row(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("budget_refused"))
            }
            Self::BackendBusy { .. } | Self::Overloaded => {
                row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("overloaded"))
            }
            Self::Stopping => row(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("stopping")),
            // Nobody reads it.
            Self::ClientGone => row(StatusCode::REQUEST_TIMEOUT, invalid, Some("client_gone")),
            Self::BackendUnreachable { .. } => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_unreachable"))
            }
            Self::BackendStatus { .. } => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_failed"))
            }
            Self::BackendTimeout { .. } => {
                row(StatusCode::GATEWAY_TIMEOUT, "server_error", Some("upstream_timeout"))
            }
            Self::BackendDied { .. } => row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_died")),
            Self::AnswerTooLarge { .. } => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_answer_too_large"))
            }
            Self::BackendGarbage { .. } => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_garbage"))
            }
            Self::BackendError { error, .. } => row(
                StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY),
                if error.status < 500 { invalid } else { "server_error" },
                Some("upstream_error"),
            ),
            Self::NotSendable { why: NotSendable::Endpoint { .. }, .. } => {
                row(StatusCode::NOT_FOUND, invalid, Some("endpoint_not_served"))
            }
            Self::NotSendable { .. } => row(StatusCode::BAD_REQUEST, invalid, Some("unsupported_by_backend")),
            Self::BackendRedirect { .. } => {
                row(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_redirect"))
            }
            Self::Internal => row(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal")),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::BadRequest(bad) | Self::NotSendable { why: NotSendable::BadRequest(bad), .. } => {
                bad.param.as_deref()
            }
            Self::NotSendable { why: NotSendable::Unsupported(unsupported), .. } => Some(&unsupported.param),
            Self::NoModel
            | Self::UnknownModel { .. }
            | Self::NoRoute { .. }
            | Self::ModelNotAllowed { .. }
            | Self::NoPrice { .. } => Some("model"),
            Self::OutputTooLarge { .. } => Some("max_tokens"),
            _ => None,
        }
    }

    /// The budget that is short.
    pub(crate) fn budget(&self) -> Option<&str> {
        match self {
            Self::Denied { denial, .. } => Some(&denial.account.budget),
            Self::TierRejects { account, .. } => Some(&account.budget),
            _ => None,
        }
    }

    /// When the client may try again; `None`: nothing said.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let ms = match self {
            Self::Denied { denial, .. } => denial.retry_after_ms?,
            Self::TierRejects { account, .. } => account.resets_at?.since(ratelimit::now()).max(1),
            Self::ClusterUnavailable { retry_after_ms } => (*retry_after_ms).max(1000),
            Self::NoPolicy | Self::Overloaded | Self::BackendBusy { .. } | Self::Stopping => 1000,
            Self::NoneReady(none) => none.retry_after_ms()?,
            _ => return None,
        };
        Some(Duration::from_millis(ms))
    }

    /// The whole answer. A body that was not read to its end makes the connection close.
    pub(crate) fn response(&self, dialect: Dialect) -> Response<ResponseBody> {
        let row = self.row();
        let message = self.to_string();
        let body = error_body::encode(dialect, &self.words(dialect, &row, &message));
        let mut response = Response::new(ResponseBody::full(Bytes::from(body)));
        *response.status_mut() = match self {
            Self::BackendError { error, .. } => {
                StatusCode::from_u16(status_of(error, dialect)).unwrap_or(row.status)
            }
            _ => row.status,
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64));
            headers.insert("retry-after-ms", HeaderValue::from(after.as_millis() as u64));
        }
        match self {
            Self::Denied { denial, window, .. } => {
                ratelimit::insert(headers, std::slice::from_ref(&denial.account), |_| *window);
                if ratelimit::waiting_is_pointless(denial) {
                    headers.insert("x-should-retry", HeaderValue::from_static("false"));
                }
            }
            Self::TierRejects { account, window, .. } => {
                ratelimit::insert(headers, std::slice::from_ref(&**account), |_| *window);
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Self::NoneReady(none) if none.waiting_is_pointless() => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Self::TooManyAccounts(_) => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Self::WrongMethod { allow, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::BodyTooLarge { .. } | Self::BodyTimeout { .. } | Self::BodyBroken => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }

    /// For a stream whose head has been sent.
    pub(crate) fn event(&self, dialect: Dialect) -> Bytes {
        let row = self.row();
        let message = self.to_string();
        Bytes::from(error_body::encode_event(dialect, &self.words(dialect, &row, &message)))
    }

    fn words<'a>(&'a self, dialect: Dialect, row: &Row, message: &'a str) -> ErrorWords<'a> {
        let kind = match dialect {
            Dialect::OpenAI => row.kind,
            Dialect::Anthropic => anthropic::error::kind_of(row.status.as_u16()),
        };
        ErrorWords { message, kind, param: self.param(), code: row.code }
    }
}

/// A provider's own error, as its client knows it: 529 is Anthropic's alone.
fn status_of(error: &ApiError, dialect: Dialect) -> u16 {
    match dialect {
        Dialect::OpenAI => openai::error::status(error),
        Dialect::Anthropic => anthropic::error::status(error),
    }
}
