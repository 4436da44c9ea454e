//! Selects the tags of images with policies, from one snapshot of their candidates.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use tagtrail_policy::choice::{self, Choice, Facts, PolicyImage, TagRow};
use tagtrail_policy::decide::Selected;
use tagtrail_policy::gates::Head;
use tagtrail_policy::selection::{Fault, Fit, Policy};
use tagtrail_proto::{Digest, Image, Manifest, Reason};
use time::OffsetDateTime;

use super::candidates::{Candidates, ImageName};
use crate::config::TriggerSpec;
use crate::store::candidates as store;
use crate::store::candidates::{Heads, Judged};
use crate::store::faults::{self, TagFault};
use crate::store::planning::{NewRollout, Recorded};
use crate::store::selections::NewSelection;
use crate::store::states::TriggerState;

/// The number of candidates that are read first. Most rules select one of the first two.
const FIRST_DEPTH: i64 = 2;

/// The choices of the policies of several triggers.
#[derive(Debug, Default)]
pub(super) struct Choices(BTreeMap<String, BTreeMap<String, Choice>>);

impl Choices {
    fn of<'s>(&'s self, trigger: &str) -> impl Iterator<Item = (&'s str, &'s Choice)> {
        let choices = self.0.get(trigger).into_iter().flatten();
        choices.map(|(name, choice)| (name.as_str(), choice))
    }

    /// Returns the reasons of all choices.
    pub(super) fn reasons(&mut self) -> impl Iterator<Item = &mut Reason> {
        let choices = self.0.values_mut().flat_map(BTreeMap::values_mut);
        choices.filter_map(|choice| choice.reason.as_mut())
    }

    /// Returns the choice for an image of a trigger; `None` while its repository is being read.
    pub(super) fn get(&self, trigger: &str, name: &str) -> Option<&Choice> {
        self.0.get(trigger)?.get(name)
    }

    /// Returns the selected images that the last rollouts do not have: only their gates matter.
    pub(super) fn changed(&self, states: &[(TriggerState, OffsetDateTime)]) -> Vec<&Image> {
        let mut changed = Vec::new();
        for (state, _) in states {
            let choices = self.of(&state.name).filter(|(name, choice)| {
                choice.is_head && !choice.is_in(name, state.last.as_ref())
            });
            let selected = choices.filter_map(|(_, choice)| choice.selected.as_ref());
            changed.extend(selected.map(|selected| &selected.image));
        }
        changed
    }

    /// Returns the image that each image of the trigger stands for, given the heads of its tags and
    /// of changed selections.
    pub(super) fn selected(
        &self,
        trigger: &TriggerSpec,
        heads: &BTreeMap<Image, Head>,
    ) -> BTreeMap<String, Selected> {
        choice::selected(&trigger.images, self.of(&trigger.name), heads)
    }

    /// Returns the changes of selected tags that hold the trigger.
    pub(super) fn faults(&self, state: &TriggerState) -> impl Iterator<Item = TagFault> {
        self.of(&state.name).filter_map(|(name, choice)| {
            let image = &choice.selected.as_ref()?.image;
            let reason = match choice.fault? {
                Fault::Removed => {
                    format!("the selected tag {image} is gone (on_removed = \"hold\")")
                }
                Fault::Moved => {
                    format!("the selected tag {image} has another digest (on_moved = \"hold\")")
                }
            };
            Some(TagFault {
                trigger: state.id,
                image: name.to_owned(),
                reason,
            })
        })
    }

    /// Returns the first time at which a choice of the trigger may change although nothing happens.
    pub(super) fn again(&self, trigger: &str) -> Option<OffsetDateTime> {
        self.of(trigger)
            .filter_map(|(_, choice)| choice.again)
            .min()
    }
}

/// The selections of a plan.
#[derive(Debug, Default)]
pub(super) struct Selections {
    /// Those that the last rollout of the trigger has already.
    rolled_out: Vec<(ImageName, NewSelection)>,
    /// Those of a new rollout.
    new: Vec<(ImageName, NewSelection)>,
}

