//! The generations of a trigger, and the processes that act on it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};
use tagtrail_history::instant::Instant;
use tagtrail_postgres::row;

/// A generation of a trigger: its settings from a time on.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Generation {
    pub(crate) generation: u64,
    /// Where the settings came from: `file`, `folder` or `api`.
    pub(crate) door: String,
    /// The file that had the entry; null for the API.
    pub(crate) file: Option<String>,
    /// The settings as written. Texts that may hold a secret are left out. Null: the trigger was
    /// removed.
    pub(crate) spec: Option<Value>,
    /// Name of the token, `local`, or `configuration` for a file.
    pub(crate) actor: String,
    /// Time of the recording.
    pub(crate) changed_at: Instant,
}

/// A running process of the trigger service.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Process {
    /// The boot and the PID namespace in which `pid` has a meaning.
    pub(crate) machine: String,
    pub(crate) pid: i32,
    /// The last time at which the process noted that it runs: every ten seconds.
    pub(crate) seen_at: Instant,
    /// Whether the process has the newest generation. Otherwise it begins no attempt of the
    /// trigger.
    pub(crate) has_newest: bool,
    /// The generation that the process has; null for settings that are not recorded.
    pub(crate) generation: Option<u64>,
}

/// Returns generations of a trigger, newest first. Key: the generation.
pub(crate) async fn list(
    db: &mut PgConnection,
    trigger: i32,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], Generation)>, sqlx::Error> {
    let rows = sqlx::query(
        "select generation, door, nullif(file, '') as file, spec, actor, changed_at from trigger_spec
         where trigger_id = $1 and generation < coalesce($2, 9223372036854775807)
         order by generation desc limit $3",
    )
    .bind(trigger)
    .bind(after.map(|[generation]| generation))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let generation: i64 = row.try_get("generation")?;
            let one = Generation {
                generation: row::unsigned(generation),
                door: row.try_get("door")?,
                file: row.try_get("file")?,
                spec: row.try_get("spec")?,
                actor: row.try_get("actor")?,
                changed_at: Instant(row.try_get("changed_at")?),
            };
            Ok(([generation], one))
        })
        .collect()
}

/// Returns the processes of the trigger service that ran in the last minute.
pub(crate) async fn processes(
    db: &mut PgConnection,
    trigger: i32,
) -> Result<Vec<Process>, sqlx::Error> {
    let rows = sqlx::query(
        "select p.machine, p.pid, p.seen_at, not p.others ? t.name as has_newest,
                case when p.others ? t.name then (p.others ->> t.name)::bigint else t.generation end as generation
         from trigger t, trigger_process p
         where t.id = $1 and p.seen_at > now() - interval '1 minute' order by p.machine, p.pid limit 1000",
    )
    .bind(trigger)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Process {
                machine: row.try_get("machine")?,
                pid: row.try_get("pid")?,
                seen_at: Instant(row.try_get("seen_at")?),
                has_newest: row.try_get("has_newest")?,
                generation: row
                    .try_get::<Option<i64>, _>("generation")?
                    .map(row::unsigned),
            })
        })
        .collect()
}
