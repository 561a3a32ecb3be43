//! What arrives of a stream from its backend: waited for within every deadline, and taken together where it came together.
//!
//! HTTP/1 hands over one chunk at a time, each from the task of its connection, and most providers make a chunk of each
//! event. So whoever has taken one lets that task have its turn before the client is written to: what one read of the
//! socket brought goes out in one write. Nobody waits for what has not come yet.
//!
//! One timer serves the whole stream, and is moved when it fires, not with each event.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use tokio::{
    task::yield_now,
    time::{Instant, Sleep, timeout},
};

use crate::upstream::UpstreamBody;

/// Another end than the backend's that a stream may come to. The task that asks is always the same one.
type OtherEnd<'w> = Pin<&'w mut (dyn Future<Output = ()> + Send + 'w)>;

#[derive(Debug)]
pub(crate) enum Arrived {
    Data(Bytes),
    /// The body is at its end.
    End,
    Broken(hyper::Error),
    TimedOut,
    /// The client is gone.
    Gone,
    /// The gateway stops.
    Cut,
}

pub(crate) struct Arriving<'w> {
    body: UpstreamBody,
    /// How the body ended, where that was seen before it was asked for.
    ended: Option<Arrived>,
    /// The last was not all that was there.
    is_more_there: bool,
    gone: OtherEnd<'w>,
    cut: OtherEnd<'w>,
    timer: Pin<&'w mut Sleep>,
    /// Of the whole request.
    deadline: Instant,
}

impl<'w> Arriving<'w> {
    /// `timer`: any one.
    pub(crate) fn new(
        body: UpstreamBody,
        deadline: Instant,
        (gone, cut): (OtherEnd<'w>, OtherEnd<'w>),
        timer: Pin<&'w mut Sleep>,
    ) -> Self {
        Self { body, ended: None, is_more_there: false, gone, cut, timer, deadline }
    }

    /// Waits for what comes next, for at most `patience`.
    pub(crate) async fn next(&mut self, patience: Duration) -> Arrived {
        let until = self.deadline.min(Instant::now() + patience);
        // A backend that is never silent must not be all that is looked at.
        let mut others_first = std::mem::take(&mut self.is_more_there);
        std::future::poll_fn(move |context| {
            if std::mem::take(&mut others_first)
                && let Poll::Ready(other) = self.poll_others(context, until)
            {
                return Poll::Ready(other);
            }
            match self.poll_body(context) {
                Poll::Pending => self.poll_others(context, until),
                arrived => arrived,
            }
        })
        .await
    }

    /// What else has come with the last. `None`: nothing, or the end.
    pub(crate) async fn more(&mut self) -> Option<Bytes> {
        if self.ended.is_some() {
            return None;
        }
        let mut turn = pin!(yield_now());
        std::future::poll_fn(|context| match self.poll_body(context) {
            Poll::Ready(Arrived::Data(data)) => Poll::Ready(Some(data)),
            Poll::Ready(end) => {
                self.ended = Some(end);
                Poll::Ready(None)
            }
            Poll::Pending => turn.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// What is there is left for the next time.
    pub(crate) fn leave_more(&mut self) {
        self.is_more_there = true;
    }

    /// Reads on to the end of the body, so that its connection can be used again, for at most so long.
    pub(crate) async fn drain(&mut self, within: Duration) {
        self.drop_more().await;
        if !self.is_at_end() {
            let reading = async {
                while let Arrived::Data(_) = std::future::poll_fn(|context| self.poll_body(context)).await {}
            };
            // Elapsed: then it is closed.
            let _ = timeout(within, reading).await;
        }
    }

    /// Throws away what has come with the last.
    pub(crate) async fn drop_more(&mut self) {
        while self.more().await.is_some() {}
    }

    /// That the body is at its end has been seen.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended.is_some()
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Arrived> {
        if let Some(end) = self.ended.take() {
            return Poll::Ready(end);
        }
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => Arrived::Data(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => Arrived::Broken(error),
            None => Arrived::End,
        })
    }

    fn poll_others(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<Arrived> {
        if self.gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Arrived::Gone);
        }
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Arrived::Cut);
        }
        if self.timer.deadline() > until {
            self.timer.as_mut().reset(until);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if Instant::now() >= until {
                return Poll::Ready(Arrived::TimedOut);
            }
            self.timer.as_mut().reset(until);
        }
    }
}
