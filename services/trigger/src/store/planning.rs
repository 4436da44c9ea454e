//! The statements of the planner.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{PgConnection, Row as _};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{position, rollout_is_live, row};
use tagtrail_proto::{Cause, Image, Position, Push, RolloutImage, TraceContext, Waiting};
use time::OffsetDateTime;

use super::columns::{columns, recorded, unfinished};
use super::gates::Change;
use super::holds::{may_begin, no_hold};
use super::states::View;
use super::working::{Attempt, begun};
use crate::act::Owner;
use tagtrail_policy::begin::Verdict;
use tagtrail_policy::gates::{Head, ManifestState};

/// Begins a transaction in which all statements see one snapshot.
pub(crate) async fn begin(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("begin isolation level repeatable read")
        .execute(db)
        .await
        .map(|_| ())
}

/// Returns true if a transaction failed because another one changed a row since its snapshot.
pub(crate) fn was_overtaken(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "40001")
}

/// Commits the transaction of [`begin`].
pub(crate) async fn commit(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("commit").execute(db).await.map(|_| ())
}

/// Ends the transaction of [`begin`] without an effect.
pub(crate) async fn roll_back(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("rollback").execute(db).await.map(|_| ())
}

/// Returns the position up to which REVISIONS was read, `None` before the first plan.
pub(crate) async fn position(db: &mut PgConnection) -> Result<Option<Position>, sqlx::Error> {
    let row =
        sqlx::query("select stream_created_ns, applied_seq, applied_time_ns from planner_position")
            .fetch_optional(db)
            .await?;
    row.as_ref().map(position::of_row).transpose()
}

/// Returns whether orders wait, or the gates of a trigger are to be evaluated again: in one
/// statement, since most of the time nothing does.
pub(crate) async fn is_asked(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from trigger where configured and (state = 'resuming' or retry) or touched)
             or exists (select from rollout_order where done_at is null)",
    )
    .fetch_one(db)
    .await
}

/// A trigger with an order of a person that the planner has not carried out yet.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) id: i32,
    pub(crate) name: String,
    /// True if the trigger was resumed.
    pub(crate) resuming: bool,
    /// True if the next attempt is wanted now.
    pub(crate) retry: bool,
}

/// Returns the triggers with orders.
pub(crate) async fn ordered(db: &mut PgConnection) -> Result<Vec<Ordered>, sqlx::Error> {
    let rows = sqlx::query(
        "select id, name, state = 'resuming' as resuming, retry
         from trigger where configured and (state = 'resuming' or retry)",
    )
    .fetch_all(db)
    .await?;
    let ordered = |row: &PgRow| {
        Ok(Ordered {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            resuming: row.try_get("resuming")?,
            retry: row.try_get("retry")?,
        })
    };
    rows.iter().map(ordered).collect()
}

/// Carries out the orders to retry of these triggers: the next attempt of the newest rollout is
/// due, in the fast phase, also if the rollout had failed for good.
pub(crate) async fn retry(db: &mut PgConnection, triggers: &[i32]) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "with ordered as (
             update trigger set retry = false where id = any ($1) and retry returning id
         ), newest as (
             select n.* from ordered cross join lateral (
                 select o.id, o.state from rollout o where o.trigger_id = ordered.id and o.state not in ('superseded', 'rejected', 'cancelled')
                 order by o.number desc limit 1) n
             where n.state <> 'succeeded'
         ), due as (
             update rollout o set state = case when o.state in ('failed', 'watching') then 'running' else o.state end,
                 finished_at = null, ended = false, phase_attempts = 0, phase_ms = 0, next_attempt_at = now()
             from newest n where o.id = n.id returning o.*, n.state in ('failed', 'watching') as changed
         ), o as (
             select * from due where changed
         ) ",
        recorded!()
    ))
    .bind(triggers)
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns the heads of these images, without images that have none. One statement reads them all
/// from one snapshot.
pub(crate) async fn heads(
    db: &mut PgConnection,
    images: &[&Image],
) -> Result<BTreeMap<Image, Head>, sqlx::Error> {
    let rows = sqlx::query(
        "select r.registry, r.name as repository, t.name as tag,
             v.number, v.digest, p.origin::text as origin, v.recorded_at,
             p.occurred_at_source = 'event' and p.effective_at = p.occurred_at as own_time,
             exists (select from revision e where e.digest = v.digest and e.tag_id = v.tag_id and e.number < v.number) as held_before,
             (select max(c.received_at) from push c
              where c.tag_id = v.tag_id and c.effective_at >= p.effective_at and c.occurred_at >= p.effective_at
                and c.id > p.id and c.action = 'push'
                and c.digest = v.digest and c.origin in ('resolved', 'reconciled')) as confirmed_at,
             m.tombstone, missing.looked_at, missing.given_up
         from unnest($1::text[], $2::text[], $3::text[]) as w (registry, repository, tag)
         join repository r on r.registry = w.registry and r.name = w.repository
         join tag t on t.repository_id = r.id and t.name = w.tag
         join revision v on v.tag_id = t.id and v.number = t.head
         join push p on p.id = v.push_id
         left join manifest m on m.digest = v.digest
         left join missing_manifest missing
             on missing.digest = v.digest and missing.registry = r.registry and missing.repository = r.name",
    )
    .bind(
        images
            .iter()
            .map(|image| image.registry.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.repository.as_ref())
            .collect::<Vec<_>>(),
    )
    .bind(
        images
            .iter()
            .map(|image| image.tag.as_ref())
            .collect::<Vec<_>>(),
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let image = Image {
                registry: row::parsed(row.try_get("registry")?)?,
                repository: row::parsed(row.try_get("repository")?)?,
                tag: row::parsed(row.try_get("tag")?)?,
            };
            let digest = row::digest(row.try_get("digest")?)?;
            let head = Head {
                revision: row::unsigned(row.try_get("number")?),
                digest,
                origin: row::parsed(row.try_get("origin")?)?,
                own_time: row.try_get("own_time")?,
                held_before: row.try_get("held_before")?,
                confirmed_at: row.try_get("confirmed_at")?,
                manifest: manifest_state(row)?,
                recorded_at: row.try_get("recorded_at")?,
            };
            Ok((image, head))
        })
        .collect()
}

