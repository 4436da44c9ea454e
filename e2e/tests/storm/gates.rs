//! The checks of gates after a storm: those that are closed are shown, and no attempt began behind
//! one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sqlx::PgConnection;

use crate::checks::scalar;
use crate::teams::{FROZEN, PAUSED, PINNED, REMOVED, TEAMS};
use crate::wanted::Made;
use crate::world::{TRIGGERS, World};

/// Checks that the api lists the triggers of the files, and shows the gates of those that are
/// behind one, with nothing rolled out there.
pub(crate) async fn gates_are_shown(
    world: &World,
    db: &mut PgConnection,
    made: &BTreeMap<String, Vec<Made>>,
) -> Result<(), String> {
    let url = format!("http://{}/v1/triggers", world.api);
    let answer = reqwest::get(&url)
        .await
        .map_err(|error| error.to_string())?;
    let list: Value = answer.json().await.map_err(|error| error.to_string())?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let shown: BTreeMap<&str, &Value> = items
        .iter()
        .map(|one| (one["name"].as_str().unwrap_or_default(), one))
        .collect();
    let teams = TEAMS
        .iter()
        .map(|team| team.name)
        .filter(|name| *name != REMOVED);
    let wanted: BTreeSet<&str> = teams.chain(TRIGGERS.map(|(name, _)| name)).collect();
    if !shown.keys().eq(wanted.iter()) {
        return Err(format!(
            "the triggers are {:?}, and the files have {wanted:?}",
            shown.keys()
        ));
    }
    if let Some(broken) = items.iter().find(|one| !one["problem"].is_null()) {
        return Err(format!("the files are mended, and {broken} is shown"));
    }
    let (frozen, paused, pinned) = (shown[FROZEN], shown[PAUSED], shown[PINNED]);
    let has_hold = |one: &Value, kind: &str| {
        let holds = one["holds"].as_array().into_iter().flatten();
        holds.filter(|hold| hold["kind"] == kind).count() == 1
    };
    let moved = made.get(FROZEN).and_then(|made| made.last());
    let held = moved.is_none_or(|last| last.state == "succeeded") || frozen["condition"] == "held";
    if !has_hold(frozen, "freeze") || !held {
        return Err(format!(
            "the gate of a frozen trigger is not shown: {frozen}"
        ));
    }
    if paused["state"] != "paused" || paused["condition"] != "paused" {
        return Err(format!(
            "the gate of a paused trigger is not shown: {paused}"
        ));
    }
    let set = &pinned["holds"][0]["images"]["i0"];
    let is_pinned = &pinned["current"]["images"]["i0"]["digest"] == set && !set.is_null();
    if !has_hold(pinned, "pin") || !is_pinned {
        return Err(format!("a pinned trigger does not have its set: {pinned}"));
    }
    let since = "select count(*) from rollout o join trigger t on t.id = o.trigger_id
         where t.name = 't-paused' and o.created_at > t.paused_at + interval '5 s'";
    match scalar(db, since).await? {
        0 => Ok(()),
        count => Err(format!("{count} rollouts of a paused trigger are recorded")),
    }
}

/// Returns the triggers that are not settled, for the report of a breach.
pub(crate) async fn unsettled(world: &World) -> String {
    let url = format!("http://{}/v1/triggers", world.api);
    let Ok(answer) = reqwest::get(&url).await else {
        return "the api does not answer".to_owned();
    };
    let list: Value = answer.json().await.unwrap_or_default();
    let items = list["items"].as_array().into_iter().flatten();
    let lines = items
        .filter(|one| one["condition"] != "settled")
        .map(|one| {
            let (name, condition, reasons) = (&one["name"], &one["condition"], &one["reasons"]);
            format!("{name} is {condition}: {reasons}\n")
        });
    lines.collect()
}

/// Checks by the recorded holds and ends that no attempt began in spite of a freeze or after the
/// end of its rollout, that each order is carried out, and that no attempt stays open.
///
/// A hold or an end may be recorded up to five seconds after its own time, over a slow link.
pub(crate) async fn no_attempt_began_behind_a_gate(db: &mut PgConnection) -> Result<(), String> {
    let breaches = [
        (
            "attempts began in spite of a freeze",
            "select count(*) from rollout_attempt a join rollout o on o.id = a.rollout_id join trigger t on t.id = a.trigger_id
             join hold h on h.kind = 'freeze' and t.name ~ ('^' || replace(h.triggers, '*', '.*') || '$')
             where a.started_at > h.created_at + interval '5 s'
               and a.started_at < least(coalesce(h.released_at, 'infinity'), coalesce(h.until, 'infinity'))
               and (h.hard or o.actor is null or not exists (
                   select from rollout k where k.trigger_id = o.trigger_id and k.state = 'succeeded' and k.finished_at < a.started_at
                     and image_set(k.images) = image_set(o.images)))",
        ),
        (
            "attempts began of rollouts that had ended",
            "select count(*) from rollout_attempt a join rollout o on o.id = a.rollout_id
             where o.state in ('succeeded', 'superseded', 'rejected', 'cancelled') and a.started_at > o.finished_at + interval '5 s'",
        ),
        (
            "rollouts behind a freeze do not show the gate",
            "select count(*) from rollout o join trigger t on t.id = o.trigger_id
             where t.name = 't-frozen' and (o.state in ('held', 'awaiting_approval', 'pending', 'running', 'watching') or o.state = 'failed' and not o.ended)
               and o.actor is null and not jsonb_path_exists(o.gates, '$[*] ? (@.gate == \"freeze\")')",
        ),
        (
            "rollouts live on below a newer one that succeeded",
            "select count(*) from rollout o
             where (o.state in ('held', 'awaiting_approval', 'pending', 'running', 'watching') or o.state = 'failed' and not o.ended)
               and exists (select from rollout n where n.trigger_id = o.trigger_id and n.number > o.number and n.state = 'succeeded')",
        ),
        (
            "orders are not carried out",
            "select count(*) from rollout_order r join trigger t on t.id = r.trigger_id
             where r.done_at is null and t.configured and t.state <> 'paused'",
        ),
        (
            "attempts do not end",
            "select count(*) from rollout_attempt where finished_at is null and started_at < now() - interval '45 s'",
        ),
    ];
    for (breach, sql) in breaches {
        let count = scalar(db, sql).await?;
        if count > 0 {
            return Err(format!("{count} {breach}"));
        }
    }
    Ok(())
}
