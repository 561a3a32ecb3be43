//! What becomes of Raft's stream of appends on its way to a peer, and of the peer's answers on their way back.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::task::AtomicWaker;
use futures_util::{Stream, StreamExt as _};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::types::{LogId, TypeConfig};

type Append = AppendEntriesRequest<TypeConfig>;

/// A peer writes and syncs before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How much later than the leader a follower may apply, when nothing else is sent to it.
const COMMIT_WAIT: Duration = Duration::from_millis(2);

/// The requests, as long as somebody waits for their answers: when the [`Lender`] goes, they are gone too.
///
/// A transport keeps what it sends until the connection ends, whoever has given up on it. Raft's stream takes from what its
/// successor sends too, so one that was left behind takes away entries, and sends them where nobody looks for an answer.
pub(crate) fn lend<S>(requests: S) -> (Lent<S>, Lender<S>) {
    let shared = Arc::new(Shared { requests: Mutex::new(Some(requests)), asked: AtomicWaker::new() });
    (Lent(shared.clone()), Lender(shared))
}

#[derive(Debug)]
struct Shared<S> {
    /// Held while the stream is asked, so that nothing is being taken from it any more when it is taken back.
    requests: Mutex<Option<S>>,
    asked: AtomicWaker,
}

#[derive(Debug)]
pub(crate) struct Lent<S>(Arc<Shared<S>>);

#[derive(Debug)]
pub(crate) struct Lender<S>(Arc<Shared<S>>);

impl<S: Stream + Unpin> Stream for Lent<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.asked.register(context.waker());
        let mut requests = self.0.requests.lock();
        requests.as_mut().map_or(Poll::Ready(None), |requests| requests.poll_next_unpin(context))
    }
}

impl<S> Drop for Lender<S> {
    fn drop(&mut self) {
        let requests = self.0.requests.lock().take();
        drop(requests);
        self.0.asked.wake();
    }
}

/// The same, when there is something to send; `None`: there never will be. The peer answers to the first request, and after
/// errors Raft lets that wait for longer than the peer has to answer: so its time counts from there.
pub(crate) fn begun<T: Send + 'static>(
    mut requests: BoxStream<'static, T>,
) -> BoxFuture<'static, Option<Begun<T>>> {
    Box::pin(async move {
        let first = requests.next().await?;
        Some(Begun(futures_util::stream::once(ready(first)).chain(requests).boxed()))
    })
}

/// A type of its own: the compiler does not see through the boxed one inside tonic's futures.
pub(crate) struct Begun<T>(BoxStream<'static, T>);

impl<T> Stream for Begun<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(context)
    }
}