/// Returns the question whether the tag of an image has the digest of its head. The time is that of
/// the head, so that the answer takes effect after the head.
pub(crate) async fn question(
    db: &mut PgConnection,
    image: &Image,
) -> Result<Option<Push>, sqlx::Error> {
    let row = sqlx::query(
        "select v.number, v.effective_at, p.source
         from repository r join tag t on t.repository_id = r.id
         join revision v on v.tag_id = t.id and v.number = t.head
         join push p on p.id = v.push_id
         where r.registry = $1 and r.name = $2 and t.name = $3",
    )
    .bind(image.registry.as_ref())
    .bind(image.repository.as_ref())
    .bind(image.tag.as_ref())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let number = row::unsigned(row.try_get("number")?);
    let (head_at, source): (OffsetDateTime, String) =
        (row.try_get("effective_at")?, row.try_get("source")?);
    Ok(Some(Push::recheck(image, number, head_at, &source)))
}

fn manifest_state(row: &PgRow) -> Result<ManifestState, sqlx::Error> {
    Ok(match row.try_get("tombstone")? {
        Some(true) => ManifestState::Tombstone,
        Some(false) => ManifestState::Read,
        None => match row.try_get("looked_at")? {
            Some(looked_at) => ManifestState::Missing {
                looked_at,
                given_up: row.try_get("given_up")?,
            },
            None => ManifestState::Unread,
        },
    })
}

/// Records the closed gates of triggers, by the ids of the triggers.
pub(crate) async fn record_waiting(
    db: &mut PgConnection,
    waiting: &BTreeMap<i32, Vec<Waiting>>,
) -> Result<(), sqlx::Error> {
    let triggers: Vec<i32> = waiting.keys().copied().collect();
    let lists: Vec<_> = waiting.values().map(Json).collect();
    sqlx::query(
        "update trigger t set waiting = w.waiting
         from unnest($1::int[], $2::jsonb[]) as w (id, waiting) where t.id = w.id",
    )
    .bind(triggers)
    .bind(lists)
    .execute(db)
    .await
    .map(|_| ())
}

/// Records how the images of triggers look, by the ids of the triggers.
pub(crate) async fn record_views(
    db: &mut PgConnection,
    views: &BTreeMap<i32, View>,
) -> Result<(), sqlx::Error> {
    let triggers: Vec<i32> = views.keys().copied().collect();
    let wanted: Vec<_> = views
        .values()
        .map(|view| view.wanted.stored().map(Json))
        .collect();
    let reasons: Vec<_> = views.values().map(|view| Json(&view.reasons)).collect();
    sqlx::query(
        "update trigger t set wanted = v.wanted, reasons = v.reasons
         from unnest($1::int[], $2::jsonb[], $3::jsonb[]) as v (id, wanted, reasons) where t.id = v.id",
    )
    .bind(triggers)
    .bind(wanted)
    .bind(reasons)
    .execute(db)
    .await
    .map(|_| ())
}

