//! The order in which a rule's backends are tried: by priority first, within one priority by a strategy, and among those
//! that it finds equal by weight. Pure: the draw and what is known of latencies come from the caller.
//!
//! Equals are ordered by weighted rendezvous hashing (as a race of exponential clocks: each backend's clock runs at the
//! speed of its weight and is seeded by the key and the backend's name). With a drawn key that is a draw by weight
//! without replacement; with a key that stays the same it is sticky, and a changed weight or a backend that comes or
//! goes moves only the keys whose share has changed hands.

use std::fmt;

use quorate_ledger::Amount;

use super::{BackendRef, Prices, RequestView, RouteMatch};

/// How a rule chooses among backends of equal priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    pub strategy: Strategy,
    pub sticky: Option<Sticky>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// All are equal.
    #[default]
    Weighted,
    /// The lowest price of this request first; those without a known price last.
    Cheapest,
    /// The shortest time to the first byte first; those that are not measured last, but for a share of the requests.
    LowestLatency,
}

/// What keeps requests at the same one of several equal backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// The value of this header; requests without it are drawn. In lower case.
    Header(String),
    /// How the conversation begins: its system prompt and the first message of the user.
    Conversation,
}

/// What decides besides the rule.
#[derive(Clone, Copy)]
pub struct Signals<'s> {
    /// Any number; the same number gives the same order.
    pub draw: u64,
    /// A digest of how the conversation begins.
    pub conversation: Option<u64>,
    /// The most tokens that the request can have, as far as it is known.
    pub input: u64,
    pub output: u64,
    pub prices: &'s Prices,
    /// Milliseconds to the first byte, of a backend (`namespace/name`) and a model. `None`: not measured, or not lately.
    pub latency_ms: &'s dyn Fn(&str, &str) -> Option<u64>,
}

/// A backend in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranked<'a> {
    pub backend: &'a BackendRef,
    /// From 0; those of the same rank are equals.
    pub rank: usize,
    pub reason: RankReason,
}

/// Why a backend stands where it does within its priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankReason {
    Weight,
    /// The most that the request costs there, in dollars.
    Price(Amount),
    NoPrice,
    LatencyMs(u64),
    NotMeasured,
    /// Not measured, and this request is to change that.
    Explores,
}

/// Of 10,000 requests, those that try a backend which was not measured lately.
const EXPLORING: u64 = 500;

impl<'a> RouteMatch<'a> {
    /// The backends in the order in which to try them; those of weight 0 not at all.
    pub fn ordered(&self, request: &RequestView<'_>, signals: &Signals<'_>) -> Vec<Ranked<'a>> {
        let key = self.sticky_key(request, signals.conversation).unwrap_or(signals.draw);
        let mut ranked = self.ranked(request.model, signals, Some(key));
        let clocks = clocks(&ranked, key);
        let mut order: Vec<usize> = (0..ranked.len()).collect();
        order.sort_by(|left, right| {
            let place = |at: &usize| (ranked[*at].rank, clocks[*at]);
            let ((left_rank, left), (right_rank, right)) = (place(left), place(right));
            left_rank.cmp(&right_rank).then(left.total_cmp(&right))
        });
        ranked = order.into_iter().map(|at| ranked[at]).collect();
        ranked
    }

    /// The same without a draw: equals stand in the order of the route. For explanations.
    pub fn ranks(&self, model: &str, signals: &Signals<'_>) -> Vec<Ranked<'a>> {
        self.ranked(model, signals, None)
    }

    /// What a sticky rule goes by. `None`: the rule is not, or the request has nothing to go by.
    pub fn sticky_key(&self, request: &RequestView<'_>, conversation: Option<u64>) -> Option<u64> {
        match self.rule.routing.sticky.as_ref()? {
            Sticky::Header(name) => {
                let value = request.headers.get(name).filter(|value| !value.is_empty())?;
                Some(fnv_1a(value.as_bytes()))
            }
            Sticky::Conversation => conversation,
        }
    }

    /// By rank. `key`: decides which request explores; `None`: none does.
    fn ranked(&self, model: &str, signals: &Signals<'_>, key: Option<u64>) -> Vec<Ranked<'a>> {
        let mut refs: Vec<&BackendRef> = self.rule.backends.iter().filter(|one| one.weight > 0).collect();
        refs.sort_by_key(|backend| backend.priority);
        let mut ranked: Vec<Ranked<'a>> = Vec::with_capacity(refs.len());
        for peers in refs.chunk_by(|left, right| left.priority == right.priority) {
            let first = ranked.last().map_or(0, |last| last.rank + 1);
            let mut judged = match self.rule.routing.strategy {
                Strategy::Weighted => equal(peers),
                Strategy::Cheapest => by_price(peers, model, signals),
                Strategy::LowestLatency => by_latency(peers, model, signals, key),
            };
            judged.iter_mut().for_each(|one| one.rank += first);
            ranked.append(&mut judged);
        }
        ranked
    }
}

fn model_of<'b>(backend: &'b BackendRef, asked: &'b str) -> &'b str {
    backend.model_override.as_deref().unwrap_or(asked)
}

fn equal<'a>(peers: &[&'a BackendRef]) -> Vec<Ranked<'a>> {
    peers.iter().map(|backend| Ranked { backend, rank: 0, reason: RankReason::Weight }).collect()
}

