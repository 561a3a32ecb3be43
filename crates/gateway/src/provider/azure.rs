//! Azure OpenAI: OpenAI's bodies at other paths. A deployment takes the place of the model.
//!
//! Source: Azure OpenAI's REST API reference, data plane inference (`/openai/deployments/{deployment-id}/…?api-version=`).

use super::{endpoint::Endpoint, percent};

/// Where its newer API is, which takes no version.
pub(crate) const V1: &str = "/openai/v1";

/// Below the resource's URL; the backend's `api-version` is appended when it is sent. Responses are only there in Azure's
/// newer API, which has OpenAI's own paths, no versions, and the deployment in the body's `model`.
pub(crate) fn path(endpoint: Endpoint, deployment: &str) -> String {
    if endpoint == Endpoint::Responses {
        return format!("{V1}{}", endpoint.path());
    }
    format!("/openai/deployments/{}{}", percent::encoded(deployment), endpoint.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployment_is_in_the_path() {
        assert_eq!(path(Endpoint::Chat, "gpt 4/o"), "/openai/deployments/gpt%204%2Fo/chat/completions");
        assert_eq!(path(Endpoint::Transcriptions, "w"), "/openai/deployments/w/audio/transcriptions");
        assert_eq!(path(Endpoint::Responses, "gpt-5"), "/openai/v1/responses");
    }
}