/// One answer comes for each request. Raft waits for it without end, and sends nothing else meanwhile; so an answer that
/// was lost on the way, or will never be given, is an error after [`ANSWER_TIMEOUT`], and Raft asks anew where the peer is.
/// So is an end of the answers before the last one: Raft would go on with what it was told to send before.
pub(crate) fn answered_in_time<S, T>(
    answers: S,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = Result<T, Status>> + Send
where
    S: Stream<Item = Result<T, Status>> + Send + Unpin,
    T: Send,
{
    futures_util::stream::unfold(Some((answers, 0)), move |state| {
        let sent = sent.clone();
        async move {
            let (mut answers, answered) = state?;
            loop {
                let asked = sent.load(Ordering::Relaxed);
                match tokio::time::timeout(ANSWER_TIMEOUT, answers.next()).await {
                    Ok(Some(answer)) => return Some((answer, Some((answers, answered + 1)))),
                    Ok(None) if sent.load(Ordering::Relaxed) > answered => {
                        return Some((
                            Err(Status::unavailable("the answers to appends ended too early")),
                            None,
                        ));
                    }
                    Ok(None) => return None,
                    // Asked when the wait began, and not answered yet.
                    Err(_) if asked > answered => {
                        return Some((Err(Status::deadline_exceeded("no answer to an append")), None));
                    }
                    Err(_) => {}
                }
            }
        }
    })
}

/// Lets news of a commit that comes without entries wait for the next entries, or for [`COMMIT_WAIT`]. Where one operation
/// follows the other, half of all messages say nothing else, and each wakes three threads on either side. A request that
/// is left out is acknowledged with the next, which goes at least as far.
pub(crate) fn commits_with_entries<S>(input: S) -> impl Stream<Item = Append> + Send
where
    S: Stream<Item = Append> + Send + Unpin + 'static,
{
    // The first one of a stream may be a question: where does the peer's log end?
    futures_util::stream::unfold((input.fuse(), true), |(mut input, first)| async move {
        let mut request = input.next().await?;
        if !first {
            let deadline = Instant::now() + COMMIT_WAIT;
            while request.entries.is_empty() {
                match tokio::time::timeout_at(deadline, input.next()).await {
                    Ok(Some(next)) => request = next,
                    Ok(None) | Err(_) => break,
                }
            }
        }
        Some((request, (input, false)))
    })
}

/// Ends where the entries that the peer needs have been purged. Raft would ask for them over and over, send appends without
/// entries meanwhile, and not look whether it was told to send what comes after a snapshot; with the next stream it does.
pub(crate) fn until_purged<S>(input: S) -> impl Stream<Item = Append> + Send + Unpin
where
    S: Stream<Item = Append> + Send + Unpin,
{
    let mut first = true;
    input.take_while(move |request| {
        // The first one may be a question, and goes without entries.
        let first = std::mem::take(&mut first);
        ready(first || !lacks_entries(request))
    })
}

/// It has none, though more is committed than the peer has.
fn lacks_entries(request: &Append) -> bool {
    let index = |log_id: &Option<LogId>| log_id.as_ref().map(|log_id| log_id.index);
    request.entries.is_empty() && index(&request.leader_commit) > index(&request.prev_log_id)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::types::{Vote, log_id};

    fn append(prev: u64, committed: u64) -> Append {
        Append {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(prev)),
            entries: Vec::new(),
            leader_commit: Some(log_id(committed)),
        }
    }

    #[tokio::test]
    async fn requests_go_with_those_who_wait_for_the_answers() {
        let owned = Arc::new(());
        let kept = owned.clone();
        let requests = futures_util::stream::iter([1, 2]).chain(futures_util::stream::pending());
        let requests = requests.inspect(move |_| _ = &kept).boxed();
        let (mut lent, lender) = lend(requests);
        assert_eq!(lent.next().await, Some(1));
        assert_eq!(lent.next().await, Some(2));
        // A transport that waits for more is told of the end, and holds nothing of it any more.
        let waits = tokio::spawn(async move { lent.next().await });
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&owned), 2);
        drop(lender);
        assert_eq!(Arc::strong_count(&owned), 1);
        let ended = tokio::time::timeout(Duration::from_secs(30), waits).await;
        assert_eq!(ended.expect("it waits for more").unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_has_its_time_from_the_first_request_on() {
        let long = Duration::from_secs(10);
        let late = futures_util::stream::once(async move {
            tokio::time::sleep(long).await;
            7
        });
        let began = Instant::now();
        let requests = begun(late.chain(futures_util::stream::iter([8])).boxed()).await.unwrap();
        assert!(began.elapsed() >= long);
        let asked = Instant::now();
        assert_eq!(requests.collect::<Vec<i32>>().await, [7, 8]);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        assert!(begun(futures_util::stream::empty::<i32>().boxed()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends_the_stream_and_silence_without_a_request_does_not() {
        let sent = Arc::new(AtomicU64::new(1));
        let answers = futures_util::stream::iter([Ok(7)]).chain(futures_util::stream::pending());
        let mut answers = Box::pin(answered_in_time(answers, sent.clone()));
        assert_eq!(answers.next().await.unwrap().unwrap(), 7);
        let quiet = tokio::time::timeout(10 * ANSWER_TIMEOUT, answers.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        sent.fetch_add(1, Ordering::Relaxed);
        let status = answers.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn answers_that_end_before_the_last_one_are_an_error() {
        let end_after = |sent| {
            let answers = futures_util::stream::iter([Ok(7)]);
            answered_in_time(answers, Arc::new(AtomicU64::new(sent))).collect::<Vec<_>>()
        };
        assert_eq!(end_after(1).await.len(), 1);
        let answers = end_after(2).await;
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1].as_ref().unwrap_err().code(), tonic::Code::Unavailable);
    }

    #[test]
    fn a_stream_ends_where_entries_are_missing() {
        let sent = |requests: Vec<Append>| {
            let sent = until_purged(futures_util::stream::iter(requests)).collect::<Vec<_>>();
            sent.now_or_never().expect("nothing to wait for").len()
        };
        // News of commits; then a question about a peer that is behind.
        assert_eq!(sent(vec![append(5, 4), append(5, 5), append(6, 6)]), 3);
        assert_eq!(sent(vec![append(5, 9)]), 1);
        // Asked for again, and there is still nothing.
        assert_eq!(sent(vec![append(5, 9), append(5, 10), append(5, 11)]), 1);
        assert_eq!(sent(vec![append(5, 5), append(5, 9)]), 1);
    }
}