/// Raises the issued numbers of triggers, given with their names, to these numbers, so that the
/// next rollouts get higher ones, and their epochs to these: a store that began anew while its
/// clock was behind must not have an earlier epoch. Returns the names of those of which one was
/// lower.
pub(crate) async fn raise_issued(
    db: &mut PgConnection,
    told: &BTreeMap<String, (u64, OffsetDateTime)>,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "update trigger t set issued = greatest(issued, w.number), epoch = greatest(t.epoch, w.epoch)
         from unnest($1::text[], $2::bigint[], $3::timestamptz[]) as w (name, number, epoch)
         where t.name = w.name and (t.issued < w.number or t.epoch < w.epoch) returning t.name",
    )
    .bind(told.keys().map(String::as_str).collect::<Vec<_>>())
    .bind(told.values().map(|(number, _)| row::signed(*number)).collect::<Vec<_>>())
    .bind(told.values().map(|(_, epoch)| *epoch).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// A rollout that the planner will record.
#[derive(Debug)]
pub(crate) struct NewRollout {
    /// The id and the name of the trigger.
    pub(crate) trigger: i32,
    pub(crate) name: String,
    pub(crate) images: BTreeMap<String, RolloutImage>,
    pub(crate) cause: Cause,
    pub(crate) trace: TraceContext,
    /// Whether the first attempt begins with the recording: a slot is taken for it.
    pub(crate) begin: bool,
    /// The order that the rollout carries out.
    pub(crate) order: Option<i64>,
    /// True if the set was chosen: it need not be that of the present heads.
    pub(crate) fixed: bool,
    /// The place that the target acts on, if the trigger has a target.
    pub(crate) identity: Option<String>,
    /// The verdict about the gates.
    pub(crate) verdict: Verdict,
}

/// A rollout as recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) rollout: Attempt,
    /// Whether the first attempt has begun.
    pub(crate) begun: bool,
}

/// The decisions of one round of planning.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The position in REVISIONS that led to the decisions.
    pub(crate) position: Option<Position>,
    /// At most one rollout for each trigger.
    pub(crate) new_rollouts: Vec<NewRollout>,
    /// Ids of resumed triggers that need no new rollout: their workers continue with recorded
    /// rollouts.
    pub(crate) resumed: Vec<i32>,
    /// The new verdicts about recorded rollouts, which [`record`] leaves out.
    pub(crate) gates: Vec<Change>,
}

impl Plan {
    /// Returns true if the plan holds nothing for [`record`].
    pub(crate) fn is_empty(&self) -> bool {
        self.position.is_none() && self.new_rollouts.is_empty() && self.resumed.is_empty()
    }
}

