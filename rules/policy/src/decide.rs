//! The decision whether a trigger needs a new rollout. The decision is level-triggered: it depends
//! on the present heads alone, so a missed revision in between does no harm. The tag of an image
//! with a policy is selected before.

mod order;
mod settle;
mod start;

use std::collections::{BTreeMap, BTreeSet};

use tagtrail_proto::{Cause, CauseReason, Gate, Image, Pinned, Registry, RolloutImage, Waiting};
use time::OffsetDateTime;

pub use order::{Order, decide_order};
pub use settle::{Settle, decide_within};
pub use start::{FirstSight, Reported, Start};

use crate::gates::{Head, ManifestState, Rules, closed, look_again};
use crate::watched::Watched;

/// The facts that the decision depends on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The watched images, by their names in the trigger.
    pub images: &'a BTreeMap<String, Watched>,
    /// True if the images are those of triggers before this one in a chain, and none of its own.
    pub followed: bool,
    /// The image that each of them stands for now, without those that have no revision, and those
    /// whose policy selects nothing.
    pub selected: &'a BTreeMap<String, Selected>,
    /// The images of the last rollout, in any state, by their names in the trigger.
    pub last: Option<&'a BTreeMap<String, RolloutImage>>,
    /// True if the target may lack the images of the last rollout: it failed, or its images were
    /// adopted and never sent.
    pub unsent: bool,
    /// True if the images of the last rollout were sent to another target than the one of today.
    pub target_changed: bool,
    /// True if the removal of the trigger cut its last rollout off.
    pub cut_off: bool,
    /// How the first rollout of the trigger begins.
    pub first: FirstSight<'a>,
    /// True while a person has paused the trigger.
    pub paused: bool,
    /// True if a person resumed the trigger after the last decision.
    pub resumed: bool,
    /// The time since the newest head before a rollout may start, if there is one.
    pub settle: Option<Settle>,
    /// The registries that can be asked.
    pub asked: &'a BTreeSet<Registry>,
    /// True if the images that stand for a digest are rolled out while others stand for none.
    pub partial: bool,
    /// The time of the decision.
    pub now: OffsetDateTime,
}

/// The image that a watched image stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The image with its tag.
    pub image: Image,
    /// The revision of the tag. Of a policy that keeps a digest which the tag no longer has: the
    /// revision that had this digest.
    pub head: Head,
    /// True if another tag or digest is selected because a person changed the policy.
    pub configuration: bool,
}

impl Selected {
    /// Returns the head of an image whose tag the trigger names.
    #[must_use]
    pub fn tag(image: Image, head: Head) -> Selected {
        Selected {
            image,
            head,
            configuration: false,
        }
    }

    /// Returns the image, pinned to the digest; `None` if the tag is deleted.
    #[must_use]
    pub fn pinned(&self) -> Option<Pinned> {
        let digest = self.head.digest.as_ref()?;
        Some(self.image.pinned(digest))
    }
}

/// The decision for one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to do: the last rollout already has these images, one image has no digest or is a
    /// tombstone (of a trigger with partial sets: every image), or the trigger is paused.
    Nothing {
        /// The images that are tombstones.
        waiting: Vec<Waiting>,
    },
    /// A rollout is needed, but gates are closed.
    Wait {
        /// The time at which to decide again.
        again: OffsetDateTime,
        /// The closed gates.
        waiting: Vec<Waiting>,
    },
    /// Record a rollout of these images. One with the cause `adopted` has succeeded already.
    Start {
        /// The images, by their names in the trigger.
        images: BTreeMap<String, RolloutImage>,
        /// The reason that the rollout records.
        cause: Cause,
    },
}

impl Decision {
    const NOTHING: Decision = Decision::Nothing {
        waiting: Vec::new(),
    };

    /// Returns the closed gates.
    #[must_use]
    pub fn waiting(&self) -> &[Waiting] {
        match self {
            Decision::Nothing { waiting } | Decision::Wait { waiting, .. } => waiting,
            Decision::Start { .. } => &[],
        }
    }
}

/// Decides for one trigger.
pub fn decide(situation: &Situation<'_>) -> Decision {
    if situation.paused {
        return Decision::NOTHING;
    }
    let images = match wanted(situation) {
        Ok(images) => images,
        Err(nothing) => return nothing,
    };
    let pinned_before = |name: &String| {
        situation
            .last
            .and_then(|last| last.get(name))
            .map(|image| &image.pinned)
    };
    let changed: Vec<String> = images
        .iter()
        .filter(|(name, image)| pinned_before(name) != Some(&image.pinned))
        .map(|(name, _)| name.clone())
        .collect();
    let same_names = situation.last.is_some_and(|last| match situation.partial {
        true => last.keys().all(|name| images.contains_key(name)),
        false => last.keys().eq(images.keys()),
    });
    // A person who resumes a trigger after a failed rollout wants another attempt. Adopted images
    // are sent for the first time.
    let again = situation.unsent && situation.resumed || situation.must_send_again();
    if changed.is_empty() && same_names && !again {
        return Decision::Nothing {
            waiting: tombstones(situation),
        };
    }
    let reported = situation.reported();
    if matches!(reported, Reported::Unknown) {
        return Decision::NOTHING;
    }
    if let Reported::Set(images) = reported {
        return adopt(images.clone());
    }
    if situation.last.is_none() && !situation.resumed && situation.were_there(&changed) {
        return adopt(images);
    }
    let waiting = closed_gates(situation, &changed);
    let pauses = waiting.iter().map(|gate| look_again(gate, situation.now));
    if let Some(again) = pauses.max() {
        return Decision::Wait { again, waiting };
    }
    let covered = |name: &String, image: &RolloutImage| {
        let watched = situation.images.get(name);
        watched.is_some_and(|watched| watched.covers(&image.image))
    };
    let same_watched = situation
        .last
        .is_some_and(|last| last.iter().all(|(name, image)| covered(name, image)) && same_names);
    let same_watched = same_watched || situation.followed;
    let by_person = situation.selected.values().any(|one| one.configuration);
    let reason = match situation.last {
        None => CauseReason::Start,
        Some(_) if situation.resumed => CauseReason::Resume,
        Some(_) if !same_watched || by_person => CauseReason::Configuration,
        Some(_) if situation.must_send_again() => CauseReason::Configuration,
        Some(_) if situation.followed => CauseReason::Upstream,
        Some(_) => CauseReason::Revision,
    };
    let not_adopted = match reported {
        Reported::NoSet(why) => Some(why.to_owned()),
        _ => None,
    };
    Decision::Start {
        images,
        cause: Cause {
            reason,
            changed,
            not_adopted,
        },
    }
}

