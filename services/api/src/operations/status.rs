//! `GET /v1/status`: how much there is, how fast it is recorded, and the parts that need a person.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::PgConnection;
use tagtrail_config::Role;
use tagtrail_history::activity::{self, PartitionEnd, Totals};
use tagtrail_history::instant::Instant;
use tagtrail_history::sources::{self, Activity};
use tagtrail_proto::Condition;
use time::{OffsetDateTime, UtcOffset};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::Parameters;
use crate::shared::Shared;
use crate::store;
use crate::store::rollouts::Numbers;
use crate::store::services::Process;
use crate::store::triggers::Trigger;

pub(crate) const STATUS: Operation = Operation {
    id: "status",
    method: Method::Get,
    path: "/v1/status",
    summary: "The state of the whole system: numbers of images and changes, the time from the receipt of a push to its record, the end of each partition, sources that have fallen silent, triggers by condition, rollouts, and the processes that run.",
    role: Role::Read,
    in_path: &[],
    query: &[],
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Status>),
    problems: &[],
    serve: |method| on(method, status),
};

/// The state of the whole system.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status {
    /// The time of the answer.
    pub(crate) at: Instant,
    pub(crate) totals: Totals,
    pub(crate) changes: ChangeNumbers,
    /// The last time at which an event was received, of all sources.
    pub(crate) last_event_at: Option<Instant>,
    /// The end of each partition.
    pub(crate) partitions: Vec<PartitionEnd>,
    /// The sources that have fallen silent.
    pub(crate) silent: Vec<Activity>,
    /// The numbers of configured triggers by condition; conditions of no trigger are left out.
    pub(crate) triggers: BTreeMap<String, u64>,
    pub(crate) rollouts: Numbers,
    /// The processes of the services with a database; the gateway has none.
    pub(crate) services: Vec<Process>,
    /// Bodies in QUARANTINE; null if NATS does not answer.
    pub(crate) quarantined: Option<u64>,
}

/// Changes, in numbers. They are counted about a second after they are recorded.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ChangeNumbers {
    /// Recorded today (UTC).
    pub(crate) today: u64,
    /// Usual from midnight to this time, by the seven days before. Null: the history is younger.
    pub(crate) usual_today: Option<u64>,
    /// Of seven days, those that an event should have reported.
    pub(crate) of_week: u64,
    /// Of these, those that only reconciling or a pull found.
    pub(crate) lost_of_week: u64,
}

/// A status, and the rows that its numbers are of.
pub(crate) struct Seen {
    pub(crate) status: Status,
    pub(crate) triggers: Vec<Trigger>,
    pub(crate) sources: Vec<Activity>,
}

async fn status(State(shared): State<Shared>, uri: Uri) -> Result<Json<Status>, Error> {
    Parameters::read(&uri, STATUS.query)?;
    let now = OffsetDateTime::now_utc();
    let seen = shared
        .database
        .ask_page(async |db| see(db, now).await)
        .await?;
    Ok(Json(Status {
        quarantined: shared.quarantine.count(),
        ..seen.status
    }))
}

/// Reads the state of the whole system.
pub(crate) async fn see(db: &mut PgConnection, now: OffsetDateTime) -> Result<Seen, sqlx::Error> {
    let totals = activity::totals(db).await?;
    let partitions = activity::partitions(db).await?;
    let sources = sources::activity(db, now).await?;
    let triggers = store::triggers::judged(db).await?;
    let midnight = now.to_offset(UtcOffset::UTC).truncate_to_day();
    let rollouts = store::rollouts::numbers(db, midnight).await?;
    let services = store::services::processes(db).await?;
    let mut by_condition = BTreeMap::new();
    for trigger in &triggers {
        *by_condition
            .entry(trigger.condition.as_str().to_owned())
            .or_default() += 1;
    }
    let last_event_at = sources.iter().filter_map(|one| one.last_event_at);
    let status = Status {
        at: Instant(now),
        totals,
        changes: changes(&sources),
        last_event_at: last_event_at.max_by_key(|last| last.0),
        partitions,
        silent: sources
            .iter()
            .filter(|one| one.silent_since.is_some())
            .cloned()
            .collect(),
        triggers: by_condition,
        rollouts,
        services,
        quarantined: None,
    };
    Ok(Seen {
        status,
        triggers,
        sources,
    })
}

fn changes(sources: &[Activity]) -> ChangeNumbers {
    let sum = |of: fn(&Activity) -> u64| sources.iter().map(of).sum::<u64>();
    let lost = sum(|one| one.lost);
    // A source that is younger adds nothing that was usual.
    let usual = sources.iter().filter_map(|one| one.usual_today);
    ChangeNumbers {
        today: sum(|one| one.today),
        usual_today: usual.reduce(|sum, one| sum + one),
        of_week: sum(|one| one.reported) + lost,
        lost_of_week: lost,
    }
}

impl Status {
    /// Returns the number of triggers in this condition.
    pub(crate) fn in_condition(&self, condition: Condition) -> u64 {
        self.triggers
            .get(condition.as_str())
            .copied()
            .unwrap_or_default()
    }
}
