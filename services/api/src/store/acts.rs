//! The record of acts of people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_history::instant::Instant;
use tagtrail_postgres::{Lock, row};
use tagtrail_proto::Name;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::http::guard::Actor;

/// An act of a person.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Act {
    /// 1, 2, 3 …, with gaps.
    pub(crate) id: u64,
    /// Time of the act.
    pub(crate) at: Instant,
    /// Name of the token, or `local` without tokens.
    pub(crate) actor: String,
    /// Role of the token; null without tokens.
    pub(crate) role: Option<String>,
    /// IP address of the client, or of the proxy before the api.
    pub(crate) address: Option<String>,
    /// The act: `pause`, `resume`, `retry`, …
    pub(crate) act: String,
    /// Name of the trigger, or the pattern of a hold.
    pub(crate) trigger: Option<String>,
    /// Id of the rollout.
    pub(crate) rollout: Option<String>,
    /// Id of the hold.
    pub(crate) hold: Option<u64>,
    /// The reason that the person gave.
    pub(crate) reason: Option<String>,
    /// The rest of the order.
    pub(crate) details: Value,
    /// `X-Request-Id` of the request, or an id that the api made.
    pub(crate) request_id: String,
}

/// An act to be recorded.
#[derive(Clone)]
pub(crate) struct NewAct<'a> {
    pub(crate) actor: &'a Actor,
    pub(crate) act: &'static str,
    /// Name of a trigger, or a pattern; none of an act that is about no trigger.
    pub(crate) trigger: Option<&'a str>,
    pub(crate) rollout: Option<Uuid>,
    pub(crate) hold: Option<i64>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) details: Value,
}

/// The effect of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The order changed something.
    Changed,
    /// There was nothing to do, or nothing to act on.
    Nothing,
    /// An order with the same idempotency key was carried out before.
    Repeated,
    /// The idempotency key belongs to another order.
    KeyReused,
}

/// Returns whether an order with this idempotency key was recorded in the last 24 h, and excludes
/// others with the same key until the end of the transaction.
pub(crate) async fn seen(
    tx: &mut PgConnection,
    act: &NewAct<'_>,
) -> Result<Option<Effect>, sqlx::Error> {
    let Some(key) = &act.actor.idempotency_key else {
        return Ok(None);
    };
    let name = act.actor.name();
    let lock = Lock::Act(Lock::number_of(&format!("{name} {key}")));
    lock.acquire_for_transaction(tx).await?;
    let same: Option<bool> = sqlx::query_scalar(
        "select act = $3 and trigger is not distinct from $4 and reason is not distinct from $5 and details = $6
             and ($7::uuid is null or rollout_id = $7)
         from act where actor = $1 and idempotency_key = $2 and at > now() - interval '24 hours'
         order by at desc limit 1",
    )
    .bind(name)
    .bind(key)
    .bind(act.act)
    .bind(act.trigger)
    .bind(act.reason)
    .bind(Json(&act.details))
    .bind(act.rollout)
    .fetch_optional(tx)
    .await?;
    Ok(same.map(|same| match same {
        true => Effect::Repeated,
        false => Effect::KeyReused,
    }))
}

/// Returns the act of an earlier order with the same idempotency key, and its hold.
pub(crate) async fn with_key(
    tx: &mut PgConnection,
    actor: &Actor,
) -> Result<Option<(i64, Option<i64>)>, sqlx::Error> {
    sqlx::query_as(
        "select id, hold_id from act where actor = $1 and idempotency_key = $2 order by at desc limit 1",
    )
    .bind(actor.name())
    .bind(actor.idempotency_key.as_deref())
    .fetch_optional(tx)
    .await
}

/// Records an act. Returns its id.
pub(crate) async fn record(tx: &mut PgConnection, act: &NewAct<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "insert into act (actor, role, address, act, trigger, rollout_id, hold_id, reason, details, request_id, idempotency_key)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning id",
    )
    .bind(act.actor.name())
    .bind(act.actor.role())
    .bind(act.actor.address().map(|address| address.to_string()))
    .bind(act.act)
    .bind(act.trigger)
    .bind(act.rollout)
    .bind(act.hold)
    .bind(act.reason)
    .bind(Json(&act.details))
    .bind(&act.actor.request_id)
    .bind(act.actor.idempotency_key.as_deref())
    .fetch_one(tx)
    .await
}

/// Records an act of a transaction of its own, unless its idempotency key was recorded before.
pub(crate) async fn once(db: &mut PgConnection, act: &NewAct<'_>) -> Result<Effect, sqlx::Error> {
    let mut tx = db.begin().await?;
    if let Some(repeated) = seen(&mut tx, act).await? {
        return Ok(repeated);
    }
    record(&mut tx, act).await?;
    tx.commit().await?;
    Ok(Effect::Changed)
}

