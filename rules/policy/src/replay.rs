//! A replay of history through the rules of a trigger: the rollouts that there would have been.
//!
//! The caller applies the changes of tags in the order in which they were recorded, and moves the
//! clock. Selection, agreement, gates and decision are those of the planner. A rollout takes no
//! time and always succeeds, people approve at once, and nobody gives orders.

mod begin;
mod report;
mod summary;
mod tags;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tagtrail_proto::{
    CauseReason, Digest, Gate, Image, Manifest, Origin, Registry, Repository, Tag, Waiting,
};
use time::OffsetDateTime;

use crate::agree::Agree;
use crate::begin::Settings;
use crate::choice::{self, Choice, Facts, PolicyImage, Set};
use crate::decide::{Decision, FirstSight, Reported, Settle, Situation, Start, decide_within};
use crate::gates::Head;
use crate::watched::Watched;

use begin::Beginning;
pub use begin::Busy;
pub use report::{Held, Kind, MOST, Planned, Report};
use tags::Tags;

/// The shortest step of the clock.
const STEP: Duration = Duration::from_millis(1);
/// The reason for which a trigger with [`Start::Adopt`] adopts nothing.
const NOT_ASKED: &str = "a test does not ask the target: no rollout if it runs these images";
/// The name of the time for which a better image was too young.
const MIN_AGE: &str = "min_age";

/// The settings of a trigger that decide about rollouts.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The watched images, by their names in the trigger.
    pub images: BTreeMap<String, Watched>,
    /// The value that all images must share.
    pub agree: Option<Agree>,
    /// The time without a new head after which a rollout starts, if configured.
    pub settle: Option<Settle>,
    /// The longest time for which `settle` delays a rollout.
    pub settle_max: Duration,
    /// How the trigger begins if it has no images at the begin of the replay.
    pub start: Start,
    /// The images that stand for a digest are rolled out while others stand for none.
    pub partial: bool,
    /// The settings of the gates of recorded rollouts.
    pub gates: Settings,
}

/// A change of a tag, as it was recorded.
#[derive(Debug, Clone)]
pub struct Change {
    /// The registry and the repository, as a place in [`Replay::places`].
    pub place: usize,
    /// The id of the tag, for the caller.
    pub tag_id: i64,
    /// The tag.
    pub tag: Tag,
    /// The number of the revision.
    pub revision: u64,
    /// `None`: the tag was deleted.
    pub digest: Option<Digest>,
    /// The effective time.
    pub head_at: OffsetDateTime,
    /// The time of the recording.
    pub recorded_at: OffsetDateTime,
    /// The origin of the push.
    pub origin: Origin,
    /// True if a client made the image up in order to delete the tag.
    pub tombstone: bool,
    /// The time of the build, if the manifest is read and names one.
    pub created: Option<OffsetDateTime>,
    /// The commit, if the manifest is read and names one.
    pub commit: Option<String>,
    /// The manifest, if it is read and [`Replay::needs_manifests`].
    pub manifest: Option<Manifest>,
}

/// A replay at some time.
#[derive(Debug)]
pub struct Replay {
    spec: Spec,
    places: Vec<(Registry, Repository)>,
    /// The heads of the tags that the trigger names.
    heads: BTreeMap<Image, Head>,
    /// The images with policies, by name.
    tags: BTreeMap<String, (usize, Tags)>,
    /// The images of the last rollout.
    last: Option<Set>,
    adopted: bool,
    /// The rollout that is recorded and has not begun, and the facts of its gates.
    beginning: Beginning,
    /// The begin of the replay, when the trigger is configured.
    configured_at: OffsetDateTime,
    /// The closed gates of the last decision.
    waiting: Vec<Waiting>,
    /// The names of the gates that have held a rollout up since the last decision.
    held: BTreeSet<&'static str>,
    now: OffsetDateTime,
    /// True if a change since the last decision matters.
    due: bool,
    /// The time of the next decision without a change.
    again: Option<OffsetDateTime>,
    report: Report,
}

