//! How fast an account is spent from here, and how large a slice of it is worth holding.

use quorate_ledger::Amount;

use super::types::LeaseSettings;

/// Counted in steps of so long.
const STEP_MS: u64 = 100;
/// What is older weighs less than a third.
const MEMORY_MS: f64 = 1_000.0;
/// A slice lasts for so long, where there is enough,
const HORIZON_MS: u64 = 1_000;
/// and as long as it may get old, where that is not more than this part of what is left.
const SMALL: u64 = 64;
/// A slice has room for so many requests, where there is enough.
const REQUESTS: f64 = 8.0;
/// With room for fewer it is not worth its two operations.
const REQUESTS_MIN: f64 = 2.0;
/// One slice takes at most this part of what is left: others want some of it.
const SHARE: u64 = 4;
/// What is at most this part of what is left is hardly missed by anybody: it may be held for longer.
const FAR: u64 = 1_024;
/// What is at most this part of it is missed by nobody: then a first slice has room for more requests,
const PLENTY: u64 = 65_536;
/// for so many.
const REQUESTS_OF_PLENTY: f64 = 64.0;
/// Of a window that ends sooner nothing is leased.
const WINDOW_LEFT_MIN_MS: u64 = 50;

/// The slice to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub amount: Amount,
    /// The least that is worth having.
    pub at_least: Amount,
    /// See [`is_far`].
    pub far: bool,
}

/// So small a part of what is left that it may be held for longer.
pub(super) fn is_far(amount: Amount, available: Amount) -> bool {
    amount.micros() <= available.micros() / FAR
}

/// Requests and their worst cases a second, weighted exponentially.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    since_ms: u64,
    requests: u64,
    micros: u64,
    requests_rate: f64,
    micros_rate: f64,
}

impl Pace {
    pub fn new(local_ms: u64) -> Self {
        Self { since_ms: local_ms, ..Self::default() }
    }

    /// A request has asked for so much, wherever it got it.
    pub fn count(&mut self, amount: Amount, local_ms: u64) {
        self.advance(local_ms);
        self.requests += 1;
        self.micros = self.micros.saturating_add(amount.micros());
    }

    pub fn advance(&mut self, local_ms: u64) {
        let passed = local_ms.saturating_sub(self.since_ms);
        if passed < STEP_MS {
            return;
        }
        let passed_ms = passed as f64;
        let keep = (-passed_ms / MEMORY_MS).exp();
        let mix = |rate: f64, counted: u64| rate * keep + counted as f64 * 1_000.0 / passed_ms * (1.0 - keep);
        self.requests_rate = mix(self.requests_rate, self.requests);
        self.micros_rate = mix(self.micros_rate, self.micros);
        (self.since_ms, self.requests, self.micros) = (local_ms, 0, 0);
    }

    /// Of one request.
    pub fn typical(&self) -> Amount {
        amount(if self.requests_rate > 0.0 { (self.micros_rate / self.requests_rate).ceil() } else { 1.0 })
    }

    /// The slice to ask for ahead of need; `None`: the exact way is better. `window_left_ms`: what is left of the window by
    /// the ledger's clock.
    pub fn slice(&self, available: Amount, window_left_ms: u64, settings: &LeaseSettings) -> Option<Size> {
        if self.requests_rate < settings.rate_min || window_left_ms < WINDOW_LEFT_MIN_MS {
            return None;
        }
        let typical = self.typical().micros() as f64;
        let lasting = |ms: u64| self.lasting(window_left_ms.min(ms));
        let long = lasting(settings.age_max_ms).min(part(available, SMALL));
        let far = lasting(settings.far_age_max_ms).min(part(available, FAR));
        let wanted = lasting(HORIZON_MS).max(long).max(far).max(amount(typical * REQUESTS));
        let size = wanted.min(part(available, SHARE));
        let at_least = amount(typical * REQUESTS_MIN);
        (size >= at_least).then_some(Size { amount: size, at_least, far: is_far(size, available) })
    }

    /// The slice that a request asks for itself which no other has room for: with room for the next ones too, which costs no
    /// more than the request alone would. `None`: the account is not far enough from its limit for that.
    pub fn first(
        &self,
        request: Amount,
        available: Amount,
        window_left_ms: u64,
        settings: &LeaseSettings,
    ) -> Option<Size> {
        if request.is_zero() || window_left_ms < WINDOW_LEFT_MIN_MS {
            return None;
        }
        let request_micros = request.micros() as f64;
        let paced = self.lasting(window_left_ms.min(settings.far_age_max_ms));
        let plenty = amount(request_micros * REQUESTS_OF_PLENTY).min(part(available, PLENTY));
        let wanted = paced.max(plenty).max(amount(request_micros * REQUESTS));
        let size = wanted.min(part(available, FAR));
        let is_worth_it = size >= amount(request_micros * REQUESTS_MIN);
        is_worth_it.then_some(Size { amount: size, at_least: request, far: true })
    }

    /// With so much left of a slice the next one is asked for. `spread_ms`: not by all accounts at the same time.
    pub fn low(&self, next: Amount, spread_ms: u64) -> Amount {
        let soon = self.lasting(HORIZON_MS.saturating_add(spread_ms));
        soon.max(amount(self.typical().micros() as f64 * REQUESTS_MIN)).min(part(next, 4))
    }

    /// What is needed for so long.
    fn lasting(&self, ms: u64) -> Amount {
        amount(self.micros_rate * ms as f64 / 1_000.0)
    }
}

