//! What a tenant's operations share with its actor, so that a decision costs no message to it: how many more may come in,
//! how many are being decided, whether any wait, and when the actor will next look for deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quorate_ledger::{Outcome, TimestampMs};
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::proposer::Decision;
use crate::tenant_actor::Message;

#[derive(Debug)]
pub(crate) struct Turnstile {
    /// ractor's mailboxes are unbounded, so the bound stands in front.
    places: Arc<Semaphore>,
    places_max: usize,
    /// With the proposer, and not decided yet.
    undecided: AtomicUsize,
    /// When the actor will look for deadlines; later ones need no word to it.
    looks_at_ms: AtomicU64,
    /// Reservations wait until others are decided.
    someone_waits: AtomicBool,
    /// The actor has been told to look after them.
    told_to_look: AtomicBool,
}

/// An operation's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turnstile: Arc<Turnstile>,
    _permit: OwnedSemaphorePermit,
}

/// The place of an operation that is with the proposer.
#[derive(Debug)]
pub(crate) struct Proposed {
    place: Place,
    actor: ActorRef<Message>,
}

impl Turnstile {
    pub fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            undecided: AtomicUsize::new(0),
            looks_at_ms: AtomicU64::new(u64::MAX),
            someone_waits: AtomicBool::new(false),
            told_to_look: AtomicBool::new(false),
        })
    }

    /// `None`: all places are taken.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { turnstile: self.clone(), _permit: permit })
    }

    pub fn is_empty(&self) -> bool {
        self.places.available_permits() == self.places_max
    }

    pub fn has_undecided(&self) -> bool {
        self.undecided.load(Ordering::SeqCst) > 0
    }

    /// The actor will look at `at`. To be said before it looks at the ledger, too (with the end of time): what is applied
    /// after that look is announced then.
    pub fn looks_at(&self, at: TimestampMs) {
        self.looks_at_ms.store(at.0, Ordering::SeqCst);
    }

    pub fn someone_waits(&self, waits: bool) {
        self.someone_waits.store(waits, Ordering::SeqCst);
    }

    /// The actor is to look after those that wait; told once until it does.
    pub fn tell_to_look(&self, actor: &ActorRef<Message>) {
        if self.someone_waits.load(Ordering::SeqCst) && !self.told_to_look.swap(true, Ordering::SeqCst) {
            let _ = actor.cast(Message::Look);
        }
    }

    /// To be said before it looks at the ledger.
    pub fn looks_now(&self) {
        self.told_to_look.store(false, Ordering::SeqCst);
    }
}

impl Place {
    pub fn propose(self, actor: ActorRef<Message>) -> Proposed {
        self.turnstile.undecided.fetch_add(1, Ordering::SeqCst);
        Proposed { place: self, actor }
    }
}

impl Proposed {
    /// It is decided, and applied here if it was committed. The actor hears of a deadline that is earlier than all it
    /// knows of.
    pub fn decided(self, decision: &Decision) {
        let turnstile = &self.place.turnstile;
        turnstile.undecided.fetch_sub(1, Ordering::SeqCst);
        turnstile.tell_to_look(&self.actor);
        let Ok(decided) = decision else { return };
        if let Outcome::Granted(grant) = &decided.outcome {
            let before = turnstile.looks_at_ms.fetch_min(grant.deadline.0, Ordering::SeqCst);
            if grant.deadline.0 < before {
                // An actor that is gone is made anew from the ledger.
                let _ = self.actor.cast(Message::Deadline(grant.deadline));
            }
        }
    }
}
