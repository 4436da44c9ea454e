//! How many pushes go into one transaction: as many as the store takes in time, found out anew by each holder.

use std::time::Duration;

/// Most pushes in one transaction; above it more is not faster.
pub(crate) const MOST: usize = 400;
/// The first batch. Whoever held the partition before may have failed at a larger one.
const FIRST: usize = 8;

/// Doubles while transactions are short, halves when one is long: a store that is slow gets through small batches, where one of
/// a thousand would be given up as unanswered again and again.
#[derive(Debug)]
pub(crate) struct BatchSize {
    pushes: usize,
    /// After which a transaction is given up.
    limit: Duration,
}

impl BatchSize {
    pub(crate) fn new(limit: Duration) -> BatchSize {
        BatchSize {
            pushes: FIRST,
            limit,
        }
    }

    /// Pushes in the next transaction at most.
    pub(crate) fn pushes(&self) -> usize {
        self.pushes
    }

    /// Learns from a transaction of so many pushes that took so long.
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
        for _ in 0..6 {
            size.took(size.pushes(), Duration::from_millis(5));
        }
        assert_eq!(size.pushes(), MOST);
        size.took(3, Duration::from_millis(5)); // It says nothing of a full one.
        assert_eq!(size.pushes(), MOST);
        size.took(MOST, Duration::from_secs(2)); // Neither short nor long.
        assert_eq!(size.pushes(), MOST);
        for _ in 0..20 {
            size.took(size.pushes(), Duration::from_secs(3));
        }
        assert_eq!(size.pushes(), 1);
    }
}
