//! The locks of branches in Postgres: one process at a time writes to a branch. All locks of a
//! process are held by one session, so that many slow servers need no more sessions.
//!
//! The server of the repository refuses a commit that does not follow the branch. So the lock saves
//! work, and a lost one does no harm.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, Lock, ping, within};
use tokio::time::Instant;

/// The pause between two tries, at least and at most.
const PAUSE: (u64, u64) = (50, 250);

/// The locks of this process.
pub(super) struct Locks {
    db: DbArgs,
    /// The time after which Postgres ends an idle session.
    silence: Duration,
    session: tokio::sync::Mutex<Option<PgConnection>>,
    /// Locks of turns that were cut off.
    left: Mutex<Vec<Lock>>,
}

/// A lock that is held. After a drop the next use of the session releases it, or its end.
pub(super) struct Held<'a> {
    locks: &'a Locks,
    lock: Option<Lock>,
}

/// A use of the session.
#[derive(Clone, Copy)]
enum Question {
    Acquire(Lock),
    Release(Lock),
    Keep,
}

impl Locks {
    pub(super) fn new(db: DbArgs, silence: Duration) -> Locks {
        Locks {
            db,
            silence,
            session: tokio::sync::Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Waits for a lock, at most for this time. `None`: another process holds it still.
    pub(super) async fn hold(
        &self,
        lock: Lock,
        limit: Duration,
    ) -> Result<Option<Held<'_>>, sqlx::Error> {
        let deadline = Instant::now() + limit;
        loop {
            if self.ask(Question::Acquire(lock)).await? {
                let lock = Some(lock);
                return Ok(Some(Held { locks: self, lock }));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            let pause = rand::random_range(PAUSE.0..PAUSE.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Uses the session, which is opened if there is none. After an error the next use opens a new
    /// one. Returns whether this process has the lock in question.
    async fn ask(&self, question: Question) -> Result<bool, sqlx::Error> {
        let mut session = self.session.lock().await;
        let before = session.take();
        let (db, answer) = within(self.silence, self.answer(before, question)).await?;
        *session = Some(db);
        Ok(answer)
    }

    async fn answer(
        &self,
        session: Option<PgConnection>,
        question: Question,
    ) -> Result<(PgConnection, bool), sqlx::Error> {
        let mut db = match session {
            Some(db) => db,
            None => {
                // They ended with their session.
                self.left().clear();
                self.db.session("trigger", self.silence).await?
            }
        };
        let left = std::mem::take(&mut *self.left());
        for lock in left {
            lock.release(&mut db).await?;
        }
        let answer = match question {
            Question::Acquire(lock) => lock.try_acquire(&mut db).await?,
            Question::Release(lock) => {
                lock.release(&mut db).await?;
                false
            }
            Question::Keep => {
                ping(&mut db).await?;
                true
            }
        };
        Ok((db, answer))
    }

    fn left(&self) -> MutexGuard<'_, Vec<Lock>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held<'_> {
    /// Keeps the session open. Ends never.
    pub(super) async fn keep(&self) {
        loop {
            tokio::time::sleep(ping_interval(self.locks.silence)).await;
            if let Err(error) = self.locks.ask(Question::Keep).await {
                tracing::debug!("the lock of a branch is lost, which does no harm: {error}");
            }
        }
    }

    pub(super) async fn release(mut self) {
        if let Some(lock) = self.lock.take()
            && let Err(error) = self.locks.ask(Question::Release(lock)).await
        {
            tracing::debug!("the lock of a branch ends with its session: {error}");
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let lock = self.lock.take();
        self.locks.left().extend(lock);
    }
}
