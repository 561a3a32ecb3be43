//! One number for the whole content of a ledger: two replicas that applied the same log have the same.

use std::hash::{Hash, Hasher};

use crate::Ledger;

impl Ledger {
    /// FNV-1a over all content in order; how it is shared or cut into chunks does not count. Replicas of one build
    /// agree on it; another release may compute another number from the same content. It walks everything: for tests
    /// and audits, not for every command.
    pub fn digest(&self) -> u64 {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        self.hash(&mut digest);
        digest.finish()
    }
}

struct Digest(u64);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
