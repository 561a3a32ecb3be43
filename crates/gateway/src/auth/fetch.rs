//! Small requests for credentials: bounded in size and time, never redirected.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};

use crate::{connector::causes, link::Link};

const WITHIN: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The way to those that give out credentials.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Services on the internet, through the environment's proxy where it names one.
    pub(crate) outside: Link,
    /// The machine's own service, which no proxy reaches.
    pub(crate) machine: Link,
}

impl Fetch {
    pub(crate) async fn outside(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        send(&self.outside, request).await
    }

    pub(crate) async fn machine(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        send(&self.machine, request).await
    }
}

/// What came back. May hold secrets: never shown as a whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Answer {
    /// The text of a success. `what` was asked for.
    pub(crate) fn success(self, what: &str) -> Result<String, String> {
        if self.status.is_success() { Ok(self.text) } else { Err(format!("{what}: {}", self.failure())) }
    }

    /// Status and the beginning of the text, which holds no secret where it is a failure.
    fn failure(&self) -> String {
        let shown = |c: &char| !c.is_control();
        let said: String = self.text.chars().take(300).filter(shown).collect();
        format!("status {}: {said}", self.status.as_u16())
    }
}

async fn send(link: &Link, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let sending = async {
        let response = link.client.request(request).await.map_err(|error| causes(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
    };
    match tokio::time::timeout(WITHIN, sending).await {
        Ok(answer) => answer.map_err(|error: String| format!("{host}: {error}")),
        Err(_) => Err(format!("{host}: no answer within {} s", WITHIN.as_secs())),
    }
}
