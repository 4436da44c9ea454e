//! The statements about changes of targets by others.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::columns::columns;
use super::holds::in_force;
use super::working::{Attempt, attempt};

/// Most repairs of a trigger in ten minutes: two managers that repair each other must not go on for
/// ever.
const REPAIRS: i64 = 3;

/// Returns the last rollout of each of these triggers that has succeeded and that no hold and no
/// newer rollout stands against. The triggers are given with the places of their targets: a target
/// tells nothing about a rollout that another one took.
pub(crate) async fn succeeded(
    db: &mut PgConnection,
    triggers: &[(&str, String)],
) -> Result<Vec<Attempt>, sqlx::Error> {
    let names: Vec<&str> = triggers.iter().map(|(name, _)| *name).collect();
    let identities: Vec<&str> = triggers
        .iter()
        .map(|(_, identity)| identity.as_str())
        .collect();
    let rows = sqlx::query(concat!(
        "select o.trigger_id, o.traceparent, coalesce(o.places, '{}') as places, ",
        columns!(),
        " from unnest($1::text[], $2::text[]) as w (name, identity) join trigger t on t.name = w.name
          cross join lateral (select * from rollout n where n.trigger_id = t.id order by n.number desc limit 1) o
          where t.configured and t.state = 'active' and o.state = 'succeeded' and o.attempts > 0 and not o.cut_off
              and coalesce(o.identity, w.identity) = w.identity
              and not exists (select from hold h where h.kind = 'fault' and ",
        in_force!("t"),
        ")"
    ))
    .bind(names)
    .bind(identities)
    .fetch_all(db)
    .await?;
    let of_row = |row: &PgRow| {
        Ok(Attempt {
            places: row.try_get("places")?,
            ..attempt(row)?
        })
    };
    rows.iter().map(of_row).collect()
}

/// Makes the next look at the last rollout of each of these triggers due, if its target took it and
/// the result is not known yet. Looks at a step of `verify` keep their times. Returns whether one
/// is due.
pub(crate) async fn look_now(
    db: &mut PgConnection,
    triggers: &[&str],
) -> Result<bool, sqlx::Error> {
    let due = sqlx::query(
        "update rollout o set observe_at = now() from trigger t
         where t.name = any ($1) and t.configured and o.trigger_id = t.id and o.state in ('watching', 'failed') and not o.ended
             and o.stage = 0 and o.observe_at > now()",
    )
    .bind(triggers)
    .execute(db)
    .await?;
    Ok(due.rows_affected() > 0)
}

/// The effect of a change by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The rollout is no longer the last one, or the change is known.
    Nothing,
    /// The trigger is held.
    Held,
    /// The images are rolled out again.
    Repaired,
}

/// Records that somebody else has changed the target after this rollout: as a fault, or with
/// `repairs` as a need to roll the images out again, up to three times in ten minutes.
///
/// The planner sends the images again: at once, or when a person releases the trigger.
pub(crate) async fn record(
    db: &mut PgConnection,
    rollout: &str,
    text: &str,
    repairs: bool,
) -> Result<Effect, sqlx::Error> {
    let row = sqlx::query(
        "with last as (
             select o.id, o.trigger_id, t.name,
                 $3 and $4 > (select count(*) from rollout p where p.trigger_id = o.trigger_id and p.cut_off and p.state = 'succeeded'
                     and p.finished_at > now() - interval '10 minutes') as repaired
             from rollout o join trigger t on t.id = o.trigger_id
             where o.id = $1::uuid and o.state = 'succeeded' and not o.cut_off and t.configured
                 and not exists (select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number)
             for update of t
         ), fault as (
             insert into hold (kind, triggers, reason, rollout_id, actor)
             select 'fault', name, $2, id, 'tagtrail' from last where not repaired
         ), again as (
             update rollout r set cut_off = true from last where r.id = last.id
         )
         update trigger t set touched = true from last where t.id = last.trigger_id returning last.repaired",
    )
    .bind(rollout)
    .bind(text)
    .bind(repairs)
    .bind(REPAIRS)
    .fetch_optional(db)
    .await?;
    Ok(match row {
        None => Effect::Nothing,
        Some(row) if row.try_get("repaired")? => Effect::Repaired,
        Some(_) => Effect::Held,
    })
}
