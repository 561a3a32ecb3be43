//! Counters in Redis, as rate limiters on it keep them: `INCRBY` and `EXPIRE` for each operation, several operations in a
//! pipeline. Each client has a connection of its own, as those of redis-benchmark have.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::load::Work;

const TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW_S: &str = "3600";
const WAIT_MS: &str = "5000";
/// As in [`crate::bench::rls`].
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug, Clone)]
pub struct RedisPlan {
    /// `host:port`
    pub target: String,
    pub keys: u64,
    /// Operations of one step: all are sent before the first answer is read.
    pub pipeline: u32,
    /// Each pipeline ends with WAIT for so many replicas; 0: it does not.
    pub replicas: u32,
}

#[derive(Debug)]
pub struct RedisWork {
    plan: RedisPlan,
    next: AtomicU64,
}

/// One client; connects with its first step, and again after a failure.
#[derive(Debug, Default)]
pub struct Connection {
    stream: Option<TcpStream>,
    written: Vec<u8>,
    read: Vec<u8>,
}

/// Counts replies in what a server sends. Every reply here is one line, `:7` or `-ERR …`.
#[derive(Debug, Default)]
struct Replies {
    complete: u64,
    at_line_start: bool,
    error: Option<Vec<u8>>,
    in_error: bool,
}

impl RedisWork {
    pub fn new(plan: &RedisPlan) -> Self {
        let target = plan.target.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let plan = RedisPlan { target, keys: plan.keys.max(1), ..plan.clone() };
        Self { plan, next: AtomicU64::new(0) }
    }

    /// Replies to one step.
    fn replies(&self) -> u64 {
        2 * u64::from(self.plan.pipeline) + u64::from(self.plan.replicas > 0)
    }

    fn write_commands(&self, out: &mut Vec<u8>) {
        out.clear();
        for _ in 0..self.plan.pipeline {
            let number = self.next.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE) % self.plan.keys;
            let key = format!("user-{number}");
            command(out, &["INCRBY", &key, "100"]);
            command(out, &["EXPIRE", &key, WINDOW_S]);
        }
        if self.plan.replicas > 0 {
            command(out, &["WAIT", &self.plan.replicas.to_string(), WAIT_MS]);
        }
    }

    async fn exchange(&self, connection: &mut Connection) -> io::Result<()> {
        let Connection { stream, written, read } = connection;
        let mut open = match stream.take() {
            Some(open) => open,
            None => {
                let open = TcpStream::connect(&self.plan.target).await?;
                open.set_nodelay(true)?;
                open
            }
        };
        self.write_commands(written);
        open.write_all(written).await?;
        let mut replies = Replies { at_line_start: true, ..Replies::default() };
        while replies.complete < self.replies() {
            read.clear();
            if open.read_buf(read).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            replies.take(read);
        }
        *stream = Some(open);
        match replies.error {
            Some(error) => Err(io::Error::other(String::from_utf8_lossy(&error).into_owned())),
            None => Ok(()),
        }
    }
}

impl Work for RedisWork {
    type Client = Connection;

    fn client(&self, _number: usize) -> Connection {
        Connection { read: Vec::with_capacity(1 << 14), ..Connection::default() }
    }

    async fn step(&self, connection: &mut Connection) -> Result<(), String> {
        match tokio::time::timeout(TIMEOUT, self.exchange(connection)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{}: {error}", self.plan.target)),
            Err(_) => Err(format!("{} took more than {} s", self.plan.target, TIMEOUT.as_secs())),
        }
    }
}

/// An array of bulk strings (RESP2).
fn command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

impl Replies {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.at_line_start && *byte == b'-' && self.error.is_none() {
                self.error = Some(Vec::new());
                self.in_error = true;
            }
            self.at_line_start = *byte == b'\n';
            if self.at_line_start {
                self.complete += 1;
                self.in_error = false;
            } else if let (true, Some(error)) = (self.in_error, &mut self.error) {
                error.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn work(target: &str, replicas: u32) -> RedisWork {
        RedisWork::new(&RedisPlan { target: target.to_owned(), keys: 10, pipeline: 2, replicas })
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        command(&mut out, &["INCRBY", "k", "1"]);
        assert_eq!(out, b"*3\r\n$6\r\nINCRBY\r\n$1\r\nk\r\n$1\r\n1\r\n");
    }

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        let all = b":1\r\n:1\r\n-ERR no\r\n-ERR two\r\n:2\r\n";
        for cut in 0..all.len() {
            let mut replies = Replies { at_line_start: true, ..Replies::default() };
            replies.take(&all[..cut]);
            replies.take(&all[cut..]);
            assert_eq!(replies.complete, 5, "cut at {cut}");
            assert_eq!(replies.error.as_deref(), Some(&b"-ERR no\r"[..]), "cut at {cut}");
        }
    }

    #[test]
    fn a_pipeline_ends_with_a_wait_for_replicas() {
        let mut out = Vec::new();
        work("127.0.0.1:1", 1).write_commands(&mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'*').count(), 5);
        assert!(out.ends_with(b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$4\r\n5000\r\n"));
    }

    #[tokio::test]
    async fn a_step_waits_for_all_answers_and_tells_of_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4_096];
            for answer in [&b":100\r\n:1\r\n:100\r\n:1\r\n"[..], b":1\r\n-MISCONF disk\r\n:1\r\n:1\r\n"] {
                let length = stream.read(&mut asked).await.unwrap();
                assert_eq!(asked[..length].windows(6).filter(|word| word == b"INCRBY").count(), 2);
                stream.write_all(answer).await.unwrap();
            }
        });
        let work = work(&target, 0);
        let mut client = work.client(0);
        assert_eq!(work.step(&mut client).await, Ok(()));
        let error = work.step(&mut client).await.unwrap_err();
        assert!(error.contains("MISCONF disk"), "{error}");
        server.await.unwrap();
    }
}
