//! The statements about the triggers as they are configured.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use sqlx::{Connection as _, PgConnection, Row as _};
use tagtrail_config::{Start, Watched};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{rollout_is_live, row};

use crate::config::TriggerSpec;
use crate::settings::Settings;

use super::columns::recorded;
use super::generations;
use super::renames;
pub(crate) use super::renames::{NotRenamed, Renamed};
use super::working::interval;

/// The actor of changes that follow from the files.
const CONFIGURATION: &str = "configuration";

/// Writes the configured triggers into the table `trigger`, with the mistakes in their entries. The
/// last rollout of a changed trigger is attempted at once. A new trigger may begin paused. The row
/// of a trigger whose entry can't be read keeps images and target. A trigger that comes back under
/// another name goes on, and one that is no longer configured keeps its row and its history.
pub(crate) async fn configure(
    db: &mut PgConnection,
    settings: &Settings,
) -> Result<Configured, sqlx::Error> {
    let mut tx = db.begin().await?;
    let (renamed, not_renamed) = renames::rename(&mut tx, settings).await?;
    write(&mut tx, settings).await?;
    write_gates(&mut tx, settings).await?;
    identify(&mut tx, settings).await?;
    describe_results(&mut tx, settings).await?;
    let removed = remove(&mut tx, settings).await?;
    generations::record(&mut tx, settings).await?;
    tx.commit().await?;
    Ok(Configured {
        renamed,
        not_renamed,
        removed,
    })
}

/// Returns the names of the triggers in the files, broken ones included.
pub(super) fn names(settings: &Settings) -> Vec<&str> {
    let names = settings.triggers.keys().chain(settings.problems.keys());
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    names.into_iter().collect()
}

/// The effects of the configuration on earlier triggers.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) renamed: Vec<Renamed>,
    pub(crate) not_renamed: Vec<NotRenamed>,
    /// The rollouts that the removal of their triggers cancelled.
    pub(crate) removed: Vec<Removed>,
}

/// A rollout that the removal of its trigger cancelled.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) trigger: String,
    /// The number of the rollout.
    pub(crate) number: u64,
    /// The reason, for people.
    pub(crate) why: String,
}

/// Takes note of the triggers that are no longer in the files, and of those whose objects have no
/// annotations that count: their rollouts that have not ended are cancelled, and open orders are
/// answered. History, holds and pause stay. While a file can't be read, no trigger of a file counts
/// as removed.
async fn remove(db: &mut PgConnection, settings: &Settings) -> Result<Vec<Removed>, sqlx::Error> {
    sqlx::query(
        "update trigger set configured = false, retry = false, touched = false, waiting = '[]'
         where configured and name <> all ($1) and ($2 or door in ('api', 'kubernetes'))",
    )
    .bind(names(settings))
    .bind(settings.whole)
    .execute(&mut *db)
    .await?;
    // Also the rollouts of triggers that an earlier version has left live.
    let rows = sqlx::query(concat!(
        "with gone as (
             select t.id, case when t.configured then 'the annotations of its objects have no effect' else 'the trigger was removed' end as why
             from trigger t
             where (not t.configured or t.door = 'kubernetes' and t.spec_hash is null) and (
                 exists (select from rollout o where o.trigger_id = t.id and ", rollout_is_live!("o"), ")
                 or exists (select from rollout_order r where r.trigger_id = t.id and r.done_at is null))
             order by t.id for update
         ), o as (
             update rollout o set state = 'cancelled', finished_at = now(), cut_off = true,
                 error = 'cancelled by ' || $1 || ': ' || gone.why
             from gone where o.trigger_id = gone.id and ", rollout_is_live!("o"), "
             returning o.*
         ), answered as (
             update rollout_order r set done_at = now(), answer = 'nothing to do: ' || gone.why
             from gone where r.trigger_id = gone.id and r.done_at is null
         ), told as (
             ", recorded!(), "
         )
         select t.name, o.number, gone.why from o join trigger t on t.id = o.trigger_id join gone on gone.id = t.id
         order by t.name, o.number"
    ))
    .bind(CONFIGURATION)
    .fetch_all(db)
    .await?;
    let removed = |row: &PgRow| {
        Ok(Removed {
            trigger: row.try_get("name")?,
            number: row::unsigned(row.try_get("number")?),
            why: row.try_get("why")?,
        })
    };
    rows.iter().map(removed).collect()
}

