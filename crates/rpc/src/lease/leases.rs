//! The driver: one [`Book`] for each group of tenants behind a short lock, the clock, and the tasks that carry out what the
//! books decide.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_ledger::{Amount, Balance, Outcome, ReservationId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::book::Book;
use super::lender::{Lender, NotDecided};
use super::stats::{BudgetLeases, LeaseStats};
use super::types::{Action, Ask, Hold, LeaseSettings, Left, Line, Now, Return, Taken, Want};
use super::unheard::Unheard;

const SHARDS: usize = 16;
const TICK: Duration = Duration::from_millis(100);
/// What is to be done waits so long for more of it: what is sent together is committed together.
const GATHER: Duration = Duration::from_millis(50);
/// A slice that takes longer to come is not needed any more.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// One try to return a slice; the lender repeats the operation inside of it.
const RETURN_TRY: Duration = Duration::from_secs(5);
const RETURN_PAUSE: Duration = Duration::from_millis(500);
/// How long somebody who is short waits for what was free here to arrive in the ledger.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// All slices of a process. Cheap to clone; all clones share them. When the last one is dropped without
/// [`Leases::stop`], its slices expire as charged.
#[derive(Debug, Clone)]
pub struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held for a look or a few sums, never over a wait: every request passes here.
    books: Vec<Mutex<Book>>,
    hasher: RandomState,
    lender: Arc<dyn Lender>,
    began: Instant,
    asking: Arc<Semaphore>,
    asking_max: u32,
    /// What is sent next, and of which book.
    gathered: Mutex<Vec<(usize, Action)>>,
    /// Something came back from the cluster.
    changed: Notify,
    phase: watch::Sender<Phase>,
    stats: LeaseStats,
    runtime: tokio::runtime::Handle,
}

/// A slice that was asked for: the answer is in the book, or there is none.
type Asking = oneshot::Receiver<Result<(), NotDecided>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Runs,
    /// Everything goes back.
    Stops,
    /// What could not go back is left to expire.
    GivesUp,
}

