//! Connections whose settings are read back: a pooler between this program and Postgres may drop
//! the settings of a connection without a word.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Error, PgConnection, Row as _};

use crate::{CONNECT, within};

/// Oldest supported major version of Postgres.
const MINIMUM: u32 = 15;

/// Connects with these settings of the server, given as name and value in the unit of `pg_settings`
/// (milliseconds), and checks that the server has them.
///
/// # Errors
/// [`sqlx::Error`] of the driver, a time-out of 5 s, or [`Error::Configuration`] if a pooler has
/// dropped a setting.
pub async fn connect(
    options: PgConnectOptions,
    settings: &[(&str, &str)],
) -> Result<PgConnection, Error> {
    let connecting = async {
        let mut db = options.options(settings.iter().copied()).connect().await?;
        check_settings(&mut db, settings).await?;
        Ok(db)
    };
    within(CONNECT, Box::pin(connecting)).await
}

async fn check_settings(db: &mut PgConnection, settings: &[(&str, &str)]) -> Result<(), Error> {
    // Without a prepared statement, which a transaction pooler would refuse for another reason.
    let rows = sqlx::raw_sql("select name, setting from pg_settings where name like '%\\_timeout'")
        .fetch_all(db)
        .await?;
    for (name, wanted) in settings {
        let mut kept = false;
        for row in &rows {
            kept |= row.try_get::<&str, _>("name")? == *name
                && row.try_get::<&str, _>("setting")? == *wanted;
        }
        if !kept {
            return Err(unfit(format!(
                "a pooler between Tagtrail and Postgres drops the settings of a connection ({name} = {wanted} ms): name Postgres itself in DATABASE_URL"
            )));
        }
    }
    Ok(())
}

/// Fails if the connection can only read: its server is a standby, or its database is set so.
///
/// # Errors
/// [`sqlx::Error`] of the driver, or [`Error::Configuration`].
pub async fn check_writable(db: &mut PgConnection) -> Result<(), Error> {
    let read_only: String = sqlx::query_scalar("select current_setting('transaction_read_only')")
        .fetch_one(db)
        .await?;
    if read_only == "on" {
        return Err(unfit(
            "Postgres is read-only: it is a standby, or default_transaction_read_only is on; name the primary in DATABASE_URL, or switch that setting off".to_owned(),
        ));
    }
    Ok(())
}

/// Returns why the version of the server is too old, if it is.
///
/// # Errors
/// [`sqlx::Error`] of the driver.
pub async fn too_old(db: &mut PgConnection) -> Result<Option<String>, Error> {
    let rows = sqlx::raw_sql("select current_setting('server_version_num') as version")
        .fetch_one(db)
        .await?;
    let version = rows.try_get::<&str, _>("version")?.parse().unwrap_or(0);
    Ok(too_old_text(version))
}

fn too_old_text(version: u32) -> Option<String> {
    let (major, minor) = (version / 10_000, version % 10_000);
    (major < MINIMUM)
        .then(|| format!("Postgres {major}.{minor} is too old: Tagtrail needs {MINIMUM} or newer"))
}

fn unfit(text: String) -> Error {
    Error::Configuration(text.into())
}

#[cfg(test)]
mod tests {
    use super::too_old_text;

    #[test]
    fn postgres_before_15_is_too_old() {
        let text = too_old_text(140_023).unwrap();
        assert_eq!(
            text,
            "Postgres 14.23 is too old: Tagtrail needs 15 or newer"
        );
        assert_eq!(too_old_text(150_000), None);
        assert_eq!(too_old_text(180_006), None);
    }
}