/// Returns the decision to record images as rolled out, which the target has already.
fn adopt(images: BTreeMap<String, RolloutImage>) -> Decision {
    let cause = Cause {
        reason: CauseReason::Adopted,
        changed: images.keys().cloned().collect(),
        not_adopted: None,
    };
    Decision::Start { images, cause }
}

/// Returns the set of images that the trigger wants, whether or not it is paused or a gate is
/// closed; `None` if one of them stands for no digest that can run.
#[must_use]
pub fn wanted_set(situation: &Situation<'_>) -> Option<BTreeMap<String, RolloutImage>> {
    wanted(situation).ok()
}

/// Returns the images of the heads, or the decision if one of the images has none. A rollout sets
/// all images of a trigger, so one unknown or deleted image stops the rollout and leaves the
/// deployment as it is.
///
/// With [`Situation::partial`] such an image stays as it is in the last rollout. If that has none,
/// the set is without it, and the target keeps its image there. At least one image must stand
/// for a digest.
fn wanted(situation: &Situation<'_>) -> Result<BTreeMap<String, RolloutImage>, Decision> {
    let mut images = BTreeMap::new();
    let tombstones = tombstones(situation);
    let mut some = false;
    for (name, watched) in situation.images {
        let selected = situation.selected.get(name);
        let live = |one: &&Selected| one.head.manifest != ManifestState::Tombstone;
        let live = selected.filter(live).and_then(|one| {
            let digest = one.head.digest.as_ref()?;
            Some((one, digest))
        });
        if let Some((Selected { image, head, .. }, digest)) = live {
            let wanted = RolloutImage {
                actor: None,
                previous: None,
                image: image.clone(),
                revision: head.revision,
                digest: digest.clone(),
                pinned: image.pinned(digest),
            };
            images.insert(name.clone(), wanted);
            some = true;
        } else if situation.partial {
            let kept = situation.last.and_then(|last| last.get(name));
            let kept = kept.filter(|kept| watched.covers(&kept.image));
            images.extend(kept.map(|kept| (name.clone(), kept.clone())));
        } else {
            return Err(Decision::Nothing {
                waiting: tombstones,
            });
        }
    }
    // A trigger that follows others has no image before one of their sets counts.
    match some {
        true => Ok(images),
        false => Err(Decision::Nothing {
            waiting: tombstones,
        }),
    }
}

/// Returns the closed gates of the images that are tombstones.
fn tombstones(situation: &Situation<'_>) -> Vec<Waiting> {
    let selected = situation.images.keys();
    let selected = selected.filter_map(|name| situation.selected.get(name));
    let made_up = selected.filter(|one| one.head.manifest == ManifestState::Tombstone);
    let gates = made_up.filter_map(|Selected { image, head, .. }| {
        closed(image, head, rules(situation, image), situation.now)
    });
    gates.collect()
}

/// Returns the closed gates of the images that a rollout would change. A person who resumes a
/// trigger skips all gates but `settle`.
fn closed_gates(situation: &Situation<'_>, changed: &[String]) -> Vec<Waiting> {
    let selected = changed
        .iter()
        .filter_map(|name| situation.selected.get(name));
    let mut waiting: Vec<Waiting> = selected
        .filter(|_| !situation.resumed)
        .filter_map(|Selected { image, head, .. }| {
            closed(image, head, rules(situation, image), situation.now)
        })
        .collect();
    let all = situation.selected.values();
    let newest = all.max_by_key(|one| one.head.recorded_at);
    if let (Some(Selected { image, head, .. }), Some(settle)) = (newest, situation.settle) {
        let quiet = head.recorded_at + settle.after(head);
        if quiet > situation.now {
            waiting.push(Waiting {
                gate: Gate::Settle,
                image: image.clone(),
                registry: image.registry.clone(),
                why: "the tag changed less than `settle` ago".to_owned(),
                since: head.recorded_at,
                opens_at: Some(quiet),
            });
        }
    }
    waiting
}

fn rules(situation: &Situation<'_>, image: &Image) -> Rules {
    Rules {
        asked: situation.asked.contains(&image.registry),
        // `settle` gives a client the time for its next step, and `0s` asks for no delay.
        skip_manifest: situation.settle.is_some(),
    }
}

#[cfg(test)]
mod tests;