/// Records the whole plan in one transaction and returns the new rollouts. A new rollout supersedes
/// rollouts of its trigger that have not begun, and carries out the order that led to it. A trigger
/// that was paused since the decision gets no rollout.
///
/// The first attempt of a rollout begins in the same transaction if the plan says so and no attempt
/// of the trigger is open. Then the rollout supersedes all older ones that have not ended. A closed
/// gate holds the rollout. A rollout of adopted images has succeeded at once, without an attempt.
pub(crate) async fn record(
    db: &mut PgConnection,
    plan: &Plan,
    owner: &Owner,
) -> Result<Vec<Recorded>, sqlx::Error> {
    let new_rollouts = &plan.new_rollouts;
    let position = plan.position.as_ref();
    let verdicts = || new_rollouts.iter().map(|rollout| &rollout.verdict);
    let rows = sqlx::query(concat!(
        "with read_up_to as (
             insert into planner_position (stream_created_ns, applied_seq, applied_time_ns)
             select $1, $2, $3 where $2::bigint is not null
             on conflict (stream) do update
             set stream_created_ns = excluded.stream_created_ns, applied_seq = excluded.applied_seq, applied_time_ns = excluded.applied_time_ns
         ), resumed as (
             update trigger set state = 'active' where id = any ($4) and state = 'resuming'
         ), wanted as (
             select *, cause ->> 'reason' = 'adopted' as adopted
             from unnest($5::uuid[], $6::int[], $7::jsonb[], $8::jsonb[], $9::text[], $10::boolean[], $16::bigint[], $17::boolean[], $18::text[],
                     $19::text[], $20::jsonb[], $21::timestamptz[], $22::timestamptz[])
                 as w (id, trigger_id, images, cause, traceparent, begin, order_id, fixed, identity, state, gates, opens_at, closes_at)
         ), numbered as (
             update trigger t set issued = t.issued + 1, state = 'active' from wanted w
             where t.id = w.trigger_id and t.state <> 'paused' returning t.id, t.issued, t.epoch, t.group_name
         ), attempt as (
             insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started, group_name)
             select w.id, 1, g.id, $11, $12, $13, $14, g.group_name from numbered g join wanted w on w.trigger_id = g.id
             left join rollout_order r on r.id = w.order_id
             cross join lateral (select g.id as trigger_id, w.images, r.actor, w.closes_at, 0 as attempts) n
             where w.begin and ", may_begin!(), "
             -- An attempt of the trigger or of its group runs.
             on conflict do nothing
             returning rollout_id
         ), new as (
             insert into rollout (id, trigger_id, number, images, cause, traceparent, state, finished_at, attempts, started_at, actor, reason, skip, fixed, identity, epoch,
                 gates, opens_at, closes_at)
             select w.id, n.id, n.issued, w.images, w.cause, w.traceparent,
                 case when w.adopted then 'succeeded' when a.rollout_id is null then w.state::rollout_state else 'running' end,
                 case when w.adopted then now() end,
                 case when a.rollout_id is null then 0 else 1 end,
                 case when a.rollout_id is not null then clock_timestamp() end,
                 r.actor, r.reason, coalesce(r.skip, '{}'), w.fixed, w.identity, n.epoch,
                 w.gates, w.opens_at, w.closes_at
             from numbered n join wanted w on w.trigger_id = n.id left join attempt a on a.rollout_id = w.id
             left join rollout_order r on r.id = w.order_id
             returning *
         ), carried_out as (
             update rollout_order r set done_at = now(), recorded = w.id, answer = 'rollout ' || n.issued || ' is recorded'
             from numbered n join wanted w on w.trigger_id = n.id where r.id = w.order_id
         ), old as (
             update rollout o set state = 'superseded', finished_at = now()
             from new n where o.trigger_id = n.trigger_id and o.number < n.number
                 and (o.state in ('held', 'awaiting_approval', 'pending') or $15 and n.state = 'running' and ", rollout_is_live!("o"), ")
             returning o.*
         ), steps as (
             select 1 as step, o.id, o.trigger_id, o.number, o.state, o.attempts, o.images, o.cause, o.created_at, o.finished_at, o.error, o.gates, o.opens_at, o.epoch from old o
             union all
             select 2, n.id, n.trigger_id, n.number, case n.state when 'running' then 'pending' else n.state end, 0, n.images, n.cause,
                 n.created_at, n.finished_at, n.error, n.gates, n.opens_at, n.epoch from new n
             where n.state <> 'succeeded'
             union all
             select 3, n.id, n.trigger_id, n.number, n.state, n.attempts, n.images, n.cause, n.created_at, n.finished_at, n.error, n.gates, n.opens_at, n.epoch from new n
             where n.state in ('running', 'succeeded')
         ), o as (
             select * from steps order by number, step
         ), told as (
             ", recorded!(), ", o.step
         )
         select o.trigger_id, o.traceparent, o.state = 'running' as begun, ", unfinished!(), ", ", columns!(), " from new o join trigger t on t.id = o.trigger_id"
    ))
    .bind(position.and_then(|position| position.stream_created_ns))
    .bind(position.map(|position| row::signed(position.sequence)))
    .bind(position.and_then(|position| position.time_ns))
    .bind(&plan.resumed)
    .bind(new_rollouts.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| rollout.trigger).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| Json(&rollout.images)).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| Json(&rollout.cause)).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| rollout.trace.to_string()).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| rollout.begin).collect::<Vec<_>>())
    .bind(owner.instance)
    .bind(&owner.machine)
    .bind(owner.pid)
    .bind(owner.pid_started)
    .bind(!FailPoint::TriggerSupersede.skipped())
    .bind(new_rollouts.iter().map(|rollout| rollout.order).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| rollout.fixed).collect::<Vec<_>>())
    .bind(new_rollouts.iter().map(|rollout| rollout.identity.as_deref()).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.state.as_str()).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| Json(&verdict.gates)).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.opens_at).collect::<Vec<_>>())
    .bind(verdicts().map(|verdict| verdict.closes_at).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    let recorded = |row: &PgRow| {
        Ok(Recorded {
            rollout: begun(row)?,
            begun: row.try_get("begun")?,
        })
    };
    rows.iter().map(recorded).collect()
}

#[cfg(test)]
mod tests;
