//! Packets that come late. The kernel may have no netem, so iptables hands every packet that leaves the namespace to a
//! thread here, which lets it go later. Without the thread they pass at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nfq::{Message, Queue, Verdict};
use rand::Rng as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::tool;

const QUEUE: u16 = 7;
/// Packets that may wait; more are dropped, as by a switch.
const QUEUE_LEN: u32 = 4_096;
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// While this lives, what leaves one namespace comes later.
#[derive(Debug)]
pub struct Delay {
    namespace: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// # Errors
    /// iptables refuses, or the kernel does not hand packets out.
    pub fn start(namespace: &str, delay_ms: u64, jitter_ms: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = sync_channel(1);
        let work = {
            let (namespace, stop) = (namespace.to_owned(), stop.clone());
            move || hold(&namespace, delay_ms, jitter_ms, &stop, &ready)
        };
        let thread = std::thread::Builder::new().name("delay".to_owned()).spawn(work)?;
        let delay = Self { namespace: namespace.to_owned(), stop, thread: Some(thread) };
        started.recv().context("the thread that delays packets ended")??;
        delay.rule("-A")?;
        Ok(delay)
    }

    fn rule(&self, what: &str) -> Result<()> {
        let number = QUEUE.to_string();
        let rule = ["iptables", what, "OUTPUT", "-o", "eth0", "-j", "NFQUEUE"];
        let queue = ["--queue-num", &number, "--queue-bypass"];
        tool::run("ip", &[&["netns", "exec", &self.namespace], &rule[..], &queue].concat()).map(drop)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        // The thread lets go what it holds; what comes after it passes by itself.
        let _ = self.rule("-D");
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(namespace: &str) -> Result<Queue> {
    // Only this thread moves, and it ends there.
    let file = File::open(format!("/run/netns/{namespace}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_queue_max_len(QUEUE, QUEUE_LEN)?;
    // Nobody reads what is in the packets.
    queue.set_copy_range(QUEUE, 64)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn hold(namespace: &str, delay_ms: u64, jitter_ms: u64, stop: &AtomicBool, ready: &SyncSender<Result<()>>) {
    let mut queue = match open(namespace) {
        Ok(queue) => queue,
        Err(error) => {
            let _ = ready.send(Err(error.context("cannot take packets (NFQUEUE)")));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let mut held: VecDeque<(Instant, Message)> = VecDeque::new();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        match queue.recv() {
            Ok(message) => {
                let late = delay_ms + rand::rng().random_range(0..=jitter_ms);
                let at = Instant::now() + Duration::from_millis(late);
                // None overtakes another: TCP would take that for loss.
                held.push_back((held.back().map_or(at, |(before, _)| at.max(*before)), message));
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Packets were lost because this thread was too slow: that happens on slow links.
            Err(_) if !stopping => {}
            Err(_) => return,
        }
        while let Some((_, mut message)) = held.pop_front_if(|(at, _)| stopping || *at <= Instant::now()) {
            message.set_verdict(Verdict::Accept);
            let _ = queue.verdict(message);
        }
        if stopping {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
