//! Sessions: direct connections that hold advisory locks, and that the server ends when their
//! holder falls silent.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{CONNECT, DbArgs, check_writable, connect};

impl DbArgs {
    /// Opens a session that may hold advisory locks, as the service `name`.
    ///
    /// The server ends the session after `silence` without a statement, and so releases its locks:
    /// a dead, paused or cut-off holder loses them without any clock or lease of ours. [`ping`] it
    /// every [`ping_interval`].
    ///
    /// # Errors
    /// [`sqlx::Error`] of the driver, a time-out of 5 s, or [`sqlx::Error::Configuration`] if a
    /// pooler has dropped these time-outs, or the server can only read.
    pub async fn session(
        &self,
        name: &str,
        silence: Duration,
    ) -> Result<PgConnection, sqlx::Error> {
        let milliseconds = silence.as_millis().to_string();
        let options = self
            .options(name)
            .map_err(|err| sqlx::Error::Configuration(Box::new(err)))?;
        let settings = [
            ("idle_session_timeout", milliseconds.as_str()),
            ("idle_in_transaction_session_timeout", &milliseconds),
            ("lock_timeout", "5000"),
            ("statement_timeout", "60000"),
        ];
        let mut db = connect(options, &settings).await?;
        within(CONNECT, Box::pin(check_writable(&mut db))).await?;
        Ok(db)
    }
}

/// Returns the longest time between two statements of a session that the server ends after
/// `silence`.
#[must_use]
pub fn ping_interval(silence: Duration) -> Duration {
    silence / 5
}

/// Keeps a session alive, and checks that it still is.
///
/// # Errors
/// [`sqlx::Error`] of the driver: the session is lost.
pub async fn ping(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("select 1").execute(db).await.map(|_| ())
}

/// Runs database work with a bound. A session that did not answer within `limit` counts as lost:
/// the server may still carry out the statement.
///
/// # Errors
/// The error of `work`; after `limit` an [`sqlx::Error::Io`] of the kind `TimedOut`.
pub async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let cause = format!("no answer in {limit:?}");
            let cause = std::io::Error::new(std::io::ErrorKind::TimedOut, cause);
            Err(E::from(sqlx::Error::Io(cause)))
        }
    }
}

/// Parses the setting after how many seconds of silence the server ends a session: from 1 to 600.
///
/// # Errors
/// A text for the user of the command line.
pub fn parse_silence(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=600) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of seconds from 1 to 600".to_owned()),
    }
}

/// Makes Postgres keep the plan of each statement of a session, or choose as by default. Planning a
/// long statement anew for its parameters may take longer than executing the statement.
///
/// # Errors
/// As the statement.
pub async fn keep_plans(db: &mut PgConnection, keep: bool) -> Result<(), sqlx::Error> {
    let mode = if keep { "force_generic_plan" } else { "auto" };
    sqlx::query("select set_config('plan_cache_mode', $1, false)")
        .bind(mode)
        .execute(db)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_without_an_answer_ends_with_a_time_out() {
        let never = std::future::pending::<Result<(), sqlx::Error>>();
        let error = within(Duration::from_millis(10), never).await.unwrap_err();
        assert!(error.to_string().contains("no answer in 10ms"), "{error}");
        let done = within(Duration::from_secs(1), async { Ok::<_, sqlx::Error>(1) }).await;
        assert_eq!(done.unwrap(), 1);
    }
}