impl Replay {
    /// Returns a replay that begins at a time, without any tag.
    #[must_use]
    pub fn new(spec: Spec, begin: OffsetDateTime) -> Replay {
        let mut places = Vec::new();
        let mut tags = BTreeMap::new();
        for (name, watched) in &spec.images {
            let place = (watched.registry().clone(), watched.repository().clone());
            let at = places.iter().position(|one| *one == place);
            let at = at.unwrap_or_else(|| {
                places.push(place);
                places.len() - 1
            });
            if let Some(policy) = watched.policy() {
                let image = PolicyImage::new(policy.clone(), None);
                tags.insert(name.clone(), (at, Tags::new(image)));
            }
        }
        let ages = tags
            .values()
            .map(|(_, tags)| tags.image.watched.policy.min_age());
        let min_age = ages.max().filter(|age| !age.is_zero());
        Replay {
            spec,
            places,
            tags,
            heads: BTreeMap::new(),
            last: None,
            adopted: false,
            beginning: Beginning::default(),
            configured_at: begin,
            waiting: Vec::new(),
            held: BTreeSet::new(),
            now: begin,
            due: false,
            again: None,
            report: Report {
                min_age,
                ..Report::default()
            },
        }
    }

    /// Returns the repositories whose changes matter.
    #[must_use]
    pub fn places(&self) -> &[(Registry, Repository)] {
        &self.places
    }

    /// Returns the tags of a place whose changes matter; `None`: all.
    #[must_use]
    pub fn tags_of(&self, place: usize) -> Option<Vec<&Tag>> {
        let is_policy = self.tags.values().any(|(at, _)| *at == place);
        let images = self.spec.images.values().filter_map(Watched::tag);
        let of_place = images.filter(|image| {
            self.places.get(place) == Some(&(image.registry.clone(), image.repository.clone()))
        });
        (!is_policy).then(|| of_place.map(|image| &image.tag).collect())
    }

    /// Returns true if a rule asks for something in the manifests of images.
    #[must_use]
    pub fn needs_manifests(&self) -> bool {
        let mut tags = self.tags.values();
        tags.any(|(_, tags)| tags.image.watched.policy.rule().needs_manifest())
    }

