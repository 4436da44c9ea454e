//! The number of followers: of all together, and with one token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::Error;

/// Most followers at a time.
const ALL: usize = 512;
/// Most followers with one token, so that a reader keeps no other one out.
const OF_TOKEN: usize = 256;

/// The seats of followers.
#[derive(Debug)]
pub(super) struct Seats {
    all: Arc<Semaphore>,
    /// By the name of the token.
    of_tokens: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The seat of a follower.
#[derive(Debug)]
pub(super) struct Seat {
    _of_all: OwnedSemaphorePermit,
    _of_token: Option<OwnedSemaphorePermit>,
}

impl Default for Seats {
    fn default() -> Seats {
        Seats {
            all: Arc::new(Semaphore::new(ALL)),
            of_tokens: Mutex::default(),
        }
    }
}

impl Seats {
    /// Takes a seat. `token`: the name of the follower's token.
    ///
    /// # Errors
    /// [`Error::TooManyFollowers`].
    pub(super) fn take(&self, token: Option<&str>) -> Result<Seat, Error> {
        let take = |seats: Arc<Semaphore>| {
            let seat = seats.try_acquire_owned();
            seat.map_err(|_| Error::TooManyFollowers)
        };
        let of_token = token.map(|token| self.of_token(token));
        Ok(Seat {
            _of_token: of_token.map(take).transpose()?,
            _of_all: take(Arc::clone(&self.all))?,
        })
    }

    fn of_token(&self, token: &str) -> Arc<Semaphore> {
        let of_tokens = self.of_tokens.lock();
        let mut of_tokens = of_tokens.unwrap_or_else(PoisonError::into_inner);
        let seats = of_tokens.entry(token.to_owned());
        Arc::clone(seats.or_insert_with(|| Arc::new(Semaphore::new(OF_TOKEN))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_does_not_take_all_seats() {
        let seats = Seats::default();
        let take = |token, most: usize| -> Vec<Seat> {
            let taken = (0..most).map_while(|_| seats.take(token).ok());
            taken.collect()
        };
        let mut screens = take(Some("screens"), 1000);
        assert_eq!(screens.len(), OF_TOKEN);
        let others = take(Some("ci"), 100);
        assert_eq!(others.len(), 100);
        assert_eq!(take(None, 1000).len(), ALL - OF_TOKEN - 100);
        screens.truncate(OF_TOKEN - 3);
        assert_eq!(take(Some("screens"), 1000).len(), 3);
        let all = take(None, 1000);
        assert!(seats.take(Some("ci")).is_err());
        drop((all, others));
        assert!(seats.take(Some("ci")).is_ok());
    }
}
