//! A small pool of connections to Postgres.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tagtrail_daemon::Context;
use tagtrail_postgres::{DbArgs, DbError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::http::error::Error;

/// Most connections. A question takes a fraction of a millisecond: with more connections,
/// requests would queue in Postgres instead of here.
const CONNECTIONS: usize = 8;
/// Most connections for large questions at once: half, so that a small question never waits for
/// their end.
const LARGE: usize = CONNECTIONS / 2;
/// Most answers at once that are sent while they are read: they keep their connection for as long
/// as the client takes.
const DOWNLOADS: usize = 2;
/// Time to acquire a connection, and before it the place of a large question.
const ACQUIRE: Duration = Duration::from_secs(2);
/// Settings of each connection: the time-out of a statement, in milliseconds.
const SETTINGS: [(&str, &str); 1] = [("statement_timeout", "5000")];
/// A connection for sets of questions keeps the plan of a statement: Postgres would plan a set anew
/// for its number of questions, which takes longer than to answer it. Without this setting, which a
/// pooler may drop, the answers are the same.
const KEEPS_PLANS: (&str, &str) = ("plan_cache_mode", "force_generic_plan");
/// Compiling a statement takes longer than to run it. Where a pooler drops this, answers are only
/// slower.
const INTERPRETS: (&str, &str) = ("jit", "off");
/// The same time-out.
const STATEMENT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is probed before use.
const FRESH: Duration = Duration::from_secs(1);
/// Time between two probes of Postgres, and time-out of a probe.
const PROBE: Duration = Duration::from_secs(2);

/// The connections to Postgres. Until the server and the schema are there, there are none.
///
/// The pool of sqlx is not used. sqlx pings each connection on return, which is a third of the cost
/// of a small question, and waits for the answer without a time-out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database(Arc<OnceLock<Pool>>);

#[derive(Debug)]
struct Pool {
    permits: Arc<Semaphore>,
    /// Places of large questions.
    large: Arc<Semaphore>,
    /// Places of downloads.
    downloads: Semaphore,
    /// Places of cancelled large questions, each with the time of the cancellation.
    cancelled: Mutex<Vec<(OwnedSemaphorePermit, Instant)>>,
    /// Unused connections for single questions.
    idle: Idle,
    /// Unused connections for sets of questions.
    idle_of_sets: Idle,
}

/// Unused connections, each with the time of the last use, and the options of new ones.
#[derive(Debug)]
struct Idle {
    options: PgConnectOptions,
    connections: Mutex<Vec<(PgConnection, Instant)>>,
}

/// A connection in use, which holds a permit of the pool. Only [`Connection::keep`] returns the
/// connection to the pool; a drop closes the connection.
#[derive(Debug)]
struct Connection {
    connection: PgConnection,
    permit: OwnedSemaphorePermit,
}

/// The place of a large question. A request that is cancelled, because the client is gone, leaves
/// its statement running in Postgres: the place is free again after the time-out of the statement.
/// Otherwise clients that hang up could start any number of statements.
struct Place<'a> {
    pool: &'a Pool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            locked(&self.pool.cancelled).push((permit, Instant::now()));
        }
    }
}

impl Idle {
    fn with(options: PgConnectOptions) -> Idle {
        Idle {
            options,
            connections: Mutex::default(),
        }
    }

    /// Returns the connection that was used last, or a new one.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        loop {
            let last = locked(&self.connections).pop();
            let Some((mut connection, since)) = last else {
                return tagtrail_postgres::connect(self.options.clone(), &SETTINGS).await;
            };
            // After a restart of Postgres every idle connection is dead. Probing connections that
            // were idle for a while costs nothing in busy hours, and the first client gets no 503.
            if since.elapsed() < FRESH || alive(&mut connection).await.is_ok() {
                return Ok(connection);
            }
        }
    }
}

impl Connection {
    /// Returns the connection to the unused ones.
    fn keep(self, idle: &Idle) {
        locked(&idle.connections).push((self.connection, Instant::now()));
        drop(self.permit);
    }
}

