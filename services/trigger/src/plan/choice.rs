//! Selects the tags of images with policies, from one snapshot of their candidates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_policy::agree::{Agree, AgreeingTag, Side};
use tagtrail_policy::decide::Selected;
use tagtrail_policy::gates::{Head, ManifestState};
use tagtrail_policy::selection::{Change, Fit, Last, Outcome, Policy, TagHead, Times};
use tagtrail_proto::{Digest, Image, Manifest, Origin};
use time::OffsetDateTime;

use super::candidates::{Candidates, ImageName, PolicyImage};
use crate::config::TriggerSpec;
use crate::store::candidates as store;
use crate::store::candidates::{Heads, Judged, NewSelection, Selection, TagRow};
use crate::store::planning::{NewRollout, Recorded, TriggerState};

/// The number of candidates that are read first. Most rules select one of the first two.
const FIRST_DEPTH: i64 = 2;
/// The time for which commits of images are looked for. Later ones are found by the usual looks at
/// all triggers.
const COMMIT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The bounds of the pause before the next look at a manifest that is being read.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The choice of a policy.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The image that the policy stands for, if it has selected one.
    pub(super) selected: Option<Selected>,
    /// True if the digest is the one of the tag's head. False: the policy keeps an older digest.
    is_head: bool,
    /// The row of the policy.
    policy: i32,
    /// The selection to store once the image is part of a recorded rollout.
    pub(super) selection: Option<Selection>,
    /// The time at which the choice may change although nothing happens.
    pub(super) again: Option<OffsetDateTime>,
}

/// The choices of the policies of several triggers.
#[derive(Debug, Default)]
pub(super) struct Choices(BTreeMap<ImageName, Choice>);

impl Choices {
    fn of<'s>(&'s self, trigger: &str) -> impl Iterator<Item = (&'s str, &'s Choice)> {
        let trigger = trigger.to_owned();
        self.0
            .range((trigger.clone(), String::new())..)
            .take_while(move |((name, _), _)| *name == trigger)
            .map(|((_, name), choice)| (name.as_str(), choice))
    }

    /// Returns the selected images that the last rollouts do not have: only their gates matter.
    pub(super) fn changed(&self, states: &[(TriggerState, OffsetDateTime)]) -> Vec<&Image> {
        let mut changed = Vec::new();
        for (state, _) in states {
            for (name, choice) in self.of(&state.name) {
                let selected = choice.selected.as_ref().filter(|_| choice.is_head);
                changed.extend(
                    selected
                        .filter(|selected| !is_last(state, name, selected))
                        .map(|selected| &selected.image),
                );
            }
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
        let tags = trigger.images.iter().filter_map(|(name, watched)| {
            let image = watched.tag()?;
            let selected = Selected::tag(image.clone(), heads.get(image)?.clone());
            Some((name.clone(), selected))
        });
        let chosen = self.of(&trigger.name).filter_map(|(name, choice)| {
            let mut selected = choice.selected.clone()?;
            let head = heads.get(&selected.image).filter(|_| choice.is_head);
            if let Some(head) = head.filter(|head| head.digest == selected.head.digest) {
                selected.head = head.clone();
            }
            Some((name.to_owned(), selected))
        });
        tags.chain(chosen).collect()
    }

    /// Returns the first time at which a choice of the trigger may change although nothing happens.
    pub(super) fn again(&self, trigger: &str) -> Option<OffsetDateTime> {
        self.of(trigger)
            .filter_map(|(_, choice)| choice.again)
            .min()
    }
}

