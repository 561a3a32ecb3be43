//! A reservation whose decision was never heard: looked for, and released if it was made. Nothing may stay held for a request
//! that was refused meanwhile.

use std::iter::repeat;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use quorate_ledger::{Command, Outcome, Refusal, ReservationId};
use tokio::time::{Instant, sleep};

use super::lender::Lender;

/// One look; the lender repeats the operation inside of it.
const TRY: Duration = Duration::from_secs(5);
/// Before the first looks: it may still be on its way. The last of them is after the nodes' own deadline for it.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(20)];
/// Before further ones, while nobody answers.
const AGAIN: Duration = Duration::from_secs(5);
/// The same for a process that stops.
const AGAIN_STOPPING: Duration = Duration::from_millis(500);
/// An answer that comes later is the last word.
const FINAL: Duration = Duration::from_secs(27);

/// Of which it is not known whether it was ever made.
#[derive(Debug, Clone)]
pub struct Unheard {
    pub tenant: String,
    pub id: ReservationId,
    /// How long it was to last.
    pub ttl: Duration,
}

impl Unheard {
    /// Looks until the cluster has said that it is gone, or that it was never made. From `stopping` on one answer is enough.
    /// False: nobody said so before `given_up`, or before it has expired anyway.
    pub async fn release(
        self,
        lender: &dyn Lender,
        stopping: impl Future<Output = ()>,
        given_up: impl Future<Output = ()>,
    ) -> bool {
        tokio::select! {
            released = self.look(lender, stopping) => released,
            () = given_up => false,
        }
    }

    async fn look(self, lender: &dyn Lender, stopping: impl Future<Output = ()>) -> bool {
        let Self { tenant, id, ttl } = self;
        let began = Instant::now();
        let mut stopping = pin!(stopping.fuse());
        let mut stops = false;
        for pause in PAUSES.into_iter().chain(repeat(AGAIN)) {
            if stops {
                sleep(AGAIN_STOPPING).await;
            } else {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = &mut stopping => stops = true,
                }
            }
            match lender.execute(Command::Release { tenant: tenant.clone(), id }, TRY).await {
                Ok(Outcome::Refused(Refusal::UnknownReservation { .. }))
                    if !stops && began.elapsed() < FINAL => {}
                Ok(_) => return true,
                Err(_) if began.elapsed() >= ttl + FINAL => return false,
                Err(error) => tracing::debug!(reservation = %id, %error, "cannot look for a reservation"),
            }
        }
        // The pauses never end.
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;
    use quorate_ledger::TimestampMs;

    use super::super::lender::NotDecided;
    use super::*;

    /// A cluster that is away for so long, and then either has the reservation or has never heard of it.
    #[derive(Debug)]
    struct Away {
        until: Instant,
        was_made: bool,
        looks: Mutex<Vec<Instant>>,
    }

    impl Away {
        fn for_secs(secs: u64, was_made: bool) -> Self {
            Self { until: Instant::now() + Duration::from_secs(secs), was_made, looks: Mutex::default() }
        }

        fn looks(&self) -> usize {
            self.looks.lock().unwrap().len()
        }
    }

    impl Lender for Away {
        fn new_id(&self) -> ReservationId {
            unreachable!("nothing is reserved")
        }

        fn now(&self) -> TimestampMs {
            unreachable!("nothing is reserved")
        }

        fn execute(&self, command: Command, timeout: Duration) -> BoxFuture<'_, Result<Outcome, NotDecided>> {
            Box::pin(async move {
                self.looks.lock().unwrap().push(Instant::now());
                let Command::Release { id, .. } = command else { unreachable!("only looked for") };
                if Instant::now() < self.until {
                    sleep(timeout.min(self.until - Instant::now())).await;
                    return Err(NotDecided::Unknown("away".to_owned()));
                }
                Ok(match self.was_made {
                    true => Outcome::Released,
                    false => Outcome::Refused(Refusal::UnknownReservation { id }),
                })
            })
        }
    }

    fn one(ttl: Duration) -> Unheard {
        let id = ReservationId::from_u128(uuid::Uuid::now_v7().as_u128()).unwrap();
        Unheard { tenant: "acme".to_owned(), id, ttl }
    }

    const TTL: Duration = Duration::from_secs(660);

    #[tokio::test(start_paused = true)]
    async fn it_is_found_however_long_the_cluster_was_away() {
        for secs in [0, 3, 47, 60, 600] {
            let away = Away::for_secs(secs, true);
            assert!(one(TTL).release(&away, pending(), pending()).await, "{secs}");
            assert!(away.until.elapsed() < Duration::from_secs(30), "{secs}: {:?}", away.until.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_never_made_is_looked_for_until_it_cannot_come_any_more() {
        let (here, began) = (Away::for_secs(0, false), Instant::now());
        assert!(one(TTL).release(&here, pending(), pending()).await);
        assert_eq!((here.looks(), began.elapsed()), (4, FINAL));
        let away = Away::for_secs(100, false);
        assert!(one(TTL).release(&away, pending(), pending()).await);
        assert!(away.until.elapsed() <= AGAIN, "one answer is enough by then");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_left_alone_when_it_has_expired_or_the_process_gives_up() {
        let (away, began) = (Away::for_secs(10_000, true), Instant::now());
        assert!(!one(TTL).release(&away, pending(), pending()).await);
        assert!((TTL..TTL + 2 * FINAL).contains(&began.elapsed()));
        let (away, began) = (Away::for_secs(10_000, true), Instant::now());
        let given_up = sleep(Duration::from_secs(33));
        assert!(!one(TTL).release(&away, pending(), given_up).await);
        assert_eq!(began.elapsed(), Duration::from_secs(33));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stops_looks_at_once_and_until_there_is_an_answer() {
        for was_made in [true, false] {
            let (away, began) = (Away::for_secs(10, was_made), Instant::now());
            assert!(one(TTL).release(&away, sleep(Duration::from_millis(5_500)), pending()).await);
            assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
        }
    }
}