fn by_price<'a>(peers: &[&'a BackendRef], model: &str, signals: &Signals<'_>) -> Vec<Ranked<'a>> {
    let price = |backend: &BackendRef| {
        let (_, listed) = signals.prices.find(model_of(backend, model))?;
        listed.price.bound(signals.input, signals.output)
    };
    let scored = peers.iter().map(|backend| (*backend, price(backend)));
    let reason = |price: Option<Amount>| price.map_or(RankReason::NoPrice, RankReason::Price);
    grouped(scored.collect(), |best, price| price == best, reason)
}

fn by_latency<'a>(
    peers: &[&'a BackendRef],
    model: &str,
    signals: &Signals<'_>,
    key: Option<u64>,
) -> Vec<Ranked<'a>> {
    let latency = |backend: &BackendRef| (signals.latency_ms)(&backend.backend, model_of(backend, model));
    let scored = peers.iter().map(|backend| (*backend, latency(backend)));
    let reason = |ms: Option<u64>| ms.map_or(RankReason::NotMeasured, RankReason::LatencyMs);
    // A tenth more is no difference, nor is what the clock cannot tell apart.
    let close = |best: u64, ms: u64| ms <= best.saturating_add((best / 10).max(1));
    let mut ranked = grouped(scored.collect(), close, reason);
    let unmeasured = |one: &Ranked<'_>| one.reason == RankReason::NotMeasured;
    if key.is_some_and(explores) && ranked.iter().any(unmeasured) && !ranked.iter().all(unmeasured) {
        let at = ranked.iter().position(unmeasured).unwrap_or_default();
        ranked.rotate_left(at);
        for one in &mut ranked {
            match one.reason {
                RankReason::NotMeasured => (one.rank, one.reason) = (0, RankReason::Explores),
                _ => one.rank += 1,
            }
        }
    }
    ranked
}

/// Ascending; `same`: a value that counts as equal to the best of its group. What has no value comes last, together.
fn grouped<'a, T: Copy + Ord>(
    mut scored: Vec<(&'a BackendRef, Option<T>)>,
    same: impl Fn(T, T) -> bool,
    reason: impl Fn(Option<T>) -> RankReason,
) -> Vec<Ranked<'a>> {
    scored.sort_by_key(|(_, value)| (value.is_none(), *value));
    let (mut rank, mut best) = (0, None);
    let mut ranked = Vec::with_capacity(scored.len());
    for (backend, value) in scored {
        let joins = match (best, value) {
            (Some(Some(best)), Some(value)) => same(best, value),
            (Some(None), None) | (None, _) => true,
            _ => false,
        };
        if !joins {
            rank += 1;
        }
        if best.is_none() || !joins {
            best = Some(value);
        }
        ranked.push(Ranked { backend, rank, reason: reason(value) });
    }
    ranked
}

fn explores(key: u64) -> bool {
    // Not the bits that decide among equals.
    mixed(key ^ 0x6578_706c_6f72_6573) % 10_000 < EXPLORING
}

/// When each backend's clock rings; the first wins. Two entries of one backend and model are two clocks.
fn clocks(ranked: &[Ranked<'_>], key: u64) -> Vec<f64> {
    let name = |one: &Ranked<'_>| {
        let model = one.backend.model_override.as_deref().unwrap_or_default();
        fnv_1a(one.backend.backend.as_bytes()) ^ mixed(fnv_1a(model.as_bytes()))
    };
    let names: Vec<u64> = ranked.iter().map(name).collect();
    let clock = |(at, one): (usize, &Ranked<'_>)| {
        let twins = names[..at].iter().filter(|other| **other == names[at]).count() as u64;
        let number = mixed(mixed(key).wrapping_add(names[at]).wrapping_add(twins));
        // Evenly from the open interval (0, 1): 53 bits are what a double holds.
        let even = ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -even.ln() / f64::from(one.backend.weight)
    };
    ranked.iter().enumerate().map(clock).collect()
}

/// A number that looks drawn (splitmix64, G. Steele et al., "Fast splittable pseudorandom number generators").
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Fowler, Noll, Vo: the same in every gateway of a fleet, whatever its version.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl fmt::Debug for Signals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { draw, conversation, input, output, .. } = self;
        write!(f, "Signals {{ draw: {draw}, conversation: {conversation:?}, tokens: {input} + {output} }}")
    }
}

/// `Cheapest, sticky by header x-conversation-id`
impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.strategy {
            Strategy::Weighted => "Weighted",
            Strategy::Cheapest => "Cheapest",
            Strategy::LowestLatency => "LowestLatency",
        })?;
        match &self.sticky {
            None => Ok(()),
            Some(Sticky::Header(name)) => write!(f, ", sticky by header {name}"),
            Some(Sticky::Conversation) => f.write_str(", sticky by conversation"),
        }
    }
}

impl fmt::Display for RankReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight => f.write_str("by priority and weight"),
            Self::Price(price) => write!(f, "costs up to ${price}"),
            Self::NoPrice => f.write_str("no known price: comes last"),
            Self::LatencyMs(ms) => write!(f, "first byte after {ms} ms"),
            Self::NotMeasured => f.write_str("not measured lately: comes last, but for 5 % of the requests"),
            Self::Explores => f.write_str("not measured lately: this request tries it"),
        }
    }
}
