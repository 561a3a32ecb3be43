//! A provider on a port of its own that plays a script: raw bytes, pauses until the test says go, cut connections.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};

/// What the provider does after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write(Vec<u8>),
    /// Until [`FakeProvider::go`].
    Pause,
    /// Cuts the connection.
    Die,
    /// Until the gateway has closed the connection.
    UntilClosed,
}

/// A request as the provider got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct FakeProvider {
    pub(crate) base_url: String,
    script: Mutex<Vec<Step>>,
    /// In place of it, for requests whose first line holds this.
    scripts: Mutex<Vec<(String, Vec<Step>)>>,
    got: Mutex<Vec<Got>>,
    go: Semaphore,
    /// One permit for each connection that the gateway closed in `UntilClosed`.
    pub(crate) closed: Semaphore,
    /// Told whenever a request has come.
    pub(crate) asked: Notify,
}

impl FakeProvider {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
            script: Mutex::default(),
            scripts: Mutex::default(),
            got: Mutex::default(),
            go: Semaphore::new(0),
            closed: Semaphore::new(0),
            asked: Notify::new(),
        });
        let serving = Arc::clone(&provider);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let provider = Arc::clone(&serving);
                tokio::spawn(async move { provider.connection(stream).await });
            }
        });
        provider
    }

    /// From now on every request gets this.
    pub(crate) fn plays(&self, steps: impl Into<Vec<Step>>) {
        *self.script.lock() = steps.into();
    }

    /// From now on requests whose first line holds `part` get this; the first that fits counts.
    pub(crate) fn plays_at(&self, part: &str, steps: impl Into<Vec<Step>>) {
        self.scripts.lock().push((part.to_owned(), steps.into()));
    }

    fn script_for(&self, head: &str) -> Vec<Step> {
        let line = head.lines().next().unwrap_or_default();
        let scripts = self.scripts.lock();
        let own = scripts.iter().find(|(part, _)| line.contains(part.as_str()));
        own.map_or_else(|| self.script.lock().clone(), |(_, script)| script.clone())
    }

    pub(crate) fn go(&self) {
        self.go.add_permits(1);
    }

    /// Waits until this many requests have come in all.
    pub(crate) async fn until_asked(&self, times: usize) {
        loop {
            let asked = self.asked.notified();
            if self.got.lock().len() >= times {
                return;
            }
            asked.await;
        }
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    async fn connection(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer).await {
            let script = self.script_for(&request.head);
            self.got.lock().push(request);
            self.asked.notify_one();
            for step in script {
                match step {
                    Step::Write(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Pause => self.go.acquire().await.unwrap().forget(),
                    Step::Die => return,
                    Step::UntilClosed => {
                        while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
                        self.closed.add_permits(1);
                        return;
                    }
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Got> {
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_end..head_end + length].to_vec();
    buffer.drain(..head_end + length);
    Some(Got { head, body })
}

/// A whole answer with a JSON body.
pub(crate) fn answer(status: &str, body: &str) -> Step {
    answer_with(status, "content-type: application/json\r\n", body)
}

pub(crate) fn answer_with(status: &str, headers: &str, body: &str) -> Step {
    let length = body.len();
    Step::Write(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())
}

/// The head of a chunked event stream.
pub(crate) fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Write(head.as_bytes().to_vec())
}

/// One chunk of the transfer encoding.
pub(crate) fn piece(text: &str) -> Step {
    Step::Write(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

pub(crate) fn stream_end() -> Step {
    Step::Write(b"0\r\n\r\n".to_vec())
}

/// A chat answer that used `input` and `output` tokens.
pub(crate) fn chat(input: u64, output: u64) -> String {
    let total = input + output;
    format!(
        r#"{{"id":"x","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hi"}}}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}}}}}"#
    )
}

/// One event with generated text.
pub(crate) fn delta(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// The event with nothing but usage.
pub(crate) fn usage(input: u64, output: u64) -> String {
    let total = input + output;
    format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{total}}}}}\n\n"
    )
}
