//! Approvals and rejections of rollouts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_config::TriggerGlob;
use tagtrail_postgres::{rollout_is_live, rollout_json};
use tagtrail_proto::Rollout;
use time::OffsetDateTime;
use uuid::Uuid;

use super::acts::{self, Effect, NewAct};

/// A rollout that people must approve.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Waiting {
    pub(crate) rollout: Rollout,
    /// The number of people who must approve the images.
    pub(crate) needs: u16,
    /// Patterns over the names of the tokens that may approve; empty: all of role `approve`.
    pub(crate) by: Vec<String>,
    /// The time for which an approval counts, such as `24h`; null: without end.
    pub(crate) within: Option<String>,
    /// The approvals of the images since their last rejection, oldest first.
    pub(crate) given: Vec<Given>,
}

/// An approval.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Given {
    /// Name of the token, or `local` without tokens.
    pub(crate) actor: String,
    /// The reason, if one was given.
    pub(crate) reason: Option<String>,
    /// Time of the approval.
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) given_at: OffsetDateTime,
}

/// The setting `approvals` of a trigger, as the trigger service has written it.
#[derive(Debug, Deserialize)]
struct Settings {
    #[serde(default)]
    needs: u16,
    #[serde(default)]
    by: Vec<String>,
    within: Option<String>,
}

/// Returns the rollouts that wait for approvals, oldest first: of one trigger or of all.
pub(crate) async fn waiting(
    db: &mut PgConnection,
    trigger: Option<&str>,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "select ", rollout_json!("o"), " as rollout, t.gate_settings -> 'approvals' as settings,
             (select coalesce(jsonb_agg(jsonb_build_object('actor', a.actor, 'reason', a.reason, 'given_at', a.given_at) order by a.id), '[]')
              from approval a
              where a.trigger_id = t.id and a.set = image_set(o.images) and a.verdict = 'approved'
                and a.id > coalesce((
                    select max(r.id) from approval r
                    where r.trigger_id = a.trigger_id and r.set = a.set and r.verdict = 'rejected'), 0)) as given
         from rollout o join trigger t on t.id = o.trigger_id
         where ", rollout_is_live!("o"), " and o.state in ('held', 'awaiting_approval') and o.gates @> '[{\"gate\": \"approval\"}]'
           and t.gate_settings ? 'approvals' and t.configured and ($1::text is null or t.name = $1)
         order by o.created_at, o.id"
    ))
    .bind(trigger)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let Json(rollout) = row.try_get("rollout")?;
            let Json(settings): Json<Settings> = row.try_get("settings")?;
            let Json(given) = row.try_get("given")?;
            Ok(Waiting {
                rollout,
                needs: settings.needs,
                by: settings.by,
                within: settings.within,
                given,
            })
        })
        .collect()
}

/// The reason why a verdict is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    RolloutUnknown,
    /// The rollout has begun or ended.
    TooLate,
    /// The trigger needs no approvals.
    NotNeeded,
    /// The names of the tokens that may approve do not match.
    NotAnApprover(Vec<String>),
}

/// Records an approval or a rejection of the images of a rollout, with its act. The planner
/// evaluates the gates of the trigger next.
pub(crate) async fn give(
    db: &mut PgConnection,
    rollout: Uuid,
    verdict: &'static str,
    act: &NewAct<'_>,
) -> Result<Result<Effect, Refusal>, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(effect) = acts::seen(&mut tx, act).await? {
        return Ok(Ok(effect));
    }
    let row = sqlx::query(concat!(
        "select t.id, t.gate_settings -> 'approvals' as settings, ",
        rollout_is_live!("o"),
        " and o.attempts = 0 as waits
         from rollout o join trigger t on t.id = o.trigger_id where o.id = $1 for update of t"
    ))
    .bind(rollout)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else {
        return Ok(Err(Refusal::RolloutUnknown));
    };
    let settings: Option<Json<Settings>> = row.try_get("settings")?;
    let Some(Json(Settings { by, .. })) = settings else {
        return Ok(Err(Refusal::NotNeeded));
    };
    if !row.try_get("waits")? {
        return Ok(Err(Refusal::TooLate));
    }
    let matches = |pattern: &String| {
        let glob = TriggerGlob::try_from(pattern.clone());
        glob.is_ok_and(|glob| glob.matches(act.actor.name()))
    };
    if !by.is_empty() && !by.iter().any(matches) {
        return Ok(Err(Refusal::NotAnApprover(by)));
    }
    let trigger: i32 = row.try_get("id")?;
    let id = acts::record(&mut tx, act).await?;
    sqlx::query(
        "with touched as (update trigger set touched = true where id = $1)
         insert into approval (trigger_id, set, rollout_id, act_id, actor, verdict, reason)
         select $1, image_set(o.images), o.id, $3, $4, $5, $6 from rollout o where o.id = $2",
    )
    .bind(trigger)
    .bind(rollout)
    .bind(id)
    .bind(act.actor.name())
    .bind(verdict)
    .bind(act.reason)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Ok(Effect::Changed))
}

/// A rollout after a verdict.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) rollout: Rollout,
    /// True once the planner has evaluated the gates since the verdict.
    pub(crate) evaluated: bool,
    /// While paused the gates stay as they are.
    pub(crate) paused: bool,
}

/// Returns a rollout after a verdict about it.
pub(crate) async fn after(
    db: &mut PgConnection,
    rollout: Uuid,
) -> Result<Option<After>, sqlx::Error> {
    let row = sqlx::query(concat!(
        "select ",
        rollout_json!("o"),
        " as rollout, not t.touched as evaluated, t.state = 'paused' as paused
         from rollout o join trigger t on t.id = o.trigger_id where o.id = $1"
    ))
    .bind(rollout)
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let Json(rollout) = row.try_get("rollout")?;
        Ok(After {
            rollout,
            evaluated: row.try_get("evaluated")?,
            paused: row.try_get("paused")?,
        })
    })
    .transpose()
}
