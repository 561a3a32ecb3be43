//! A value made from TLS files that is made again when they change. Files that cannot be used change nothing: what was
//! good goes on, and the error is logged and counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::tls::error::TlsError;
use crate::tls::files::TlsSource;
use crate::tls::material::{Contents, Material};

/// How soon a change is seen. Each look reads three small files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Make<T> = Box<dyn Fn(&Material) -> Result<T, TlsError> + Send + Sync>;

pub(crate) struct Reloading<T> {
    source: TlsSource,
    make: Make<T>,
    /// Held while the files are read: those who come meanwhile wait for the outcome.
    state: Mutex<State<T>>,
    failures: AtomicU64,
}

struct State<T> {
    current: Arc<T>,
    /// Of the contents last looked at, good or bad; `None`: they could not be read.
    seen: Option<u64>,
    looked: Instant,
}

impl<T> Reloading<T> {
    /// # Errors
    /// The files cannot be used. Only here: later ones are logged.
    pub fn new(
        source: TlsSource,
        make: impl Fn(&Material) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let contents = Contents::read(&source)?;
        let current = Arc::new(make(&Material::check(&source, &contents)?)?);
        warn_of_exposed_key(&source, &contents);
        let state = State { current, seen: Some(contents.digest()), looked: Instant::now() };
        Ok(Self { source, make: Box::new(make), state: Mutex::new(state), failures: AtomicU64::new(0) })
    }

    /// The value of now. Looks at the files if the last look was a while ago.
    pub fn current(&self) -> Arc<T> {
        self.current_within(LOOK_EVERY)
    }

    /// Looks at the files if the last look is older than `age`.
    pub fn current_within(&self, age: Duration) -> Arc<T> {
        let mut state = self.state.lock();
        if state.looked.elapsed() >= age {
            self.look(&mut state);
            state.looked = Instant::now();
        }
        state.current.clone()
    }

    /// How many times files were found that cannot be used.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn look(&self, state: &mut State<T>) {
        let contents = Contents::read(&self.source);
        let seen = contents.as_ref().ok().map(Contents::digest);
        if seen == state.seen {
            return;
        }
        state.seen = seen;
        if let Ok(contents) = &contents {
            warn_of_exposed_key(&self.source, contents);
        }
        let made = contents.and_then(|contents| (self.make)(&Material::check(&self.source, &contents)?));
        match made {
            Ok(made) => {
                state.current = Arc::new(made);
                tracing::info!(certificate = %self.source.cert_file.display(), "TLS files read again");
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the new TLS files cannot be used; those from before stay in use");
            }
        }
    }
}

/// No more than a warning: where folders are closed to others, or no other users are, it may be as it should.
fn warn_of_exposed_key(source: &TlsSource, contents: &Contents) {
    if contents.key_is_exposed {
        tracing::warn!(
            setting = source.names.key,
            file = %source.key_file.display(),
            "every user of this machine may read or replace the private key; chmod 600 keeps it for its owner"
        );
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("source", &self.source).finish_non_exhaustive()
    }
}
