//! The way to Postgres: a small pool that heals by itself.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};
use tagtrail_daemon::Context;
use tagtrail_postgres::{DbArgs, DbError};

use crate::error::Error;

/// Connections at once. A question takes a fraction of a millisecond; more would only queue up in Postgres instead of here.
const CONNECTIONS: u32 = 8;
/// Time to get one of them.
const ACQUIRE: Duration = Duration::from_secs(2);
/// Time for a statement, in milliseconds, as Postgres wants it.
const STATEMENT: &str = "5000";
/// A connection that was idle for longer is tried before use.
const FRESH: Duration = Duration::from_secs(1);
/// Time between two looks at whether Postgres answers, and time for one.
const LOOK: Duration = Duration::from_secs(2);

/// A connection that is closed when it is dropped, unless it was [answered](Connection::answered): a question may still be under way
/// (its asker is gone), or the way is cut, and the pool would wait for it without a limit.
#[derive(Debug)]
pub(crate) struct Connection {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Connection {
    /// Gives it back to the pool. (The pool tries it then; it has no setting against that.)
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Connections to Postgres, once it and its schema are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database(Arc<OnceLock<PgPool>>);

impl Database {
    /// A connection. Each question is one or two single statements: there are no transactions here that could be left open.
    pub(crate) async fn connection(&self) -> Result<Connection, Error> {
        let pool = self.0.get().ok_or(Error::NotConnected)?;
        Ok(Connection {
            connection: pool.acquire().await?,
            answered: false,
        })
    }

    /// Waits for the schema, then says from time to time whether Postgres answers.
    pub(crate) async fn keep(self, db: DbArgs, ctx: Context) -> anyhow::Result<()> {
        match db.wait_for_schema("api", &ctx.shutdown).await {
            Err(DbError::Stopped) => return Ok(()),
            there => there?,
        }
        let pool = pool(&db)?;
        self.0.get_or_init(|| pool);
        loop {
            ctx.health.set("postgres", self.look().await);
            tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), String> {
        let look = async {
            let mut db = self.connection().await?;
            tagtrail_postgres::ping(&mut db).await?;
            db.answered();
            Ok(())
        };
        match tokio::time::timeout(LOOK + ACQUIRE, look).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Unavailable(cause) | Error::Store(cause))) => Err(cause.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

fn pool(db: &DbArgs) -> Result<PgPool, DbError> {
    let options = db
        .options("api")?
        .options([("statement_timeout", STATEMENT)]);
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        // After a restart of Postgres every idle connection is dead. Trying those that were idle for a while costs busy
        // hours nothing, and spares whoever asks first a 503.
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > FRESH {
                    alive(connection).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options))
}

async fn alive(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match tokio::time::timeout(ACQUIRE / 2, connection.ping()).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
