//! The checks of the gates that people and clocks open, and of results that come later.

use sqlx::PgConnection;

use crate::checks::scalar;
use crate::teams::VERIFIED;
use crate::world::World;

/// The passes in a row that the step of the trigger with `verify` needs.
const PASSES: i64 = 2;

/// Breaches of gates, each with the SQL that counts them. `known` is the SQL of a rollout `o` that
/// a person ordered, of images that had succeeded before the attempt `a`: such an order passes
/// window and approval.
macro_rules! breaches {
    ($known:literal) => {
        [
            (
                "attempts began outside of the window",
                concat!(
                    "select count(*) from rollout_attempt a join rollout o on o.id = a.rollout_id join trigger t on t.id = a.trigger_id
                     where t.name = 't-window' and not ", $known, "
                       and extract(minute from a.started_at)::int % 2 <> split_part(t.gate_settings #>> '{window,open,0,cron}', '-', 1)::int"
                ),
            ),
            (
                "rollouts began less than `gap` after the one before",
                "with begun as (
                     select o.id, o.actor, min(a.started_at) as at from rollout_attempt a join rollout o on o.id = a.rollout_id
                     join trigger t on t.id = a.trigger_id where t.name = 't-spaced' group by o.id)
                 select count(*) from begun b join begun before on before.at < b.at
                 where b.actor is null and b.at < before.at + interval '3 s'",
            ),
            (
                "attempts of the triggers of a group ran at once",
                "select count(*) from rollout_attempt a join trigger t on t.id = a.trigger_id and t.name = 't-turn-a'
                 join trigger s on s.name = 't-turn-b' join rollout_attempt b on b.trigger_id = s.id
                 where a.started_at < coalesce(b.finished_at, 'infinity') and b.started_at < coalesce(a.finished_at, 'infinity')",
            ),
            (
                "rollouts began while another one of their group was not over",
                "select count(*) from rollout o join trigger t on t.id = o.trigger_id join rollout_attempt a on a.rollout_id = o.id and a.number = 1
                 join trigger s on s.name like 't-turn-%' and s.id <> t.id join rollout other on other.trigger_id = s.id
                 where t.name like 't-turn-%' and other.started_at < a.started_at
                   and coalesce(other.finished_at, 'infinity') > a.started_at",
            ),
            (
                "rollouts began without an approval of their images",
                concat!(
                    "select count(*) from rollout_attempt a join rollout o on o.id = a.rollout_id join trigger t on t.id = a.trigger_id
                     where t.name in ('t-approved', 't-unapproved', 't-rejected') and a.number = 1 and not ", $known, "
                       and not exists (
                           select from approval p where p.trigger_id = t.id and p.set = image_set(o.images) and p.verdict = 'approved'
                             and p.given_at <= a.started_at and not exists (
                                 select from approval r where r.trigger_id = t.id and r.set = p.set and r.verdict = 'rejected'
                                   and r.id > p.id and r.given_at <= a.started_at))"
                ),
            ),
            (
                "attempts began of rollouts that had been rejected",
                "select count(*) from rollout_attempt a join approval r on r.rollout_id = a.rollout_id and r.verdict = 'rejected'",
            ),
            (
                "rollouts are not rejected though a person rejected them",
                "select count(*) from approval r join rollout o on o.id = r.rollout_id
                 where r.verdict = 'rejected' and o.state not in ('rejected', 'superseded', 'cancelled')",
            ),
            (
                "rollouts succeeded whose result nobody had waited for",
                "select count(*) from rollout o join trigger t on t.id = o.trigger_id
                 where t.name in ('t-verified', 't-checked', 't-reported') and o.state = 'succeeded'
                   and not exists (select from rollout_change c where c.rollout_id = o.id and c.state in ('watching', 'failed'))",
            ),
            (
                "rollouts succeeded without a report",
                "select count(*) from rollout o join trigger t on t.id = o.trigger_id
                 where t.name in ('t-reported', 't-unreported') and o.state = 'succeeded'
                   and not exists (select from rollout_report p where p.rollout_id = o.id and p.state = 'succeeded')",
            ),
            (
                "looks do not end",
                "select count(*) from rollout_look where began_at < now() - interval '45 s'",
            ),
        ]
    };
}

/// Runs all checks.
pub(crate) async fn all(world: &World, db: &mut PgConnection) -> Result<(), String> {
    let breaches = breaches!(
        "(o.actor is not null and exists (
              select from rollout k where k.trigger_id = o.trigger_id and k.state = 'succeeded' and k.finished_at < a.started_at
                and image_set(k.images) = image_set(o.images)))"
    );
    for (breach, sql) in breaches {
        let count = scalar(db, sql).await?;
        if count > 0 {
            return Err(format!("{count} {breach}"));
        }
    }
    let waiting = scalar(
        db,
        "select count(*) from rollout o join trigger t on t.id = o.trigger_id
         where o.state = 'awaiting_approval' and t.name = 't-unapproved' and jsonb_path_exists(o.gates, '$[*] ? (@.gate == \"approval\")')",
    );
    if waiting.await? != 1 {
        return Err("the gate of the trigger without an approval is not shown".to_owned());
    }
    let window = scalar(
        db,
        "select count(*) from rollout o join trigger t on t.id = o.trigger_id
         where t.name = 't-window' and o.number = (select max(n.number) from rollout n where n.trigger_id = t.id)
           and (o.state = 'succeeded' or o.state = 'held' and jsonb_path_exists(o.gates, '$[*] ? (@.gate == \"window\")'))",
    );
    if window.await? != 1 {
        return Err("the trigger with a window is neither at its images nor held".to_owned());
    }
    passes_are_enough(world, db).await
}

/// Checks that the address of `verify` passed as often as the rollouts that succeeded need.
async fn passes_are_enough(world: &World, db: &mut PgConnection) -> Result<(), String> {
    let succeeded = scalar(
        db,
        "select count(*) from rollout o join trigger t on t.id = o.trigger_id where t.name = 't-verified' and o.state = 'succeeded'",
    )
    .await?;
    let deliveries = world.health.deliveries();
    let passed = deliveries.iter().filter(|one| one.answered == 200).count();
    let passed = i64::try_from(passed).unwrap();
    match passed >= PASSES * succeeded {
        true => Ok(()),
        false => Err(format!(
            "{succeeded} rollouts of {VERIFIED} succeeded, and its address passed {passed} times"
        )),
    }
}
