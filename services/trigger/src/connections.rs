//! The few connections over which attempts begin and end. An attempt holds none while its target
//! works.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_postgres::DbArgs;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Most connections: the statements take a millisecond, so more would only queue in Postgres.
const CONNECTIONS: usize = 4;
/// Settings of each connection, in milliseconds.
const SETTINGS: [(&str, &str); 3] = [
    ("statement_timeout", "10000"),
    ("lock_timeout", "5000"),
    ("idle_in_transaction_session_timeout", "10000"),
];

/// The connections of this process for attempts.
#[derive(Debug)]
pub(crate) struct Connections {
    db: DbArgs,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<PgConnection>>,
    /// Held while a connection is opened: after an outage all would otherwise reconnect together.
    opening: tokio::sync::Mutex<()>,
}

/// A connection in use. Only [`Lent::keep`] returns the connection for the next use. A drop closes
/// the connection, since after an error or a time-out a statement may still be running.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    connection: PgConnection,
    of: &'a Connections,
    permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(db: DbArgs) -> Connections {
        Connections {
            db,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            idle: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Lends a connection. Waits for one, and for the server, at most for the time `limit` each.
    pub(crate) async fn lend(&self, limit: Duration) -> Result<Lent<'_>, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(limit, permit).await else {
            return Err(sqlx::Error::PoolTimedOut.into());
        };
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let _turn = self.opening.lock().await;
                let options = self.db.options("trigger");
                let options =
                    options.map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
                tagtrail_postgres::connect(options, &SETTINGS).await?
            }
        };
        Ok(Lent {
            connection,
            of: self,
            permit,
        })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all unused connections: after an error of one, the others are most likely lost too.
    pub(crate) fn forget_idle(&self) {
        self.idle().clear();
    }
}

impl Lent<'_> {
    /// Returns the connection for the next use.
    pub(crate) fn keep(self) {
        let Lent {
            connection,
            of,
            permit,
        } = self;
        of.idle().push(connection);
        drop(permit);
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