/// Records an act that changed something, or whose idempotency key must be known later. Returns the
/// effect.
pub(crate) async fn record_effect(
    tx: &mut PgConnection,
    act: &NewAct<'_>,
    changed: bool,
) -> Result<Effect, sqlx::Error> {
    if changed || act.actor.idempotency_key.is_some() {
        record(tx, act).await?;
    }
    Ok(match changed {
        true => Effect::Changed,
        false => Effect::Nothing,
    })
}

/// An act that the api refused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Refused {
    /// Time of the refusal.
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(crate) at: OffsetDateTime,
    /// Name of the token.
    pub(crate) actor: String,
    /// The operation: `pause`, `resume`, `retry`, …
    pub(crate) act: String,
}

/// Returns the last refused act on each trigger, or on the one with this name.
pub(crate) async fn refused(
    db: &mut PgConnection,
    name: Option<&Name>,
) -> Result<BTreeMap<String, Refused>, sqlx::Error> {
    let rows = sqlx::query(
        "select t.name, f.at, f.actor, f.act from refused_act f join trigger t on t.id = f.trigger_id
         where t.name = coalesce($1, t.name)",
    )
    .bind(name.map(AsRef::as_ref))
    .fetch_all(db)
    .await?;
    let refused = |row: &PgRow| {
        let refused = Refused {
            at: row.try_get("at")?,
            actor: row.try_get("actor")?,
            act: row.try_get("act")?,
        };
        Ok((row.try_get("name")?, refused))
    };
    rows.iter().map(refused).collect()
}

/// Notes that an act on a trigger was refused, at most once a second for each trigger.
pub(crate) async fn refuse(
    db: &mut PgConnection,
    trigger: &Name,
    actor: &str,
    act: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into refused_act (trigger_id, actor, act)
         select id, $2, $3 from trigger where name = $1 and configured
         on conflict (trigger_id) do update set at = excluded.at, actor = excluded.actor, act = excluded.act
         where refused_act.at < excluded.at - interval '1 second'",
    )
    .bind(trigger.as_ref())
    .bind(actor)
    .bind(act)
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns whether a configured trigger carries the name of a token: its name is that name, or
/// begins with it and a hyphen.
pub(crate) async fn carries(db: &mut PgConnection, token: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from trigger where configured and (name = $1 or starts_with(name, $1 || '-')))",
    )
    .bind(token)
    .fetch_one(db)
    .await
}

/// Returns whether an act with this idempotency key was recorded in the last 24 h.
pub(crate) async fn has_key(
    db: &mut PgConnection,
    actor: &str,
    key: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from act where actor = $1 and idempotency_key = $2 and at > now() - interval '24 hours')",
    )
    .bind(actor)
    .bind(key)
    .fetch_one(db)
    .await
}

/// The acts to list.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// Only acts on this trigger, those on patterns that match it included.
    pub(crate) trigger: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) since: Option<OffsetDateTime>,
}

/// Returns acts, newest first. Key: the id.
pub(crate) async fn list(
    db: &mut PgConnection,
    filter: &Filter,
    after: Option<[i64; 1]>,
    limit: i64,
) -> Result<Vec<([i64; 1], Act)>, sqlx::Error> {
    let rows = sqlx::query(
        // Names and patterns consist of a-z, 0-9, - and *.
        "select id, at, actor, role, address, act, trigger, rollout_id, hold_id, reason, details, request_id
         from act
         where id < coalesce($1, 9223372036854775807)
           and ($2::text is null or trigger = $2
                -- Acts under an old name of the trigger, or under its present one.
                or trigger in (select o.name from trigger_name o join trigger t on t.id = o.trigger_id
                    where (t.name = $2 or t.id = (select trigger_id from trigger_name where name = $2))
                      and not exists (select from trigger n where n.name = o.name))
                or trigger = (select t.name from trigger_name o join trigger t on t.id = o.trigger_id where o.name = $2)
                or position('*' in trigger) > 0 and $2 ~ ('^' || replace(trigger, '*', '.*') || '$'))
           and ($3::text is null or actor = $3)
           and ($4::timestamptz is null or at >= $4)
         order by id desc limit $5",
    )
    .bind(after.map(|[id]| id))
    .bind(filter.trigger.as_deref())
    .bind(filter.actor.as_deref())
    .bind(filter.since)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get("id")?;
            let act = Act {
                id: row::unsigned(id),
                at: Instant(row.try_get("at")?),
                actor: row.try_get("actor")?,
                role: row.try_get("role")?,
                address: row.try_get("address")?,
                act: row.try_get("act")?,
                trigger: row.try_get("trigger")?,
                rollout: row
                    .try_get::<Option<Uuid>, _>("rollout_id")?
                    .map(|id| id.to_string()),
                hold: row.try_get::<Option<i64>, _>("hold_id")?.map(row::unsigned),
                reason: row.try_get("reason")?,
                details: row.try_get("details")?,
                request_id: row.try_get("request_id")?,
            };
            Ok(([id], act))
        })
        .collect()
}