fn part(of: Amount, divisor: u64) -> Amount {
    Amount::from_micros(of.micros() / divisor).unwrap_or(Amount::MAX)
}

/// Cut to what an amount can be, and never nothing.
fn amount(micros: f64) -> Amount {
    // A cast from a float saturates.
    Amount::from_micros((micros as u64).max(1)).unwrap_or(Amount::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(units: u64) -> Amount {
        Amount::from_units(units).unwrap()
    }

    /// `rate` requests a second of 100 tokens, for three seconds.
    fn paced(rate: u64) -> Pace {
        let mut pace = Pace::new(0);
        for number in 0..rate * 3 {
            pace.count(tokens(100), number * 1_000 / rate);
        }
        pace.advance(3_000);
        pace
    }

    #[test]
    fn a_slice_follows_the_rate_and_shrinks_near_the_limit() {
        let settings = LeaseSettings::new(30_000);
        let rows = [
            // rate, available, left of the window, slice in tokens: about a second's worth
            (0, 1_000_000, 3_600_000, None),
            (2, 1_000_000, 3_600_000, Some(900..=1_000)),
            (100, 10_000_000, 3_600_000, Some(45_000..=50_000)),
            // Of what is plenty, a minute's worth.
            (100, 100_000_000, 3_600_000, Some(90_000..=98_000)),
            (100, 10_000_000_000, 3_600_000, Some(540_000..=600_000)),
            (100, 10_000_000_000, 10_000, Some(90_000..=100_000)),
            (100, 1_280_000, 3_600_000, Some(20_000..=20_000)),
            (100, 500_000, 3_600_000, Some(9_000..=10_000)),
            (100, 1_000_000, 500, Some(4_500..=5_000)),
            (100, 1_000_000, 49, None),
            (100, 8_000, 3_600_000, Some(2_000..=2_000)),
            (100, 800, 3_600_000, Some(200..=200)),
            (100, 799, 3_600_000, None),
            (100, 0, 3_600_000, None),
        ];
        for (rate, available, left, expected) in rows {
            let slice = paced(rate).slice(tokens(available), left, &settings);
            let tokens = slice.map(|size| size.amount.units_floor());
            let fits = match (&expected, tokens) {
                (None, None) => true,
                (Some(range), Some(tokens)) => range.contains(&tokens),
                _ => false,
            };
            assert!(fits, "{rate}/s, {available} available, {left} ms: {tokens:?}, not {expected:?}");
            assert!(
                slice.is_none_or(|size| size.at_least <= size.amount && size.at_least.units_floor() == 200)
            );
        }
    }

    #[test]
    fn a_first_slice_has_room_for_more_requests_where_more_is_left() {
        let settings = LeaseSettings::new(30_000);
        let rows = [
            // rate before, available, left of the window, slice in tokens
            (0, 1_000_000_000, 3_600_000, Some(6_400)),
            (0, 100_000_000, 3_600_000, Some(1_525)),
            (0, 10_000_000, 3_600_000, Some(800)),
            (0, 500_000, 3_600_000, Some(488)),
            (0, 204_800, 3_600_000, Some(200)),
            (0, 204_799, 3_600_000, None),
            (0, 1_000_000_000, 49, None),
            (100, 100_000_000, 3_600_000, Some(97_656)),
        ];
        for (rate, available, left, expected) in rows {
            let first = paced(rate).first(tokens(100), tokens(available), left, &settings);
            assert_eq!(
                first.map(|size| size.amount.units_floor()),
                expected,
                "{rate}/s, {available}, {left}"
            );
            assert!(first.is_none_or(|size| size.at_least == tokens(100) && size.far));
        }
    }

    #[test]
    fn the_next_slice_is_asked_for_a_second_or_more_before_this_one_is_used_up() {
        let pace = paced(100);
        let second = pace.low(tokens(600_000), 0).units_floor();
        assert!((9_000..=10_000).contains(&second), "{second}");
        assert!((18_000..=20_000).contains(&pace.low(tokens(600_000), 1_000).units_floor()));
        assert_eq!(pace.low(tokens(2_000), 1_000), tokens(500), "a quarter of a small one");
        assert_eq!(paced(0).low(tokens(4), 0).units_floor(), 0);
    }

    #[test]
    fn a_burst_counts_at_once_and_is_forgotten() {
        let mut pace = Pace::new(0);
        for _ in 0..10 {
            pace.count(tokens(1), 50);
        }
        assert_eq!(pace.requests_rate, 0.0);
        pace.advance(100);
        assert!((9.0..=10.0).contains(&pace.requests_rate), "{}", pace.requests_rate);
        pace.advance(10_000);
        assert!(pace.requests_rate < 0.1, "{}", pace.requests_rate);
    }

    #[test]
    fn extreme_amounts_and_jumps_of_the_clock_are_harmless() {
        let mut pace = Pace::new(5_000);
        for _ in 0..100 {
            pace.count(Amount::MAX, 0);
        }
        pace.advance(u64::MAX);
        pace.advance(0);
        let _ = pace.slice(Amount::MAX, u64::MAX, &LeaseSettings::new(u64::MAX));
        let first = pace.first(Amount::MAX, Amount::MAX, u64::MAX, &LeaseSettings::new(u64::MAX));
        assert_eq!(first, None);
        assert!(pace.typical() <= Amount::MAX);
    }
}
