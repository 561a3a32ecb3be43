//! Bounds what large bodies hold in memory, all requests together. Bodies below a MiB are bounded by the number of
//! requests at work alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: usize = 1 << 20;

/// The memory of one gateway for bodies, in MiB.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    pub(crate) fn share(&self) -> Share {
        Share { memory: Arc::clone(&self.0), held: None }
    }
}

/// What one body holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// A body of `bytes` needs no more than there is.
    pub(crate) fn covers(&self, bytes: usize) -> bool {
        self.missing(bytes) == 0
    }

    fn missing(&self, bytes: usize) -> usize {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        (bytes / UNIT_BYTES).saturating_sub(held)
    }

    /// Waits until there is room for a body of `bytes`. The caller bounds the wait.
    pub(crate) async fn cover(&mut self, bytes: usize) {
        let missing = self.missing(bytes);
        if missing == 0 {
            return;
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        // Never closed.
        let Ok(more) = Arc::clone(&self.memory).acquire_many_owned(missing).await else { return };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_small_ones_do_not() {
        let memory = Memory::new(4 << 20);
        let (mut first, mut second) = (memory.share(), memory.share());
        first.cover(1 << 20).await;
        first.cover(3 << 20).await;
        assert!(!first.covers(4 << 20) && first.covers((4 << 20) - 1) && second.covers(1000));
        second.cover(1000).await;
        second.cover(1 << 20).await;
        assert!(timeout(Duration::from_millis(20), second.cover(2 << 20)).await.is_err());
        drop(first);
        timeout(Duration::from_secs(20), second.cover(4 << 20)).await.unwrap();
    }
}
