//! The statements about the triggers as they are configured.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use sqlx::types::Json;
use tagtrail_config::Watched;

use crate::config::TriggerSpec;
use crate::settings::Settings;

/// Writes the configured triggers into the table `trigger`, with the mistakes in their entries. The
/// last rollout of a changed trigger is attempted at once. The row of a trigger whose entry can't
/// be read keeps images and target. Triggers that are no longer configured keep their rows and
/// rollouts.
pub(crate) async fn configure(
    db: &mut PgConnection,
    settings: &Settings,
) -> Result<(), sqlx::Error> {
    let (triggers, problems) = (&settings.triggers, &settings.problems);
    let names: BTreeSet<&str> = triggers
        .keys()
        .chain(problems.keys())
        .map(String::as_str)
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
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
        "with gone as (update trigger set configured = false where configured and name <> all ($1)),
         entry as (
             select * from unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::text[], $5::text[], $6::boolean[])
                 as e (name, images, policies, target, problem, broken))
         insert into trigger (name, images, policies, target, problem, broken)
         select e.name, coalesce(e.images, t.images, '{}'), coalesce(e.policies, t.policies, '{}'), coalesce(e.target, t.target, ''), e.problem, e.broken
         from entry e left join trigger t on t.name = e.name
         on conflict (name) do update set images = excluded.images, policies = excluded.policies, target = excluded.target,
             problem = excluded.problem, broken = excluded.broken, configured = true,
             retry = trigger.retry or trigger.name = any ($7)",
    )
    .bind(names)
    .bind(images)
    .bind(policies)
    .bind(targets)
    .bind(texts)
    .bind(broken)
    .bind(settings.changed.iter().map(String::as_str).collect::<Vec<_>>())
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