async fn write(db: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let (triggers, problems) = (&settings.triggers, &settings.problems);
    let names = names(settings);
    let specs: Vec<Option<&TriggerSpec>> = names.iter().map(|name| triggers.get(*name)).collect();
    let images = |spec: &TriggerSpec| {
        let images = spec.images.iter();
        let named = images.map(|(name, watched)| (name.clone(), named(watched)));
        Json(named.collect::<BTreeMap<_, _>>())
    };
    let images: Vec<_> = specs.iter().map(|spec| spec.map(images)).collect();
    let policies = |spec: &TriggerSpec| {
        let policies = spec.images.iter().filter_map(|(name, watched)| {
            let policy = watched.policy()?;
            Some((name.clone(), policy.settings.clone()))
        });
        Json(policies.collect::<BTreeMap<_, _>>())
    };
    let policies: Vec<_> = specs.iter().map(|spec| spec.map(policies)).collect();
    let targets: Vec<_> = specs
        .iter()
        .map(|spec| spec.map(|spec| spec.target.as_str()))
        .collect();
    let likenesses: Vec<Option<&[u8]>> = specs
        .iter()
        .map(|spec| spec.map(|spec| &spec.likeness[..]))
        .collect();
    let paused: Vec<bool> = specs
        .iter()
        .map(|spec| spec.is_some_and(|spec| spec.start == Start::Paused))
        .collect();
    let problems: Vec<_> = names.iter().map(|name| problems.get(*name)).collect();
    let texts: Vec<_> = problems
        .iter()
        .map(|problem| problem.map(|problem| problem.text.as_str()))
        .collect();
    let broken: Vec<bool> = problems
        .iter()
        .map(|problem| problem.is_some_and(|problem| problem.broken))
        .collect();
    sqlx::query(
        "with entry as (
             select * from unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::text[], $5::text[], $6::boolean[], $8::boolean[], $11::bytea[])
                 as e (name, images, policies, target, problem, broken, paused, likeness))
         insert into trigger (name, images, policies, target, problem, broken, likeness, state, paused_by, paused_at, paused_reason)
         select e.name, coalesce(e.images, t.images, '{}'), coalesce(e.policies, t.policies, '{}'), coalesce(e.target, t.target, ''), e.problem, e.broken, coalesce(e.likeness, t.likeness),
             case when p.begins then 'paused'::trigger_state else 'active' end,
             case when p.begins then $9 end,
             case when p.begins then now() end,
             case when p.begins then $10 end
         from entry e left join trigger t on t.name = e.name
         -- The target of a trigger whose entry could never be read is empty.
         cross join lateral (select e.paused and coalesce(t.target, '') = '' as begins) p
         on conflict (name) do update set images = excluded.images, policies = excluded.policies, target = excluded.target,
             problem = excluded.problem, broken = excluded.broken, likeness = excluded.likeness, configured = true,
             -- The row as it is now: a person may have paused or resumed the trigger meanwhile.
             state = case excluded.state when 'paused' then 'paused' else trigger.state end,
             paused_by = case excluded.state when 'paused' then excluded.paused_by else trigger.paused_by end,
             paused_at = case excluded.state when 'paused' then excluded.paused_at else trigger.paused_at end,
             paused_reason = case excluded.state when 'paused' then excluded.paused_reason else trigger.paused_reason end,
             -- A rollout that is observed goes on under the new settings.
             retry = trigger.retry or trigger.name = any ($7) and not exists (
                 select from rollout w where w.trigger_id = trigger.id and w.state = 'watching')",
    )
    .bind(names)
    .bind(images)
    .bind(policies)
    .bind(targets)
    .bind(texts)
    .bind(broken)
    .bind(settings.changed.iter().map(String::as_str).collect::<Vec<_>>())
    .bind(paused)
    .bind(CONFIGURATION)
    .bind("start = \"paused\"")
    .bind(likenesses)
    .execute(db)
    .await
    .map(|_| ())
}

/// Writes the settings of the gates. A trigger whose entry can't be read keeps them.
async fn write_gates(db: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let triggers = || settings.triggers.iter();
    sqlx::query(
        "update trigger t set gate_settings = e.gate_settings, group_name = e.group_name, gap = e.gap
         from unnest($1::text[], $2::jsonb[], $3::text[], $4::interval[]) as e (name, gate_settings, group_name, gap)
         where t.name = e.name and (t.gate_settings, t.group_name, t.gap) is distinct from (e.gate_settings, e.group_name, e.gap)",
    )
    .bind(triggers().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
    .bind(triggers().map(|(_, spec)| Json(&spec.written_gates)).collect::<Vec<_>>())
    .bind(triggers().map(|(_, spec)| spec.gates.group.as_deref()).collect::<Vec<_>>())
    .bind(triggers().map(|(_, spec)| gap(spec)).collect::<Vec<_>>())
    .execute(db)
    .await
    .map(|_| ())
}

fn gap(spec: &TriggerSpec) -> Option<PgInterval> {
    let gap = spec.gates.gap.filter(|_| !FailPoint::TriggerGap.skipped());
    gap.map(interval)
}

/// Notes the places of today's targets with the last rollouts whose place is not known, as those of
/// earlier versions. So a place that changes later is another one.
async fn identify(db: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let targets = settings.targets.iter();
    let (names, identities): (Vec<&str>, Vec<String>) = targets
        .map(|(name, target)| (name.as_str(), target.identity()))
        .unzip();
    sqlx::query(
        "update rollout o set identity = e.identity
         from unnest($1::text[], $2::text[]) as e (name, identity)
         join trigger t on t.name = e.name
         cross join lateral (
             select r.id from rollout r
             where r.trigger_id = t.id and not (r.state = 'superseded' and r.attempts = 0)
             order by r.number desc limit 1) l
         where o.id = l.id and o.identity is null",
    )
    .bind(names)
    .bind(identities)
    .execute(db)
    .await
    .map(|_| ())
}

/// Writes how the results of rollouts become known.
async fn describe_results(db: &mut PgConnection, settings: &Settings) -> Result<(), sqlx::Error> {
    let targets = settings.targets.iter();
    let (names, reports): (Vec<&str>, Vec<bool>) = targets
        .map(|(name, target)| (name.as_str(), target.reports()))
        .unzip();
    let finish = |name: &&str| settings.triggers.get(*name).is_some_and(|spec| spec.finish);
    let finish: Vec<bool> = names.iter().map(finish).collect();
    sqlx::query(
        "update trigger t set reports = e.reports, finish = e.finish
         from unnest($1::text[], $2::boolean[], $3::boolean[]) as e (name, reports, finish)
         where t.name = e.name and (t.reports, t.finish) <> (e.reports, e.finish)",
    )
    .bind(names)
    .bind(reports)
    .bind(finish)
    .execute(db)
    .await
    .map(|_| ())
}

/// Returns the text of an image as people see it; of a policy, the repository.
fn named(watched: &Watched) -> String {
    match watched {
        Watched::Tag(image) => image.to_string(),
        Watched::Policy(policy) => format!("{}/{}", policy.registry, policy.repository),
    }
}
