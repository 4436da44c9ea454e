//! The results of rollouts that receivers report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_postgres::rollout_is_live;
use uuid::Uuid;

use super::acts::{self, Effect, NewAct};

/// The result that a receiver reports: it still works, the images run, or they do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReportedState {
    Progressing,
    Succeeded,
    Failed,
}

impl ReportedState {
    /// Returns the word of the body.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            ReportedState::Progressing => "progressing",
            ReportedState::Succeeded => "succeeded",
            ReportedState::Failed => "failed",
        }
    }
}

/// A report to be recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewReport<'a> {
    /// Row id of the trigger.
    pub(crate) trigger: i32,
    pub(crate) rollout: Uuid,
    pub(crate) state: ReportedState,
    pub(crate) text: Option<&'a str>,
}

/// The effect of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// The report is recorded, and counts.
    Counts,
    /// A report since the last attempt has the same result, or a final one.
    Known,
    /// The rollout has ended.
    Ended,
    /// The target of the trigger does not wait for reports.
    NotAsked,
    /// The idempotency key belongs to another order.
    KeyReused,
}

/// Records a report, with its act. A repeated report of progress is recorded at most once a second,
/// without an act: it only says that the receiver still works.
pub(crate) async fn report(
    db: &mut PgConnection,
    new: &NewReport<'_>,
    act: &NewAct<'_>,
) -> Result<Reported, sqlx::Error> {
    let mut tx = db.begin().await?;
    match acts::seen(&mut tx, act).await? {
        Some(Effect::KeyReused) => return Ok(Reported::KeyReused),
        Some(_) => return Ok(Reported::Known),
        None => {}
    }
    // Two reports of one rollout are recorded one after the other.
    let reports: bool = sqlx::query_scalar("select reports from trigger where id = $1 for update")
        .bind(new.trigger)
        .fetch_one(&mut *tx)
        .await?;
    let row = sqlx::query(concat!(
        "select ", rollout_is_live!("o"), " as live, p.state, p.text, coalesce(p.reported_at > now() - interval '1 second', false) as fresh
         from rollout o
         left join lateral (
             select p.state, p.text, p.reported_at from rollout_report p
             where p.rollout_id = o.id and p.reported_at >= (
                 select a.started_at from rollout_attempt a where a.rollout_id = o.id order by a.number desc limit 1)
             order by p.id desc limit 1) p on true
         where o.id = $1"
    ))
    .bind(new.rollout)
    .fetch_one(&mut *tx)
    .await?;
    let last: Option<&str> = row.try_get("state")?;
    let same = last == Some(new.state.as_str());
    let progress = new.state == ReportedState::Progressing;
    let known = match last {
        None => false,
        Some("progressing") => progress && row.try_get("fresh")?,
        // A message that arrives late does not take a result back.
        Some(_) => progress || same && row.try_get::<Option<&str>, _>("text")? == new.text,
    };
    let effect = match () {
        () if !reports => Reported::NotAsked,
        () if !row.try_get("live")? => Reported::Ended,
        () if known => Reported::Known,
        () => Reported::Counts,
    };
    match effect {
        Reported::Counts => {
            let act_id = match same && progress {
                true if act.actor.idempotency_key.is_none() => None,
                _ => Some(acts::record(&mut tx, act).await?),
            };
            sqlx::query(
                "insert into rollout_report (rollout_id, act_id, state, text, actor) values ($1, $2, $3, $4, $5)",
            )
            .bind(new.rollout)
            .bind(act_id)
            .bind(new.state.as_str())
            .bind(new.text)
            .bind(act.actor.name())
            .execute(&mut *tx)
            .await?;
        }
        Reported::NotAsked => return Ok(effect),
        _ => drop(acts::record_effect(&mut tx, act, false).await?),
    }
    tx.commit().await?;
    Ok(effect)
}
