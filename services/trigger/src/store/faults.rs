//! Faults: holds that follow from failed rollouts and from changes of selected tags.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use tagtrail_config::OnFailure;
use time::OffsetDateTime;

/// The actor of holds and orders that follow from settings of a trigger.
const ACTOR: &str = "tagtrail";
/// Most bytes of the reason of a hold.
const REASON: usize = 400;

/// Records the effect of a rollout that has failed, as the settings of its trigger say: nothing, a
/// fault, or an order to roll the last known set out with a pin. The caller has locked the row of
/// the trigger. The planner evaluates the gates of a held trigger again.
///
/// No roll-back follows if a person chose the set that failed, if another order waits, or if no
/// other set has succeeded before.
pub(crate) async fn after_failure(
    db: &mut PgConnection,
    rollout: &str,
    on_failure: OnFailure,
    error: &str,
) -> Result<(), sqlx::Error> {
    let error = &error[..error.floor_char_boundary(REASON)];
    let statement = match on_failure {
        OnFailure::Retry => return Ok(()),
        OnFailure::Hold => {
            "with fault as (
                 insert into hold (kind, triggers, reason, rollout_id, actor)
                 select 'fault', t.name, 'rollout ' || o.number || ' failed: ' || $3, o.id, $2
                 from rollout o join trigger t on t.id = o.trigger_id
                 where o.id = $1::uuid and o.state = 'failed' and not exists (
                     select from hold h where h.kind = 'fault' and h.rollout_id = o.id and h.released_at is null)
                 returning triggers)
             update trigger t set touched = true from fault f where t.name = f.triggers"
        }
        OnFailure::RollBack => {
            "with known as (
                 select o.trigger_id, t.name, k.images, 'rollout ' || o.number || ' failed: ' || $3 as reason
                 from rollout o join trigger t on t.id = o.trigger_id
                 cross join lateral (
                     select k.images from rollout k
                     where k.trigger_id = o.trigger_id and k.state = 'succeeded' and image_set(k.images) <> image_set(o.images)
                       and k.images ?& array(select jsonb_object_keys(o.images)) and o.images ?& array(select jsonb_object_keys(k.images))
                     order by k.number desc limit 1) k
                 where o.id = $1::uuid and o.state = 'failed' and not o.fixed
                   and not exists (select from rollout_order r where r.trigger_id = o.trigger_id and r.done_at is null)
             ), pin as (
                 insert into hold (kind, triggers, reason, images, actor)
                 select 'pin', name, reason, images, $2 from known
             )
             insert into rollout_order (trigger_id, kind, cause, images, actor, reason)
             select trigger_id, 'rollout', 'rollback', images, $2, reason from known"
        }
    };
    sqlx::query(statement)
        .bind(rollout)
        .bind(ACTOR)
        .bind(error)
        .execute(db)
        .await
        .map(|_| ())
}

/// A change of a selected tag that a person must look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TagFault {
    /// The id of the trigger.
    pub(crate) trigger: i32,
    /// Name of the image in the trigger.
    pub(crate) image: String,
    /// The change, for people.
    pub(crate) reason: String,
}

/// Records a fault for each of these changes that has none in force.
pub(crate) async fn record(db: &mut PgConnection, faults: &[TagFault]) -> Result<u64, sqlx::Error> {
    let recorded = sqlx::query(
        "with fault as (
             insert into hold (kind, triggers, reason, image, actor)
             select 'fault', t.name, f.reason, f.image, $4
             from unnest($1::int[], $2::text[], $3::text[]) as f (id, image, reason) join trigger t on t.id = f.id
             where not exists (
                 select from hold h where h.kind = 'fault' and h.triggers = t.name and h.image = f.image and h.released_at is null)
             returning triggers)
         update trigger t set touched = true from fault f where t.name = f.triggers",
    )
    .bind(faults.iter().map(|one| one.trigger).collect::<Vec<_>>())
    .bind(faults.iter().map(|one| one.image.as_str()).collect::<Vec<_>>())
    .bind(faults.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>())
    .bind(ACTOR)
    .execute(db)
    .await?;
    Ok(recorded.rows_affected())
}

/// Returns the images of these triggers, by the names of trigger and image, whose selection had a
/// fault that a person released.
pub(crate) async fn released(
    db: &mut PgConnection,
    triggers: &[&str],
) -> Result<BTreeSet<(String, String)>, sqlx::Error> {
    let images: Vec<(String, String)> = sqlx::query_as(
        "select t.name, s.name from trigger t join selection s on s.trigger_id = t.id
         where t.name = any ($1) and exists (
             select from hold h where h.kind = 'fault' and h.triggers = t.name and h.image = s.name
               and h.released_at is not null and h.created_at >= s.selected_at)",
    )
    .bind(triggers)
    .fetch_all(db)
    .await?;
    Ok(images.into_iter().collect())
}

/// Returns whether a person has released a fault of this trigger since a time.
/// Without a time: no.
pub(crate) async fn released_since(
    db: &mut PgConnection,
    trigger: &str,
    since: Option<OffsetDateTime>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from hold h where h.kind = 'fault' and h.triggers = $1 and h.released_at >= $2)",
    )
    .bind(trigger)
    .bind(since)
    .fetch_one(db)
    .await
}