/// Returns whether the last rollout has this image, pinned to the same digest.
fn is_last(state: &TriggerState, name: &str, selected: &Selected) -> bool {
    let last = state.last.as_ref().and_then(|last| last.get(name));
    last.is_some_and(|last| Some(&last.pinned) == selected.pinned().as_ref())
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
        for (name, choice) in choices.of(&state.name) {
            let (Some(selection), Some(selected)) = (&choice.selection, &choice.selected) else {
                continue;
            };
            let to_store = NewSelection {
                trigger: state.id,
                name: name.to_owned(),
                policy: choice.policy,
                selection: selection.clone(),
            };
            let name = (state.name.clone(), name.to_owned());
            if let Some(new) = new {
                let planned = new.images.get(&name.1).map(|image| &image.pinned);
                if planned == selected.pinned().as_ref() {
                    self.new.push((name, to_store));
                }
            } else if is_last(state, &name.1, selected) {
                self.rolled_out.push((name, to_store));
            }
        }
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
    let selected = selected_manifests(candidates, db, triggers, &heads).await?;
    let (mut choices, mut poor) = (BTreeMap::new(), BTreeSet::new());
    for (trigger, now) in triggers {
        let mut images = Vec::new();
        for (name, image) in candidates.of(trigger) {
            if !depths.contains_key(&image.policy) {
                continue;
            }
            let rows = rows_of(&heads, image.policy);
            if !image.decided(rows, *now) {
                poor.insert(image.policy);
            }
            images.push((name, image, image.facts(rows, &heads, &selected)));
        }
        let named = |name: &str| ((*trigger).to_owned(), name.to_owned());
        let Some(agree) = candidates.agree(trigger) else {
            let chosen = images.iter().map(|(name, image, facts)| {
                let choice = image.choose(facts, &facts.tags(), *now);
                (named(name), choice)
            });
            choices.extend(chosen);
            continue;
        };
        // Without all images there is nothing to agree on.
        if images.len() < candidates.of(trigger).count() {
            continue;
        }
        let sides: Vec<Side<'_>> = images
            .iter()
            .map(|(_, image, facts)| facts.side(image))
            .collect();
        let value = agree.newest(&sides, *now);
        for ((name, image, facts), side) in images.iter().zip(&sides) {
            let choice = match value {
                Some(value) => image.choose(facts, &agree.tags_of(side, value), *now),
                None => image.keep(facts.selected, None, false),
            };
            let again = facts.look_for_manifests(agree, *now);
            choices.insert(named(name), choice.not_after(again));
        }
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
    let manifests = store::manifests(db, &digests).await?;
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
    let mut digests = Vec::new();
    for (_, image) in triggers.iter().flat_map(|(name, _)| candidates.of(name)) {
        let Some(selection) = &image.selection else {
            continue;
        };
        let row = heads.tags.get(&selection.tag_id);
        let digest = row
            .filter(|row| row.read)
            .and_then(|row| row.digest.as_ref());
        let known = digest == Some(&selection.digest) && selection.rule == image.fingerprint;
        if image.watched.policy.rule().needs_manifest() && !known {
            digests.extend(digest);
        }
    }
    match digests.is_empty() {
        true => Ok(BTreeMap::new()),
        false => store::manifests(db, &digests).await,
    }
}

impl PolicyImage {
    fn last(&self) -> Option<Last> {
        self.selection.as_ref().map(|selection| Last {
            tag: selection.tag.clone(),
            key: selection.key.clone(),
            digest: selection.digest.clone(),
            rule_changed: selection.rule != self.fingerprint,
            released: false,
        })
    }

    fn head(&self, row: &TagRow, fit: Fit) -> TagHead {
        TagHead {
            tag: row.tag.clone(),
            digest: row.digest.clone(),
            times: Times {
                pushed: row.head_at,
                created: row.created,
            },
            recorded_at: row.recorded_at,
            tombstone: row.tombstone,
            fit,
        }
    }

    fn candidate(&self, row: &TagRow) -> TagHead {
        let fit = match row.fit {
            _ if !self.watched.policy.rule().needs_manifest() => Fit::Fits,
            Some(true) => Fit::Fits,
            // Misfits are not read.
            Some(false) | None => Fit::Unread,
        };
        self.head(row, fit)
    }

    /// Returns whether these candidates, the best ones, decide the choice: one of them can be
    /// selected or is waited for, or no tag below them may take the place of the selected one.
    fn decided(&self, rows: &[TagRow], now: OffsetDateTime) -> bool {
        let policy = &self.watched.policy;
        let usable = |row: &&TagRow| row.fit != Some(false);
        let mut heads = rows.iter().filter(usable).map(|row| self.candidate(row));
        if heads.any(|head| policy.is_conclusive(&head, now)) {
            return true;
        }
        let (Some(selection), Some(lowest)) = (&self.selection, rows.last()) else {
            return false;
        };
        let times = self.candidate(lowest).times;
        let lowest = policy.rule().key_beyond_filters(&lowest.tag, times);
        selection.rule == self.fingerprint && lowest.is_some_and(|key| key <= selection.key)
    }

    fn facts<'f>(
        &self,
        rows: &'f [TagRow],
        heads: &'f Heads,
        manifests: &BTreeMap<Digest, Manifest>,
    ) -> Facts<'f> {
        let policy = &self.watched.policy;
        let rows: Vec<&TagRow> = rows.iter().filter(|row| row.fit != Some(false)).collect();
        let agreeing = |row: &TagRow, head| AgreeingTag {
            head,
            commit: row.commit.clone(),
        };
        let tags = rows.iter().map(|row| agreeing(row, self.candidate(row)));
        let mut tags: Vec<AgreeingTag> = tags.collect();
        let selected = self
            .selection
            .as_ref()
            .and_then(|selection| heads.tags.get(&selection.tag_id));
        if let (Some(row), Some(selection)) = (selected, &self.selection)
            && rows.iter().all(|one| one.tag_id != row.tag_id)
        {
            let known = row.digest.as_ref() == Some(&selection.digest)
                && selection.rule == self.fingerprint;
            let manifest = row.digest.as_ref().and_then(|digest| manifests.get(digest));
            let fit = if known {
                Fit::Fits
            } else {
                policy.rule().fit(manifest)
            };
            tags.push(agreeing(row, self.head(row, fit)));
        }
        Facts {
            rows,
            tags,
            selected,
            last: self.last(),
        }
    }

    /// Selects one of these tags.
    fn choose(&self, facts: &Facts<'_>, tags: &[TagHead], now: OffsetDateTime) -> Choice {
        let policy = &self.watched.policy;
        let selection = policy.select(tags, facts.last.as_ref(), now);
        let again = selection.again.map(|at| {
            let unread = facts
                .rows
                .iter()
                .filter(|row| row.fit.is_none() && !row.read);
            let since = unread.map(|row| row.recorded_at).max();
            let since = since.filter(|_| policy.rule().needs_manifest());
            since.map_or(at, |since| at.min(next_look(since, now)))
        });
        let (rows, selected_row) = (&facts.rows, facts.selected);
        match selection.outcome {
            Outcome::Select { head, key, change } => {
                let row = rows.iter().copied().chain(selected_row);
                let row = row.into_iter().find(|row| row.tag == head.tag);
                let chosen = row.zip(head.digest.clone()).map(|(row, digest)| Selection {
                    registry: self.watched.registry.clone(),
                    repository: self.watched.repository.clone(),
                    tag_id: row.tag_id,
                    tag: head.tag.clone(),
                    key,
                    digest,
                    revision: row.revision,
                    rule: self.fingerprint.clone(),
                    selected_at: now,
                });
                Choice {
                    is_head: true,
                    policy: self.policy,
                    selected: chosen
                        .as_ref()
                        .map(|chosen| selected(chosen, change, head.recorded_at)),
                    selection: chosen,
                    again,
                }
            }
            Outcome::Keep(_) => self.keep(selected_row, again, true),
            Outcome::Wait { .. } | Outcome::Hold(_) => self.keep(selected_row, again, false),
            Outcome::Nothing => Choice {
                again,
                ..Choice::default()
            },
        }
    }

    /// Returns the last selection, if there is one. `store`: as a selection of the present rule.
    fn keep(&self, row: Option<&TagRow>, again: Option<OffsetDateTime>, store: bool) -> Choice {
        let Some(last) = &self.selection else {
            return Choice {
                again,
                ..Choice::default()
            };
        };
        let mut kept = last.clone();
        let row = row.filter(|row| row.digest.as_ref() == Some(&last.digest));
        if let Some(row) = row {
            kept.revision = row.revision;
        }
        if kept.rule != self.fingerprint {
            kept.rule.clone_from(&self.fingerprint);
            let times = row.map(|row| self.head(row, Fit::Fits).times);
            let rule = self.watched.policy.rule();
            let key = times.and_then(|times| rule.key_beyond_filters(&kept.tag, times));
            kept.key = key.unwrap_or(kept.key);
        }
        let recorded_at = row.map_or(last.selected_at, |row| row.recorded_at);
        Choice {
            is_head: row.is_some(),
            policy: self.policy,
            // The digest is known: it was selected before.
            selected: Some(selected(&kept, Change::Higher, recorded_at)),
            selection: Some(kept).filter(|kept| store && kept != last),
            again,
        }
    }
}

