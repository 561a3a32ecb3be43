//! Reservation ids by the ledger's clock, as gateways make them: a run with clocks that jump is not refused for its ids.

use quorate_ledger::ReservationId;
use quorate_rpc::{Client, WatchHandle};
use rand::Rng;

use crate::deploy::Deployment;

/// Follows the ledger's time until it is dropped.
#[derive(Debug)]
pub struct Ids {
    client: Client,
    _watch: WatchHandle,
}

impl Ids {
    pub fn follow(deployment: &Deployment) -> Self {
        let client = deployment.client();
        let watch = client.watch();
        Self { client, _watch: watch }
    }

    /// The time is the ledger's, the rest drawn from `random`.
    pub fn next(&self, random: &mut impl Rng) -> ReservationId {
        let clock = self.client.new_id();
        let drawn = (clock.as_u128() >> 80 << 80) | (random.random::<u128>() >> 48);
        let marked = drawn & !(0xf << 76) & !(0b11 << 62) | (7 << 76) | (0b10 << 62);
        ReservationId::from_u128(marked).unwrap_or(clock)
    }
}
