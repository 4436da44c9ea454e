//! Sessions: made again after every failure, bounded in time.

use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_daemon::{backoff, chain};
use tagtrail_postgres::Lock;

use crate::Shared;
use crate::error::{Error, within};

/// How often a session that waits for its turn asks.
const TURN: Duration = Duration::from_secs(1);

impl Shared {
    /// A new session. One at a time is opened: all that are lost at once would else come back at once, to a server that has just
    /// come back itself, and all take too long.
    pub(crate) async fn session(&self) -> Result<PgConnection, Error> {
        let _turn = self.opening.lock().await;
        within(self.silence, self.db.session("trigger", self.silence)).await
    }

    /// A new session that has the lock; waits for it as long as it takes. `None` if a stop was asked for.
    pub(crate) async fn session_with(&self, lock: Lock) -> Result<Option<PgConnection>, Error> {
        let mut db = self.session().await?;
        loop {
            if within(self.silence, lock.try_acquire(&mut db)).await? {
                return Ok(Some(db));
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
                // Standing by is being ready.
                () = tokio::time::sleep(TURN) => self.health.set("postgres", Ok(())),
            }
        }
    }

    /// How often a session must be used to stay alive.
    pub(crate) fn ping_every(&self) -> Duration {
        self.silence / 5
    }

    /// Says that `what` failed, and waits before it is started over. Gives whether it should be.
    pub(crate) async fn start_over(
        &self,
        what: &str,
        failures: &mut Failures,
        error: &Error,
    ) -> bool {
        let pause = failures.pause();
        tracing::warn!("the {what} starts over in {pause:?}: {}", chain(error));
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

/// Failures in a row: one that comes long after the last is the first again.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    count: u32,
    last: Option<tokio::time::Instant>,
}

impl Failures {
    pub(crate) fn pause(&mut self) -> Duration {
        let recent = self
            .last
            .is_some_and(|last| last.elapsed() < Duration::from_secs(30));
        self.count = if recent {
            self.count.saturating_add(1)
        } else {
            1
        };
        self.last = Some(tokio::time::Instant::now());
        backoff(self.count)
    }
}