impl Pool {
    /// Waits for the place of a large question.
    async fn place(&self) -> Result<Place<'_>, Error> {
        let permit = Arc::clone(&self.large).acquire_owned();
        match tokio::time::timeout(ACQUIRE, permit).await {
            Ok(Ok(permit)) => Ok(Place {
                pool: self,
                permit: Some(permit),
            }),
            _ => Err(Error::TooManyQuestions),
        }
    }

    /// Frees the places of cancelled questions whose statement has reached its time-out.
    fn free_cancelled(&self) {
        locked(&self.cancelled).retain(|(_, since)| since.elapsed() < STATEMENT);
    }

    async fn ask<T>(
        &self,
        idle: &Idle,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let mut connection = tokio::time::timeout(ACQUIRE, self.acquire(idle))
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        let answer = question(&mut connection.connection).await?;
        // A refused order drops its transaction. The driver sends the rollback with the next
        // statement only, and an unused connection may have none for long: until then the locks of
        // the transaction would hold up the planner.
        if connection.connection.should_flush() && alive(&mut connection.connection).await.is_err()
        {
            return Ok(answer);
        }
        connection.keep(idle);
        Ok(answer)
    }

    /// Waits for a permit, then for a connection.
    async fn acquire(&self, idle: &Idle) -> Result<Connection, sqlx::Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        Ok(Connection {
            permit: permit.map_err(|_| sqlx::Error::PoolClosed)?,
            connection: idle.connect().await?,
        })
    }
}

impl Database {
    /// As [`Database::ask`], for a question whose cost grows with history: a list, a report, or
    /// revisions by their time of recording. Only [`LARGE`] of them run at once, the others wait.
    pub(crate) async fn ask_large<T>(
        &self,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let mut place = self.0.get().ok_or(Error::NotConnected)?.place().await?;
        let answer = self.ask(question).await;
        drop(place.permit.take());
        answer
    }

    /// Asks the questions of a page on one snapshot, so that a page can't contradict itself. Pages
    /// take the places of large questions: people never take the last connections from programs.
    pub(crate) async fn ask_page<T>(
        &self,
        questions: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        self.ask_large(async |db| {
            db.execute("begin isolation level repeatable read read only")
                .await?;
            let answer = questions(&mut *db).await?;
            db.execute("commit").await?;
            Ok(answer)
        })
        .await
    }

    /// As [`Database::ask_page`], for an answer that is sent while it is read. Only [`DOWNLOADS`]
    /// of them run at once, so that pages and lists do not wait for their clients.
    pub(crate) async fn ask_download<T>(
        &self,
        questions: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let pool = self.0.get().ok_or(Error::NotConnected)?;
        let place = tokio::time::timeout(ACQUIRE, pool.downloads.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(Error::TooManyQuestions);
        };
        self.ask_page(questions).await
    }

    /// Lends a connection to `question`: a statement or two, never a transaction.
    ///
    /// The connection is kept for the next question only if `question` succeeds. After an error the
    /// connection may be cut, and after a cancelled request (the client is gone) a statement may
    /// still be running: then the connection is closed.
    pub(crate) async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let pool = self.0.get().ok_or(Error::NotConnected)?;
        pool.ask(&pool.idle, question).await
    }

    /// As [`Database::ask`], for a statement that answers a set of questions, each by its key.
    pub(crate) async fn ask_set<T>(
        &self,
        questions: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let pool = self.0.get().ok_or(Error::NotConnected)?;
        pool.ask(&pool.idle_of_sets, questions).await
    }

    /// Waits for the schema, then probes Postgres from time to time and reports the health.
    pub(crate) async fn keep(self, db: DbArgs, ctx: Context) -> anyhow::Result<()> {
        let waiting = db.wait_for_schema("api", Some(&ctx.health), &ctx.shutdown);
        match waiting.await {
            Err(DbError::Stopped) => return Ok(()),
            there => there?,
        }
        let pool = pool(&db)?;
        self.0.get_or_init(|| pool);
        loop {
            if let Some(pool) = self.0.get() {
                pool.free_cancelled();
            }
            ctx.health.set("postgres", self.probe().await);
            tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(PROBE) => {}
            }
        }
    }

    async fn probe(&self) -> Result<(), String> {
        let ping = self.ask(async |db| tagtrail_postgres::ping(db).await);
        match tokio::time::timeout(PROBE + ACQUIRE, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::Unavailable(cause) | Error::Store(cause))) => Err(cause.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

fn pool(db: &DbArgs) -> Result<Pool, DbError> {
    let options = db.options("api")?.options([INTERPRETS]);
    Ok(Pool {
        permits: Arc::new(Semaphore::new(CONNECTIONS)),
        large: Arc::new(Semaphore::new(LARGE)),
        downloads: Semaphore::new(DOWNLOADS),
        cancelled: Mutex::default(),
        idle: Idle::with(options.clone()),
        idle_of_sets: Idle::with(options.options([KEEPS_PLANS])),
    })
}

/// Locks a mutex. No code panics while holding one.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn alive(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match tokio::time::timeout(ACQUIRE / 2, connection.ping()).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}