impl Leases {
    /// Must be called inside a tokio runtime.
    pub fn start(lender: Arc<dyn Lender>, settings: LeaseSettings) -> Self {
        let asking_max = u32::try_from(settings.asking_max.clamp(1, 4_096)).unwrap_or(1);
        let book = || Mutex::new(Book::new(settings));
        let shared = Arc::new(Shared {
            books: std::iter::repeat_with(book).take(SHARDS).collect(),
            hasher: RandomState::new(),
            lender,
            began: Instant::now(),
            asking: Arc::new(Semaphore::new(asking_max as usize)),
            asking_max,
            gathered: Mutex::default(),
            changed: Notify::new(),
            phase: watch::Sender::new(Phase::Runs),
            stats: LeaseStats::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(tick(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Takes all amounts from slices that this process holds, or none of them. Never waits. `None`: ask the cluster, and
    /// show its answer to [`Leases::saw`]. `version`: of the policy that the rules are from.
    pub fn take(&self, version: u64, tenant: &str, wants: &[Want<'_>]) -> Option<Hold> {
        if wants.is_empty() {
            return None;
        }
        let shard = self.shared.shard(tenant);
        match self.shared.with(shard, |book, now| book.take(version, tenant, wants, false, now)) {
            Taken::Held(lines) => Some(Hold { shard, lines }),
            Taken::Wait(_) | Taken::Direct => None,
        }
    }

    /// The same; where no slice has room but accounts are far from their limits, the request itself asks for slices, with
    /// room for those that come after it, and waits for them: that takes as long as to ask the cluster for the request.
    ///
    /// # Errors
    /// The cluster did not decide within `within`. Nothing is held for this request.
    pub async fn take_or_wait(
        &self,
        version: u64,
        tenant: &str,
        wants: &[Want<'_>],
        within: Duration,
    ) -> Result<Option<Hold>, NotDecided> {
        let shard = self.shared.shard(tenant);
        let lines = self.shared.lines(shard, version, tenant, wants, None, within).await?;
        Ok(lines.map(|lines| Hold { shard, lines }))
    }

    /// Takes as [`Leases::take_or_wait`] and settles at once with `used`, one amount for each want. What is left of each
    /// account; `None`: nothing was spent, ask the cluster.
    ///
    /// # Errors
    /// The cluster did not decide within `within`. Nothing was spent.
    pub async fn spend(
        &self,
        version: u64,
        tenant: &str,
        wants: &[Want<'_>],
        used: &[Amount],
        within: Duration,
    ) -> Result<Option<Vec<Left>>, NotDecided> {
        let shard = self.shared.shard(tenant);
        let lines = self.shared.lines(shard, version, tenant, wants, Some(used), within).await?;
        let left =
            |lines: Vec<Line>| lines.iter().zip(used).map(|(line, used)| line.left_after(*used)).collect();
        Ok(lines.map(left))
    }

    /// This policy is in force: slices of those before it go back, also those that nobody asks for any more.
    pub fn under(&self, version: u64) {
        for shard in 0..SHARDS {
            self.shared.with(shard, |book, _| book.under(version));
        }
    }

    /// Charges what was used, one amount for each want. More than was held is charged too. `estimated`: nobody said what
    /// was used; then all that its slices are charged counts as estimated.
    pub fn settle(&self, hold: Hold, used: &[Amount], estimated: bool) {
        self.shared.with(hold.shard, |book, _| book.end(&hold.lines, used, estimated));
    }

    /// Nothing was used.
    pub fn give_back(&self, hold: Hold) {
        self.settle(hold, &[], false);
    }

    /// What an operation of this process has shown of accounts: slices are sized by it.
    pub fn saw(&self, tenant: &str, balances: &[Balance]) {
        self.shared.with(self.shared.shard(tenant), |book, _| book.saw(tenant, balances));
    }

    /// After a denial for what is held of an account: returns what is free of it here, and waits until that is done. True:
    /// something was returned, ask once more.
    pub async fn make_room(&self, tenant: &str, budget: &str, subject: &str) -> bool {
        let shared = &self.shared;
        let shard = shared.shard(tenant);
        let made = shared.with(shard, |book, now| book.make_room(tenant, budget, subject, now));
        let Some((account, returns)) = made else { return false };
        returns.into_iter().for_each(|back| shared.carry_out(shard, Action::Return(back)));
        let is_over = || !shared.with(shard, |book, _| book.is_returning(account));
        timeout(ROOM_WITHIN, shared.until(is_over)).await.is_ok()
    }

    /// Gives nothing any more, and returns everything: what is free at once, the rest as holds end. False: not all of it
    /// within `within`; the rest expires as charged.
    pub async fn stop(&self, within: Duration) -> bool {
        let shared = &self.shared;
        let deadline = Instant::now() + within;
        shared.phase.send_if_modified(|phase| std::mem::replace(phase, (*phase).max(Phase::Stops)) < *phase);
        for shard in 0..SHARDS {
            shared.with(shard, |book, now| book.stop(now));
        }
        let is_over = || (0..SHARDS).all(|shard| shared.with(shard, |book, _| book.is_settled()));
        let all = timeout_at(deadline, async {
            shared.until(is_over).await;
            // Those who look for a slice that may have been granted.
            let _ = shared.asking.acquire_many(shared.asking_max).await;
        });
        let all = all.await.is_ok();
        shared.phase.send_replace(Phase::GivesUp);
        all
    }

    pub fn stats(&self) -> &LeaseStats {
        &self.shared.stats
    }

    /// By budget.
    pub fn by_budget(&self) -> BTreeMap<String, BudgetLeases> {
        let mut sum: BTreeMap<String, BudgetLeases> = BTreeMap::new();
        for shard in 0..SHARDS {
            for (budget, more) in self.shared.with(shard, |book, _| book.counts()) {
                sum.entry(budget).or_default().add(&more);
            }
        }
        sum
    }
}

/// Looks at everything now and then, as long as somebody holds the leases.
async fn tick(shared: Weak<Shared>) {
    loop {
        sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        for shard in 0..SHARDS {
            let lost = shared.with(shard, Book::tick);
            if lost > 0 {
                shared.stats.unresolved.fetch_add(lost as u64, Ordering::Relaxed);
                tracing::error!(
                    slices = lost,
                    "what was held of them never ended; they have expired, charged whole"
                );
            }
        }
        shared.changed.notify_waiters();
    }
}

impl Shared {
    fn now(&self) -> Now {
        let local_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { local_ms, ledger: self.lender.now() }
    }

    fn shard(&self, tenant: &str) -> usize {
        // The remainder is below the number of shards.
        (self.hasher.hash_one(tenant) % SHARDS as u64) as usize
    }

    /// One look at a book, and whatever it wants done.
    fn with<T: Default>(self: &Arc<Self>, shard: usize, look: impl FnOnce(&mut Book, Now) -> T) -> T {
        let Some(book) = self.books.get(shard) else { return T::default() };
        let now = self.now();
        let (told, actions) = {
            let mut book = book.lock();
            (look(&mut book, now), book.actions())
        };
        self.gather(shard, actions);
        told
    }

    /// Of slices that are here, or that are here in a moment. With `used` they end at once.
    async fn lines(
        self: &Arc<Self>,
        shard: usize,
        version: u64,
        tenant: &str,
        wants: &[Want<'_>],
        used: Option<&[Amount]>,
        within: Duration,
    ) -> Result<Option<Vec<Line>>, NotDecided> {
        if wants.is_empty() {
            return Ok(None);
        }
        // Who uses nothing only looks, and takes no slice for that.
        let may_wait = used.is_none_or(|used| used.iter().all(|used| !used.is_zero()));
        let end = |book: &mut Book, lines: &[Line]| {
            if let Some(used) = used {
                book.end(lines, used, false);
            }
        };
        let taken = self.with(shard, |book, now| {
            let taken = book.take(version, tenant, wants, may_wait, now);
            if let Taken::Held(lines) = &taken {
                end(book, lines);
            }
            taken
        });
        let asks = match taken {
            Taken::Held(lines) => return Ok(Some(lines)),
            Taken::Direct => return Ok(None),
            Taken::Wait(asks) => asks,
        };
        // Each to its end, whether somebody waits for it or not.
        let asking: Vec<_> = asks.into_iter().filter_map(|ask| self.ask_for(shard, ask, within)).collect();
        let mut undecided = None;
        for asked in asking {
            if let Ok(Err(error)) = asked.await {
                undecided = Some(error);
            }
        }
        let lines = self.with(shard, |book, now| {
            let lines = book.take_after(version, tenant, wants, now)?;
            end(book, &lines);
            Some(lines)
        });
        match (lines, undecided) {
            (None, Some(error)) => Err(error),
            (lines, _) => Ok(lines),
        }
    }

    fn gather(self: &Arc<Self>, shard: usize, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let mut gathered = self.gathered.lock();
        let is_first = gathered.is_empty();
        gathered.extend(actions.into_iter().map(|action| (shard, action)));
        drop(gathered);
        if is_first {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move {
                sleep(GATHER).await;
                let gathered = std::mem::take(&mut *shared.gathered.lock());
                gathered.into_iter().for_each(|(shard, action)| shared.carry_out(shard, action));
            });
        }
    }

    /// Waits until something holds that only answers of the cluster, and ticks, can make true.
    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    fn carry_out(self: &Arc<Self>, shard: usize, action: Action) {
        match action {
            Action::Return(back) => drop(self.runtime.spawn(Arc::clone(self).give_back(shard, back))),
            Action::Ask(ask) => drop(self.ask_for(shard, ask, ASK_WITHIN)),
        }
    }

    /// `None`: too many are being asked for already.
    fn ask_for(self: &Arc<Self>, shard: usize, ask: Ask, within: Duration) -> Option<Asking> {
        match Arc::clone(&self.asking).try_acquire_owned() {
            Ok(permit) => {
                let (told, asked) = oneshot::channel();
                self.runtime.spawn(Arc::clone(self).ask(shard, ask, within, told, permit));
                Some(asked)
            }
            Err(_) => {
                self.with(shard, |book, now| book.failed(ask.ticket, now));
                None
            }
        }
    }

    /// `told`: as soon as the book knows.
    async fn ask(
        self: Arc<Self>,
        shard: usize,
        ask: Ask,
        within: Duration,
        told: oneshot::Sender<Result<(), NotDecided>>,
        permit: OwnedSemaphorePermit,
    ) {
        let id = self.lender.new_id();
        let ticket = ask.ticket;
        // Nobody needs to wait for the word.
        let tell = |result| drop(told.send(result));
        match self.lender.execute(ask.command(id), within).await {
            Ok(Outcome::Granted(grant)) => {
                self.with(shard, |book, now| book.granted(ticket, id, &grant, now));
                tell(Ok(()));
            }
            Ok(Outcome::Denied(denial)) => {
                self.with(shard, |book, now| book.denied(ticket, &denial, now));
                tell(Ok(()));
            }
            Ok(outcome) => {
                tracing::debug!(budget = ask.budget, tenant = ask.tenant, ?outcome, "no slice");
                self.with(shard, |book, now| book.failed(ticket, now));
                tell(Ok(()));
            }
            Err(error) => {
                tracing::debug!(budget = ask.budget, tenant = ask.tenant, %error, "no decision on a slice");
                self.with(shard, |book, now| book.failed(ticket, now));
                tell(Err(error.clone()));
                if let NotDecided::Unknown(_) = error {
                    self.abandon(ask.tenant, id, Duration::from_millis(ask.ttl_ms)).await;
                }
            }
        }
        drop(permit);
        self.changed.notify_waiters();
    }

    async fn give_back(self: Arc<Self>, shard: usize, back: Return) {
        let balance = self.settled(&back).await;
        let told = balance.is_some();
        self.with(shard, |book, _| book.returned(back.account, balance.flatten().as_ref()));
        let count = if told { &self.stats.returned } else { &self.stats.unresolved };
        count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// `None`: it could not be settled, and expires as charged.
    async fn settled(&self, back: &Return) -> Option<Option<Balance>> {
        let mut phase = self.phase.subscribe();
        while self.now().local_ms < back.until_ms {
            match self.lender.execute(back.command(), RETURN_TRY).await {
                Ok(Outcome::Settled(settlement)) => return Some(settlement.balances.into_iter().next()),
                Ok(Outcome::Released) => return Some(None),
                Ok(outcome) => {
                    tracing::error!(slice = %back.id, tenant = back.tenant, ?outcome, "slice could not be returned");
                    return None;
                }
                Err(error) => tracing::warn!(slice = %back.id, %error, "cannot return a slice yet"),
            }
            tokio::select! {
                () = sleep(RETURN_PAUSE) => {}
                // The sender is in `self`.
                _ = phase.wait_for(|phase| *phase == Phase::GivesUp) => break,
            }
        }
        tracing::error!(
            slice = %back.id, tenant = back.tenant, amount = %back.amount, spent = %back.spent,
            "slice was not returned in time; it expires and is charged whole"
        );
        None
    }

    /// Releases a slice of which it is not known whether it was ever granted.
    async fn abandon(&self, tenant: String, id: ReservationId, ttl: Duration) {
        let (mut stops, mut gives_up) = (self.phase.subscribe(), self.phase.subscribe());
        // The sender is in `self`.
        let stopping = async { drop(stops.wait_for(|phase| *phase >= Phase::Stops).await) };
        let given_up = async { drop(gives_up.wait_for(|phase| *phase == Phase::GivesUp).await) };
        let unheard = Unheard { tenant: tenant.clone(), id, ttl };
        if !unheard.release(&*self.lender, stopping, given_up).await {
            self.stats.unresolved.fetch_add(1, Ordering::Relaxed);
            tracing::error!(slice = %id, tenant, "no word of a slice; if it was granted it expires and is charged whole");
        }
    }
}