    /// Returns the number of tags that are held in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let tags = self.tags.values();
        self.heads.len() + tags.map(|(_, tags)| tags.len()).sum::<usize>()
    }

    /// Applies a change. The next decision sees it.
    pub fn apply(&mut self, change: &Change) {
        let Some((registry, repository)) = self.places.get(change.place) else {
            return;
        };
        let image = Image {
            registry: registry.clone(),
            repository: repository.clone(),
            tag: change.tag.clone(),
        };
        let mut tags = self.spec.images.values().filter_map(Watched::tag);
        if tags.any(|tag| *tag == image) {
            self.heads.insert(image, change.head());
            self.due = true;
        }
        for (place, tags) in self.tags.values_mut() {
            if *place == change.place {
                let effect = tags.apply(change);
                self.due |= effect.matters || self.spec.agree.is_some();
                self.report.too_short += u64::from(effect.too_short);
                self.report.downgrades_prevented += u64::from(effect.only_lower);
            }
        }
    }

    /// Sets the times at which other triggers of the group were rolled out.
    pub fn set_busy(&mut self, busy: Vec<Busy>) {
        self.beginning.set_busy(busy);
    }

    /// Takes the images that the tags have now as rolled out before the replay. Nothing happens if
    /// an image has none.
    pub fn adopt(&mut self) {
        let settle = self.spec.settle.take();
        let start = std::mem::take(&mut self.spec.start);
        let gates = std::mem::take(&mut self.spec.gates);
        self.decide();
        (self.spec.settle, self.spec.start, self.spec.gates) = (settle, start, gates);
        self.report = Report {
            min_age: self.report.min_age,
            before: self.last.clone(),
            ..Report::default()
        };
        self.beginning.forget(self.last.clone());
        self.adopted = false;
    }

    /// Decides at the next time before `until` at which a decision may change although no tag does.
    /// Returns false if there is none.
    pub fn tick(&mut self, until: OffsetDateTime) -> bool {
        match self.again.filter(|again| *again < until) {
            Some(again) => {
                self.move_to(again);
                self.decide();
                true
            }
            None => false,
        }
    }

    /// Moves the clock to the time of applied changes, and decides if one of them matters.
    pub fn at(&mut self, now: OffsetDateTime) {
        self.move_to(now);
        if self.due || self.again.is_some_and(|again| again <= now) {
            self.decide();
        }
    }

    /// Ends the replay at a time.
    #[must_use]
    pub fn end(mut self, now: OffsetDateTime) -> Report {
        self.move_to(now);
        let chosen = |name: &String| {
            self.last
                .as_ref()
                .is_some_and(|last| last.contains_key(name))
        };
        let missing = self.spec.images.keys().filter(|name| !chosen(name));
        let missing: Vec<String> = missing.cloned().collect();
        self.report.paused = self.is_paused();
        // Nothing is chosen while paused.
        self.report.missing = if self.report.paused {
            Vec::new()
        } else {
            missing
        };
        self.report.waits = self.beginning.end();
        self.report.last = self.last;
        self.report
    }

    fn move_to(&mut self, now: OffsetDateTime) {
        let step = Duration::try_from(now - self.now).unwrap_or_default();
        for name in &self.held {
            self.report.hold(name, step);
        }
        self.now = now.max(self.now);
    }

    /// Returns true for a trigger that begins paused: nobody resumes it.
    fn is_paused(&self) -> bool {
        self.spec.start == Start::Paused && self.last.is_none()
    }

    fn choices(&self) -> BTreeMap<String, Choice> {
        let many = self.spec.agree.is_some();
        let best: Vec<_> = self
            .tags
            .iter()
            .map(|(name, (_, tags))| (name, tags, tags.best(many, self.now)))
            .collect();
        let images: Vec<(&str, &PolicyImage, Facts<'_>)> = best
            .iter()
            .map(|(name, tags, best)| (name.as_str(), &tags.image, tags.facts(best)))
            .collect();
        choice::choose(&images, self.spec.agree, true, self.now)
    }

    /// Returns the heads of tags, and of the selected images that the last rollout does not have.
    fn heads(&self, choices: &BTreeMap<String, Choice>) -> BTreeMap<Image, Head> {
        let mut heads = self.heads.clone();
        for (name, choice) in choices {
            let changed = choice.is_head && !choice.is_in(name, self.last.as_ref());
            let selected = choice.selected.as_ref().filter(|_| changed);
            let tags = self.tags.get(name).map(|(_, tags)| tags);
            let head = tags.and_then(|tags| {
                let chosen = choice.selection.as_ref().or(tags.image.selection.as_ref());
                tags.head(chosen?.tag_id)
            });
            if let (Some(selected), Some(head)) = (selected, head) {
                heads.insert(selected.image.clone(), head.clone());
            }
        }
        heads
    }

    fn decide(&mut self) {
        self.due = false;
        let choices = self.choices();
        let heads = self.heads(&choices);
        let named = choices.iter().map(|(name, choice)| (name.as_str(), choice));
        let selected = choice::selected(&self.spec.images, named, &heads);
        let situation = Situation {
            images: &self.spec.images,
            followed: false,
            selected: &selected,
            last: self.last.as_ref(),
            unsent: self.adopted,
            target_changed: false,
            cut_off: false,
            first: FirstSight {
                start: self.spec.start,
                reported: Reported::NoSet(NOT_ASKED),
                configured_at: self.configured_at,
            },
            paused: self.is_paused(),
            resumed: false,
            settle: self.spec.settle,
            asked: &BTreeSet::new(),
            partial: self.spec.partial,
            now: self.now,
        };
        let decision = decide_within(&situation, self.spec.settle_max, &self.waiting);
        let mut again: Vec<OffsetDateTime> = choices.values().filter_map(|one| one.again).collect();
        self.waiting.clear();
        let new = match decision {
            Decision::Nothing { waiting } => {
                self.waiting = waiting;
                None
            }
            Decision::Wait { again: at, waiting } => {
                again.push(at);
                self.waiting = waiting;
                None
            }
            Decision::Start { images, cause } => Some((images, cause)),
        };
        self.keep(&choices, new.as_ref().map(|(images, _)| images));
        if let Some((images, cause)) = new {
            self.adopted = cause.reason == CauseReason::Adopted;
            self.last = Some(images.clone());
            let gave_way = self.beginning.record(images, cause);
            self.report.gave_way += u64::from(gave_way);
        }
        self.held = self.waiting.iter().map(|one| one.gate.as_str()).collect();
        self.held.remove(Gate::Tombstone.as_str());
        if self.tags.values().any(|(_, tags)| tags.is_young(self.now)) {
            self.held.insert(MIN_AGE);
        }
        again.extend(self.begin());
        self.again = again.into_iter().min().map(|at| at.max(self.now + STEP));
    }

    /// Keeps the selections of a recorded rollout, and those that the last one has already.
    fn keep(&mut self, choices: &BTreeMap<String, Choice>, new: Option<&Set>) {
        for (name, choice) in choices {
            let chosen = choice.to_store(name, self.last.as_ref(), new).cloned();
            let tags = self.tags.get_mut(name);
            if let (Some(chosen), Some((_, tags))) = (chosen, tags) {
                let before = tags.image.selection.as_ref();
                let lower = before.is_some_and(|before| chosen.key < before.key);
                self.report.downgrades += u64::from(lower);
                tags.select(chosen);
            }
        }
    }
}

#[cfg(test)]
mod tests;
