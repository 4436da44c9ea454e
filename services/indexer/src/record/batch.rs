//! The size of a batch: the most pushes that Postgres records in time. Each holder measures anew.

use std::time::Duration;

/// Largest batch. A higher limit makes nothing faster.
pub(crate) const MOST: usize = 1000;
/// Size of the first batch: the previous holder may have failed at a large batch.
const FIRST: usize = 8;

/// Doubles the size after short transactions, and halves it after a long transaction. So a slow
/// Postgres gets through small batches, where a large batch would time out again and again.
#[derive(Debug)]
pub(crate) struct BatchSize {
    pushes: usize,
    /// Time-out of a transaction.
    limit: Duration,
}

impl BatchSize {
    pub(crate) fn new(limit: Duration) -> BatchSize {
        BatchSize {
            pushes: FIRST,
            limit,
        }
    }

    /// Returns the most pushes for the next transaction.
    pub(crate) fn pushes(&self) -> usize {
        self.pushes
    }

    /// Adapts the size to the duration of a transaction with this number of pushes.
    pub(crate) fn took(&mut self, pushes: usize, duration: Duration) {
        if duration > self.limit / 4 {
            self.pushes = (pushes / 2).max(1);
        } else if duration < self.limit / 10 && pushes == self.pushes {
            self.pushes = (self.pushes * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_most_and_shrinks_to_one() {
        let mut size = BatchSize::new(Duration::from_secs(10));
        for _ in 0..7 {
            size.took(size.pushes(), Duration::from_millis(5));
        }
        assert_eq!(size.pushes(), MOST);
        size.took(3, Duration::from_millis(5)); // A batch that is not full changes nothing.
        assert_eq!(size.pushes(), MOST);
        size.took(MOST, Duration::from_secs(2)); // Neither short nor long.
        assert_eq!(size.pushes(), MOST);
        for _ in 0..20 {
            size.took(size.pushes(), Duration::from_secs(3));
        }
        assert_eq!(size.pushes(), 1);
    }
}