impl Selections {
    /// Adds the selections of a trigger that differ from the stored ones. `new`: the rollout that
    /// will be recorded. An order may roll out other images than the selected ones.
    pub(super) fn add(
        &mut self,
        state: &TriggerState,
        choices: &Choices,
        new: Option<&NewRollout>,
    ) {
        let planned = new.map(|new| &new.images);
        for (name, choice) in choices.of(&state.name) {
            let Some(selection) = choice.to_store(name, state.last.as_ref(), planned) else {
                continue;
            };
            let to_store = NewSelection {
                trigger: state.id,
                name: name.to_owned(),
                policy: choice.policy,
                selection: selection.clone(),
            };
            let list = match planned {
                Some(_) => &mut self.new,
                None => &mut self.rolled_out,
            };
            list.push(((state.name.clone(), name.to_owned()), to_store));
        }
    }

    /// Adds the selections of a rollout of adopted images, which the target runs already.
    pub(super) fn adopt(&mut self, selections: Vec<(ImageName, NewSelection)>) {
        self.new.extend(selections);
    }

    /// Returns the selections to store, given the recorded rollouts. A trigger that was paused
    /// since the decision has no rollout, and no new selection either.
    pub(super) fn stored(mut self, recorded: &[Recorded]) -> Vec<(ImageName, NewSelection)> {
        let is_recorded = |id: i32| recorded.iter().any(|one| one.rollout.trigger == id);
        let new = self.new.into_iter();
        let new = new.filter(|(_, new)| is_recorded(new.trigger));
        self.rolled_out.extend(new);
        self.rolled_out
    }
}
/// Selects for all images with policies of these triggers. Images whose candidates are not filled
/// yet are left out.
pub(super) async fn choose(
    candidates: &mut Candidates,
    db: &mut PgConnection,
    states: &[(TriggerState, OffsetDateTime)],
) -> Result<Choices, sqlx::Error> {
    let triggers: Vec<(&str, OffsetDateTime)> = states
        .iter()
        .map(|(state, now)| (state.name.as_str(), *now))
        .collect();
    let triggers = triggers.as_slice();
    let names: Vec<&str> = triggers.iter().map(|(name, _)| *name).collect();
    if candidates.may_hold(&names) {
        let released = faults::released(db, &names).await?;
        candidates.release(&names, &released);
    }
    let (mut depths, mut tags) = (BTreeMap::new(), Vec::new());
    for (trigger, _) in triggers {
        let agree = candidates.agree(trigger).is_some();
        for (_, image) in candidates.of(trigger) {
            if !candidates.is_filled(image.policy) {
                continue;
            }
            // Any candidate may share its time of the build with another, or agree.
            let all = agree || image.watched.policy.rule().orders_by_build();
            let depth = depths.entry(image.policy).or_insert(FIRST_DEPTH);
            if all {
                *depth = candidates.room(image.policy);
            }
            tags.extend(image.selection.as_ref().map(|one| one.tag_id));
        }
    }
    if depths.is_empty() {
        return Ok(Choices::default());
    }
    let mut heads = store::heads(db, &depths, &tags).await?;
    loop {
        let judged = judge(candidates, db, triggers, &heads).await?;
        // A misfit makes room for the next candidate.
        let mut deeper: BTreeMap<i32, i64> = judged
            .iter()
            .filter(|one| !one.fit)
            .map(|one| (one.policy, depths[&one.policy]))
            .collect();
        for one in &judged {
            let rows = heads.candidates.get_mut(&one.policy);
            let row = rows.and_then(|rows| rows.iter_mut().find(|row| row.tag_id == one.tag_id));
            if let Some(row) = row {
                row.fit = Some(one.fit);
            }
        }
        for (trigger, now) in triggers {
            for (_, image) in candidates.of(trigger) {
                let (depth, room) = (depths.get(&image.policy), candidates.room(image.policy));
                let Some(depth) = depth.filter(|depth| **depth < room) else {
                    continue;
                };
                let rows = rows_of(&heads, image.policy);
                let full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= *depth);
                if full && !image.decided(rows, *now) {
                    deeper.insert(image.policy, room);
                }
            }
        }
        if deeper.is_empty() {
            break;
        }
        let more = store::heads(db, &deeper, &[]).await?;
        depths.extend(&deeper);
        for policy in deeper.keys() {
            heads.candidates.remove(policy);
        }
        heads.candidates.extend(more.candidates);
    }
    let manifests = selected_manifests(candidates, db, triggers, &heads).await?;
    let (mut choices, mut poor) = (BTreeMap::new(), BTreeSet::new());
    for (trigger, now) in triggers {
        let mut images: Vec<(&str, &PolicyImage, Facts<'_>)> = Vec::new();
        for (name, image) in candidates.of(trigger) {
            if !depths.contains_key(&image.policy) {
                continue;
            }
            let rows = rows_of(&heads, image.policy);
            if !image.decided(rows, *now) {
                poor.insert(image.policy);
            }
            let selected = heads.selected(image);
            let digest = selected.and_then(|row| row.digest.as_ref());
            let manifest = digest.and_then(|digest| manifests.get(digest));
            let fit = image.watched.policy.rule().fit(manifest);
            images.push((name, image, image.facts(rows, selected, fit)));
        }
        let complete = images.len() == candidates.of(trigger).count();
        let chosen = choice::choose(&images, candidates.agree(trigger), complete, *now);
        choices.insert((*trigger).to_owned(), chosen);
    }
    for policy in poor {
        candidates.fill_again(policy);
    }
    Ok(Choices(choices))
}

