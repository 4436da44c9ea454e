//! The processes that run, by the rows that they renew.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{PgConnection, Row as _};
use tagtrail_history::instant::Instant;
use tagtrail_postgres::presence::GONE;

/// Most processes that are read.
const MOST: i64 = 200;

/// A process of a service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ServiceProcess")]
pub(crate) struct Process {
    /// `indexer`, `resolver`, `trigger` or `api`.
    pub(crate) service: String,
    /// The machine or container that it runs on.
    pub(crate) machine: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) started_at: Instant,
    /// The time of its last sign of life, which it repeats every 10 s.
    pub(crate) seen_at: Instant,
    /// Whether it gave a sign of life in the last 35 s.
    pub(crate) present: bool,
    /// Whether all parts that its work needs were usable then.
    pub(crate) ready: bool,
    /// The parts that were not, each with the reason.
    pub(crate) why: Option<String>,
}

/// Returns the processes of the last day, by service. Of processes that were killed, only those of
/// services without another process are returned.
pub(crate) async fn processes(db: &mut PgConnection) -> Result<Vec<Process>, sqlx::Error> {
    let rows = sqlx::query(
        "with p as (
             select *, seen_at > now() - $1 * interval '1 second' as present
             from service where seen_at > now() - interval '1 day')
         select service, machine, pid, version, started_at, seen_at, present, ready, why from p
         where present or not exists (select from p other where other.service = p.service and other.present)
         order by service, started_at desc limit $2",
    )
    .bind(GONE.as_secs_f64())
    .bind(MOST)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Process {
                service: row.try_get("service")?,
                machine: row.try_get("machine")?,
                pid: u32::try_from(row.try_get::<i32, _>("pid")?).unwrap_or_default(),
                version: row.try_get("version")?,
                started_at: Instant(row.try_get("started_at")?),
                seen_at: Instant(row.try_get("seen_at")?),
                present: row.try_get("present")?,
                ready: row.try_get("ready")?,
                why: row.try_get("why")?,
            })
        })
        .collect()
}
