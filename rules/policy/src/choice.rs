//! The choice of the tag that an image with a policy stands for, from the best candidates of the
//! policy. The caller reads the candidates, and stores the selections of recorded rollouts.

mod facts;
mod image;
mod why;

use std::collections::BTreeMap;

use tagtrail_proto::{Digest, Image, Reason, Registry, Repository, RolloutImage, Tag};
use time::OffsetDateTime;

use crate::agree::{Agree, Side};
use crate::decide::Selected;
use crate::gates::Head;
use crate::selection::{Fault, Key};
use crate::watched::Watched;

pub use facts::Facts;
pub use image::PolicyImage;

/// A tag with its head, as a candidate of a policy or as the tag that is selected.
#[derive(Debug, Clone)]
pub struct TagRow {
    /// The id of the tag, for the caller.
    pub tag_id: i64,
    /// The tag.
    pub tag: Tag,
    /// `None`: the tag is deleted.
    pub digest: Option<Digest>,
    /// The effective time of the head.
    pub head_at: OffsetDateTime,
    /// The number of the head.
    pub revision: u64,
    /// The time at which the indexer recorded the head.
    pub recorded_at: OffsetDateTime,
    /// True if a client made the image up in order to delete the tag.
    pub tombstone: bool,
    /// The time of the build, if the manifest is read and names one.
    pub created: Option<OffsetDateTime>,
    /// True if the manifest of the digest is read.
    pub read: bool,
    /// The commit, if the manifest is read and names one.
    pub commit: Option<String>,
    /// Whether the manifest fits the policy, if that was judged.
    pub fit: Option<bool>,
}

/// The tag that a policy selected for an image of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The registry of the tag.
    pub registry: Registry,
    /// The repository of the tag.
    pub repository: Repository,
    /// The id of the tag, for the caller.
    pub tag_id: i64,
    /// The tag.
    pub tag: Tag,
    /// Its key at that time.
    pub key: Key,
    /// Its digest at that time.
    pub digest: Digest,
    /// Its revision at that time.
    pub revision: u64,
    /// The fingerprint of the policy.
    pub rule: Vec<u8>,
    /// The time of the selection.
    pub selected_at: OffsetDateTime,
}

/// The choice of a policy.
#[derive(Debug, Default)]
pub struct Choice {
    /// The image that the policy stands for, if it has selected one.
    pub selected: Option<Selected>,
    /// True if the digest is the one of the tag's head. False: the policy keeps an older digest.
    pub is_head: bool,
    /// The id of the policy.
    pub policy: i32,
    /// The selection to store once the image is part of a recorded rollout.
    pub selection: Option<Chosen>,
    /// The time at which the choice may change although nothing happens.
    pub again: Option<OffsetDateTime>,
    /// The reason for which the best tag is not selected. Without an image: the reason for which
    /// the images of the trigger are not those of the newest build.
    pub reason: Option<Reason>,
    /// The change that a person must look at: the last selection stays until the trigger is
    /// released.
    pub fault: Option<Fault>,
}

/// The images of a rollout, by their names in the trigger.
pub type Set = BTreeMap<String, RolloutImage>;

impl Choice {
    /// Returns whether this set has the selected image, pinned to the same digest.
    #[must_use]
    pub fn is_in(&self, name: &str, set: Option<&Set>) -> bool {
        let pinned = set.and_then(|set| set.get(name)).map(|image| &image.pinned);
        let selected = self.selected.as_ref().and_then(Selected::pinned);
        pinned.is_some() && pinned == selected.as_ref()
    }

    /// Returns the selection to store. `new` is the rollout that will be recorded: an order may
    /// roll out other images than the selected ones. Without one, the last rollout must have the
    /// image already.
    #[must_use]
    pub fn to_store(&self, name: &str, last: Option<&Set>, new: Option<&Set>) -> Option<&Chosen> {
        let set = new.or(last);
        self.selection.as_ref().filter(|_| self.is_in(name, set))
    }

    /// Returns the choice, to be looked at again at this time at the latest.
    fn not_after(mut self, again: Option<OffsetDateTime>) -> Choice {
        self.again = self.again.into_iter().chain(again).min();
        self
    }
}

/// Returns the choices of the policies of a trigger, by the names of the images. `complete`: no
/// image with a policy is left out.
#[must_use]
pub fn choose(
    images: &[(&str, &PolicyImage, Facts<'_>)],
    agree: Option<Agree>,
    complete: bool,
    now: OffsetDateTime,
) -> BTreeMap<String, Choice> {
    let Some(agree) = agree else {
        let choices = images.iter().map(|(name, image, facts)| {
            let choice = image.choose(facts, &facts.tags(), now);
            ((*name).to_owned(), choice)
        });
        return choices.collect();
    };
    // Without all images there is nothing to agree on.
    if !complete {
        return BTreeMap::new();
    }
    let sides: Vec<Side<'_>> = images
        .iter()
        .map(|(_, image, facts)| facts.side(image))
        .collect();
    let value = agree.newest(&sides, now);
    let choices = images
        .iter()
        .zip(&sides)
        .map(|((name, image, facts), side)| {
            let choice = match value {
                Some(value) => image.choose(facts, &agree.tags_of(side, value), now),
                None => image.keep(facts.selected, None, false),
            };
            let again = facts.look_for_manifests(agree, now);
            ((*name).to_owned(), choice.not_after(again))
        });
    let mut choices: BTreeMap<String, Choice> = choices.collect();
    let names = images.iter().map(|(name, ..)| *name);
    let apart = why::apart(agree, value, names.zip(&sides));
    if let (Some(apart), Some(first)) = (apart, choices.values_mut().next()) {
        first.reason = Some(apart);
    }
    choices
}

/// Returns the image that each image of a trigger stands for, given the heads of its tags and of
/// changed selections.
pub fn selected<'c>(
    images: &BTreeMap<String, Watched>,
    choices: impl Iterator<Item = (&'c str, &'c Choice)>,
    heads: &BTreeMap<Image, Head>,
) -> BTreeMap<String, Selected> {
    let tags = images.iter().filter_map(|(name, watched)| {
        let image = watched.tag()?;
        let selected = Selected::tag(image.clone(), heads.get(image)?.clone());
        Some((name.clone(), selected))
    });
    let chosen = choices.filter_map(|(name, choice)| {
        let mut selected = choice.selected.clone()?;
        let head = heads.get(&selected.image).filter(|_| choice.is_head);
        if let Some(head) = head.filter(|head| head.digest == selected.head.digest) {
            selected.head = head.clone();
        }
        Some((name.to_owned(), selected))
    });
    tags.chain(chosen).collect()
}