fn rows_of(heads: &Heads, policy: i32) -> &[TagRow] {
    heads.candidates.get(&policy).map_or(&[], Vec::as_slice)
}

/// Judges the manifests of candidates that were read since, and stores the answers.
async fn judge(
    candidates: &Candidates,
    db: &mut PgConnection,
    triggers: &[(&str, OffsetDateTime)],
    heads: &Heads,
) -> Result<Vec<Judged>, sqlx::Error> {
    let mut policies: BTreeMap<i32, &Policy> = BTreeMap::new();
    for (_, image) in triggers.iter().flat_map(|(name, _)| candidates.of(name)) {
        if image.watched.policy.rule().needs_manifest() {
            policies.insert(image.policy, &image.watched.policy);
        }
    }
    let unjudged = || {
        policies.iter().flat_map(|(id, policy)| {
            let rows = rows_of(heads, *id).iter();
            rows.filter(|row| row.read && row.fit.is_none())
                .filter_map(|row| Some((*id, *policy, row, row.digest.as_ref()?)))
        })
    };
    let digests: Vec<&Digest> = unjudged().map(|(.., digest)| digest).collect();
    if digests.is_empty() {
        return Ok(Vec::new());
    }
    let manifests = tagtrail_postgres::manifests(db, &digests).await?;
    let judged: Vec<Judged> = unjudged()
        .filter_map(|(id, policy, row, digest)| {
            let fit = policy.rule().fit(Some(manifests.get(digest)?));
            Some(Judged {
                policy: id,
                tag_id: row.tag_id,
                digest: digest.clone(),
                fit: fit == Fit::Fits,
            })
        })
        .collect();
    store::judge(db, &judged).await?;
    Ok(judged)
}

/// Reads the manifests of selected tags that must be judged and are not among the candidates.
async fn selected_manifests(
    candidates: &Candidates,
    db: &mut PgConnection,
    triggers: &[(&str, OffsetDateTime)],
    heads: &Heads,
) -> Result<BTreeMap<Digest, Manifest>, sqlx::Error> {
    let images = triggers.iter().flat_map(|(name, _)| candidates.of(name));
    let digests: Vec<&Digest> = images
        .filter_map(|(_, image)| image.to_judge(heads.selected(image)))
        .collect();
    match digests.is_empty() {
        true => Ok(BTreeMap::new()),
        false => tagtrail_postgres::manifests(db, &digests).await,
    }
}
