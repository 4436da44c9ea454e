//! Work that one instance does, which holds a lock, as long as the settings ask for it. The others
//! stand by.

use std::sync::Arc;

use sqlx::PgConnection;
use tagtrail_daemon::Retry;
use tagtrail_postgres::Lock;
use tokio::sync::watch;

use crate::error::Error;
use crate::settings::Settings;
use crate::shared::Shared;

/// The sessions of one kind of work, one after the other.
pub(crate) struct Lead {
    shared: Shared,
    lock: Lock,
    retry: Retry,
    settings: watch::Receiver<Arc<Settings>>,
}

impl Lead {
    /// `work` names the work in the log.
    pub(crate) fn new(shared: &Shared, lock: Lock, work: &'static str) -> Lead {
        Lead {
            shared: shared.clone(),
            lock,
            retry: Retry::new(work),
            settings: shared.settings.clone(),
        }
    }

    /// Waits until there is work, and then for the lock. Without work there is no session. `None`
    /// on shutdown.
    pub(crate) async fn session(
        &mut self,
        has_work: impl Fn(&Settings) -> bool,
    ) -> Option<PgConnection> {
        let shutdown = self.shared.shutdown.clone();
        while !shutdown.is_cancelled() {
            let some = self.settings.wait_for(|settings| has_work(settings));
            tokio::select! {
                () = shutdown.cancelled() => return None,
                found = some => drop(found.ok()?),
            }
            let session = self.shared.session_with(self.lock).await;
            match session {
                Ok(session) => return session,
                Err(error) => self.ended(Err(error)).await,
            }
        }
        None
    }

    /// Takes note of the end of a session. After a failure there is a pause, unless a stop was
    /// requested.
    pub(crate) async fn ended(&mut self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            self.retry.wait(&error, &self.shared.shutdown).await;
        }
    }
}
