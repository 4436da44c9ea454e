//! The row in which a process states that it runs, and whether it is ready.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_daemon::Context;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{DbArgs, connect, within};

/// Time between two renewals. All processes renew at the multiples of this time: a page is made
/// again after any write, and is unchanged for the rest of the time.
pub const RENEWAL: Duration = Duration::from_secs(10);
/// Time between two looks whether the process became ready, or is no longer: pages show it at once.
const LOOK: Duration = Duration::from_secs(1);
/// Time after its last renewal from which on a process counts as gone.
pub const GONE: Duration = Duration::from_secs(35);
/// Time-out of a renewal.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest reason that is kept, in bytes.
const LONGEST: usize = 2000;

/// Renews the row of this process until a stop is requested, then deletes it. Without Postgres, or
/// before the schema is there, the row waits for the next renewal: nothing depends on it but the
/// pages about the services.
pub async fn presence(service: &'static str, db: DbArgs, ctx: Context) -> anyhow::Result<()> {
    let row = Row {
        service,
        // Neither pids nor names of machines are unique among containers.
        instance: format!("{}-{:x}", std::process::id(), nanoseconds()),
        machine: machine(),
    };
    let mut connection = None;
    while !ctx.shutdown.is_cancelled() {
        let ready = ctx.health.ready();
        if let Err(error) = row.renew(&db, &mut connection, &ctx).await {
            // Other parts of the process report that Postgres is away.
            tracing::debug!("could not renew the row of this process: {error}");
            connection = None;
        }
        let next = Instant::now() + to_renewal(OffsetDateTime::now_utc());
        // Without Postgres, a process that becomes ready and unready in turn waits as well.
        while Instant::now() < next && (connection.is_none() || ctx.health.ready() == ready) {
            tokio::select! {
                () = ctx.shutdown.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
    if let Some(mut db) = connection {
        let removed = within(TIMEOUT, row.remove(&mut db)).await;
        if let Err(error) = removed {
            tracing::debug!("could not delete the row of this process: {error}");
        }
    }
    Ok(())
}

struct Row {
    service: &'static str,
    instance: String,
    machine: String,
}

impl Row {
    async fn renew(
        &self,
        db: &DbArgs,
        connection: &mut Option<PgConnection>,
        ctx: &Context,
    ) -> Result<(), sqlx::Error> {
        let session = match connection {
            Some(session) => session,
            None => {
                let options = db.options("presence");
                let options = options.map_err(|error| sqlx::Error::Configuration(error.into()))?;
                connection.insert(connect(options, &[]).await?)
            }
        };
        within(TIMEOUT, Box::pin(self.write(session, ctx))).await
    }

    async fn write(&self, db: &mut PgConnection, ctx: &Context) -> Result<(), sqlx::Error> {
        let why = why(&ctx.health.parts());
        let mut tx = db.begin().await?;
        sqlx::query(
            "insert into service (service, instance, machine, pid, version, ready, why) values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (service, instance) do update set seen_at = now(), ready = excluded.ready, why = excluded.why",
        )
        .bind(self.service)
        .bind(&self.instance)
        .bind(&self.machine)
        .bind(i32::try_from(std::process::id()).unwrap_or_default())
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(ctx.health.ready())
        .bind(why)
        .execute(&mut *tx)
        .await?;
        // The rows of processes that were killed.
        sqlx::query(
            "delete from service where service = $1 and seen_at < now() - interval '1 day'",
        )
        .bind(self.service)
        .execute(&mut *tx)
        .await?;
        tx.commit().await
    }

    async fn remove(&self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("delete from service where service = $1 and instance = $2")
            .bind(self.service)
            .bind(&self.instance)
            .execute(db)
            .await
            .map(|_| ())
    }
}

/// Returns the time until the next multiple of [`RENEWAL`].
fn to_renewal(now: OffsetDateTime) -> Duration {
    let renewal = i128::try_from(RENEWAL.as_nanos()).unwrap_or(i128::MAX);
    let past = now.unix_timestamp_nanos().rem_euclid(renewal);
    RENEWAL - Duration::from_nanos(u64::try_from(past).unwrap_or_default())
}

/// Returns the parts that are not ready, each with the reason.
fn why(parts: &[(&'static str, Result<(), String>)]) -> Option<String> {
    let mut text = String::new();
    for (part, state) in parts {
        if let Err(reason) = state {
            let separator = if text.is_empty() { "" } else { "; " };
            text = format!("{text}{separator}{part}: {reason}");
        }
    }
    text.truncate(text.floor_char_boundary(LONGEST));
    // Postgres has no character 0 in texts.
    text.retain(|char| char != '\0');
    (!text.is_empty()).then_some(text)
}

/// Returns the name of this machine, or of the container.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let mut name = name.unwrap_or_default().trim().to_owned();
    name.truncate(name.floor_char_boundary(255));
    name
}

fn nanoseconds() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_processes_renew_at_the_same_times() {
        let at = |millis| to_renewal(OffsetDateTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(1_700_000_003_250), Duration::from_millis(6750));
        assert_eq!(at(1_700_000_000_000), RENEWAL);
    }

    #[test]
    fn the_reason_names_the_parts_that_are_not_ready() {
        let bad = |text: &str| Err(text.to_owned());
        let parts = [("nats", bad("gone")), ("postgres", Ok(())), ("x", bad("y"))];
        assert_eq!(why(&parts).as_deref(), Some("nats: gone; x: y"));
        assert_eq!(why(&[("postgres", Ok(()))]), None);
        let long = why(&[("x", Err("é".repeat(3000)))]).unwrap_or_default();
        assert!(long.len() <= LONGEST && long.len() > LONGEST - 4);
    }
}
