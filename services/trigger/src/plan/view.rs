//! How the images of a trigger look to people: the set that it wants, and the reasons for which an
//! image stands for no digest or not for the best tag.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use tagtrail_condition::Wanted;
use tagtrail_config::Watched;
use tagtrail_policy::decide::{Decision, Situation, wanted_set};
use tagtrail_proto::{Pinned, Reason, ReasonCode, RolloutImage};
use time::OffsetDateTime;

use super::choice::Choices;
use crate::config::TriggerSpec;
use crate::store::candidates as store;
use crate::store::states::{TriggerState, View};

/// Returns how the images of a trigger look; `None` while a repository of its policies is being
/// read for the first time.
pub(super) fn view(
    trigger: &TriggerSpec,
    state: &TriggerState,
    situation: &Situation<'_>,
    choices: &Choices,
    decision: &Decision,
) -> Option<View> {
    let mut reasons = Vec::new();
    for (name, watched) in &trigger.images {
        match watched {
            Watched::Tag(image) => {
                let selected = situation.selected.get(name);
                let digest = selected.map(|one| one.head.digest.is_some());
                let mut reason = match (digest, selected) {
                    (Some(true), _) => continue,
                    (Some(false), Some(selected)) => {
                        deleted(state, name, selected.head.recorded_at)
                    }
                    _ => Reason::new(
                        ReasonCode::UnknownImage,
                        "no push and no import of the image is recorded".to_owned(),
                    ),
                };
                reason.image = Some(image.to_string());
                reasons.push(reason);
            }
            Watched::Policy(_) => {
                let choice = choices.get(&trigger.name, name)?;
                reasons.extend(choice.reason.clone());
            }
        }
    }
    let reasons = reasons.into_iter();
    let reasons = reasons.map(|reason| since(reason, state, situation.now));
    let reasons = reasons.collect();
    let last = match decision {
        // The rollout that is recorded now is the last one.
        Decision::Start { images, .. } => Some(images),
        Decision::Nothing { .. } | Decision::Wait { .. } => state.last.as_ref(),
    };
    let wanted = match wanted_set(situation) {
        None => Wanted::Nothing,
        Some(set) if last.is_some_and(|last| pinned(last).eq(pinned(&set))) => Wanted::Last,
        Some(set) => Wanted::Set(set),
    };
    Some(View { wanted, reasons })
}

/// Returns a reason with the time since which it applies.
pub(super) fn since(mut reason: Reason, state: &TriggerState, now: OffsetDateTime) -> Reason {
    let before = state.view.reasons.iter().find(|one| one.is_like(&reason));
    let since = before.and_then(|before| before.since);
    reason.since = reason.since.or(since).or(Some(now));
    reason
}

fn pinned(set: &BTreeMap<String, RolloutImage>) -> impl Iterator<Item = (&String, &Pinned)> {
    set.iter().map(|(name, image)| (name, &image.pinned))
}

fn deleted(state: &TriggerState, name: &str, since: OffsetDateTime) -> Reason {
    let kept = state.last.as_ref().and_then(|last| last.get(name));
    let kept = kept.map_or(String::new(), |kept| format!("; {} stays", kept.digest));
    let mut reason = Reason::new(ReasonCode::Deleted, format!("the tag is deleted{kept}"));
    reason.since = Some(since);
    reason
}

/// Turns the reasons of policies without a candidate into that of an unknown image, where no tag of
/// the repository was ever recorded.
pub(super) async fn find_unknown(
    db: &mut PgConnection,
    choices: &mut Choices,
) -> Result<(), sqlx::Error> {
    let empty: BTreeSet<(String, String)> = choices
        .reasons()
        .filter(|reason| reason.code == ReasonCode::NoCandidate)
        .filter_map(|reason| split(reason))
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    let known = store::known(db, &empty).await?;
    for reason in choices.reasons() {
        let is_empty = reason.code == ReasonCode::NoCandidate;
        if is_empty && split(reason).is_some_and(|repository| !known.contains(&repository)) {
            reason.code = ReasonCode::UnknownImage;
            reason.why = "no push and no import of the repository is recorded".to_owned();
        }
    }
    Ok(())
}

fn split(reason: &Reason) -> Option<(String, String)> {
    let (registry, name) = reason.image.as_deref()?.split_once('/')?;
    Some((registry.to_owned(), name.to_owned()))
}
