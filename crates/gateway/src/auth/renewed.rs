//! Credentials that end: fetched when they are first needed and again before they end, by one request for all.

use std::{future::Future, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// After a failure, others are told the same for this long instead of trying one after the other.
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// Renewed this long before the end; those that live less than twice as long, at half their life.
const AHEAD: Duration = Duration::from_secs(300);

/// A value with its end.
#[derive(Debug, Clone)]
pub(crate) struct Lease<T> {
    value: T,
    /// `None`: good for ever.
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
}

impl<T> Lease<T> {
    /// `lives`: `None` for ever.
    pub(crate) fn new(value: T, lives: Option<Duration>) -> Self {
        let now = Instant::now();
        let renew = lives.map(|lives| if lives > AHEAD * 2 { lives - AHEAD } else { lives / 2 });
        Self { value, renew_at: renew.map(|after| now + after), ends_at: lives.map(|lives| now + lives) }
    }

    /// Good for ever, but looked for again after this long.
    pub(crate) fn looked_at_again(value: T, after: Duration) -> Self {
        Self { value, renew_at: Some(Instant::now() + after), ends_at: None }
    }
}

#[derive(Debug)]
pub(crate) struct Renewed<T> {
    /// Never held across an await.
    state: Mutex<State<T>>,
    /// Held by the one that fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State<T> {
    lease: Option<Lease<T>>,
    failed: Option<(Instant, String)>,
}

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        let state = State { lease: None, failed: None };
        Self { state: Mutex::new(state), fetching: tokio::sync::Mutex::default() }
    }
}

enum Found<T> {
    Good(T),
    /// Still good, but not for long.
    Ending(T),
    Failed(String),
    Nothing,
}

impl<T: Clone> Renewed<T> {
    /// The value. `fetch` is called by one caller at a time; it must end by itself.
    pub(crate) async fn get<F>(&self, fetch: impl FnOnce() -> F) -> Result<T, String>
    where
        F: Future<Output = Result<Lease<T>, String>>,
    {
        let (ending, turn) = match self.look() {
            Found::Good(value) => return Ok(value),
            Found::Failed(error) => return Err(error),
            // Who does not get the turn goes on with what is still good.
            Found::Ending(value) => match self.fetching.try_lock() {
                Ok(turn) => (Some(value), turn),
                Err(_) => return Ok(value),
            },
            Found::Nothing => (None, self.fetching.lock().await),
        };
        // Somebody else may have fetched it meanwhile.
        match self.look() {
            Found::Good(value) => return Ok(value),
            Found::Failed(error) => return Err(error),
            Found::Ending(_) | Found::Nothing => {}
        }
        let fetched = fetch().await;
        let mut state = self.state.lock();
        let result = match fetched {
            Ok(lease) => {
                let value = lease.value.clone();
                *state = State { lease: Some(lease), failed: None };
                Ok(value)
            }
            Err(error) => {
                tracing::warn!(error, "credentials of a backend could not be renewed");
                state.failed = Some((Instant::now() + FAILURE_KEPT, error.clone()));
                ending.ok_or(error)
            }
        };
        drop(state);
        drop(turn);
        result
    }

    fn look(&self) -> Found<T> {
        let state = self.state.lock();
        let now = Instant::now();
        let failed = state.failed.as_ref().filter(|(until, _)| now < *until);
        match &state.lease {
            Some(lease) if lease.ends_at.is_none_or(|end| now < end) => {
                // After a failure, what is still good is good enough for a moment.
                if lease.renew_at.is_none_or(|renew| now < renew) || failed.is_some() {
                    Found::Good(lease.value.clone())
                } else {
                    Found::Ending(lease.value.clone())
                }
            }
            _ => failed.map_or(Found::Nothing, |(_, error)| Found::Failed(error.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_wait_for_one_fetch_and_it_is_renewed_before_its_end() {
        let renewed: Arc<Renewed<u32>> = Arc::default();
        let (fetches, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let get = || {
            let (renewed, fetches, go) = (Arc::clone(&renewed), Arc::clone(&fetches), Arc::clone(&go));
            async move {
                let fetch = || async {
                    go.acquire().await.unwrap().forget();
                    let number = fetches.fetch_add(1, Ordering::Relaxed) + 1;
                    Ok(Lease::new(number, Some(Duration::from_secs(3600))))
                };
                renewed.get(fetch).await
            }
        };
        let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(get())).collect();
        go.add_permits(1);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(1));
        }
        tokio::time::advance(Duration::from_secs(3299)).await;
        assert_eq!(get().await, Ok(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        // One renews; the others do not wait for it.
        let renewing = tokio::spawn(get());
        tokio::task::yield_now().await;
        assert_eq!(get().await, Ok(1));
        go.add_permits(1);
        assert_eq!(renewing.await.unwrap(), Ok(2));
        assert_eq!(get().await, Ok(2));
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_to_all_and_what_is_still_good_is_used() {
        let renewed: Renewed<u32> = Renewed::default();
        let fails = || async { Err("no".to_owned()) };
        let never = || async { panic!("fetched again at once") };
        assert_eq!(renewed.get(fails).await, Err("no".to_owned()));
        assert_eq!(renewed.get(never).await, Err("no".to_owned()));
        tokio::time::advance(FAILURE_KEPT).await;
        let works = || async { Ok(Lease::new(1, Some(Duration::from_secs(100)))) };
        assert_eq!(renewed.get(works).await, Ok(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(renewed.get(fails).await, Ok(1));
        assert_eq!(renewed.get(never).await, Ok(1));
        tokio::time::advance(Duration::from_secs(41)).await;
        assert_eq!(renewed.get(fails).await, Err("no".to_owned()));
    }
}
