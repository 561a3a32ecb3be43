//! Refusals, and how each provider writes one.

use serde_json::{Value, json};

use super::dialect::Dialect;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// Bedrock's type or OpenAI's code, where the status does not say it all.
    pub code: Option<&'static str>,
    pub message: String,
}

impl Refusal {
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, code: None, message: message.into() }
    }

    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code: Some(code), message: message.into() }
    }

    /// What the settings, a phrase or a switch ask for.
    pub fn asked(status: u16) -> Self {
        let message = match status {
            429 => "the simulated provider is limited",
            400..500 => "the simulated provider refuses the request",
            _ => "the simulated provider fails",
        };
        Self { status, code: None, message: message.into() }
    }

    pub fn body(&self, dialect: Dialect) -> Value {
        let message = &self.message;
        match dialect {
            Dialect::OpenAi => {
                json!({"error": {"message": message, "type": self.openai_type(), "param": null, "code": self.code}})
            }
            Dialect::Azure => {
                let code = self.code.map_or_else(|| self.status.to_string(), str::to_owned);
                json!({"error": {"code": code, "message": message}})
            }
            Dialect::Anthropic => {
                let error = json!({"type": self.anthropic_type(), "message": message});
                json!({"type": "error", "error": error, "request_id": "req_mock"})
            }
            Dialect::Bedrock => json!({"message": message}),
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            429 => "rate_limit_exceeded",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }

    pub fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        }
    }

    /// For the header `x-amzn-errortype`, and for exceptions within a stream.
    pub fn bedrock_type(&self) -> &'static str {
        if let Some(code) = self.code {
            return code;
        }
        match self.status {
            403 | 401 => "AccessDeniedException",
            404 => "ResourceNotFoundException",
            408 => "ModelTimeoutException",
            424 => "ModelErrorException",
            429 => "ThrottlingException",
            503 => "ServiceUnavailableException",
            400..500 => "ValidationException",
            _ => "InternalServerException",
        }
    }
}