/// The facts that the choice of an image depends on.
struct Facts<'f> {
    /// The best candidates.
    rows: Vec<&'f TagRow>,
    /// The best candidates and the selected tag.
    tags: Vec<AgreeingTag>,
    /// The tag that was selected last.
    selected: Option<&'f TagRow>,
    last: Option<Last>,
}

impl Facts<'_> {
    fn tags(&self) -> Vec<TagHead> {
        self.tags.iter().map(|tag| tag.head.clone()).collect()
    }

    fn side<'s>(&'s self, image: &'s PolicyImage) -> Side<'s> {
        Side {
            policy: &image.watched.policy,
            tags: &self.tags,
            last: self.last.as_ref(),
        }
    }

    /// Returns the time of the next look at the commits of images whose manifest is being read.
    fn look_for_manifests(&self, agree: Agree, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let rows = self.rows.iter().filter(|row| !row.read);
        let newest = rows.map(|row| row.recorded_at).max();
        let newest = newest.filter(|since| agree == Agree::Commit && *since + COMMIT_WAIT > now);
        newest.map(|since| next_look(since, now))
    }
}

impl Choice {
    /// Returns the choice, to be looked at again at this time at the latest.
    fn not_after(mut self, again: Option<OffsetDateTime>) -> Choice {
        self.again = self.again.into_iter().chain(again).min();
        self
    }
}

/// Returns the time of the next look at a manifest that is being read since this time.
fn next_look(since: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    let waited = Duration::try_from(now - since).unwrap_or_default();
    now + (waited / 4).clamp(PAUSES.0, PAUSES.1)
}

/// Returns the image of a selection. Its head passes all gates; the caller reads the gates of a
/// digest that the last rollout does not have.
fn selected(selection: &Selection, change: Change, recorded_at: OffsetDateTime) -> Selected {
    Selected {
        image: Image {
            registry: selection.registry.clone(),
            repository: selection.repository.clone(),
            tag: selection.tag.clone(),
        },
        head: Head {
            revision: selection.revision,
            digest: Some(selection.digest.clone()),
            origin: Origin::Event,
            own_time: true,
            held_before: true,
            confirmed_at: None,
            manifest: ManifestState::Read,
            recorded_at,
        },
        configuration: matches!(change, Change::Configuration { .. }),
    }
}
