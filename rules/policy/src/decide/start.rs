//! The first rollout of a trigger.

use std::collections::BTreeMap;

use serde::Deserialize;
use tagtrail_proto::{Origin, RolloutImage};
use time::OffsetDateTime;

use super::{Situation, wanted_set};

/// How a trigger begins when all of its images are known for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The images are rolled out, unless all of them are imported.
    #[default]
    Now,
    /// Images that were there before the trigger count as rolled out.
    Next,
    /// The images that the target reports count as rolled out.
    Adopt,
    /// The trigger begins paused.
    Paused,
}

/// The facts about the first rollout of a trigger.
#[derive(Debug, Clone, Copy)]
pub struct FirstSight<'a> {
    /// The setting.
    pub start: Start,
    /// The images that the target reports; of [`Start::Adopt`].
    pub reported: Reported<'a>,
    /// The time at which the trigger was first configured, by the clock that records heads.
    pub configured_at: OffsetDateTime,
}

/// The images that a target reports.
#[derive(Debug, Clone, Copy)]
pub enum Reported<'a> {
    /// The target is not asked.
    NotAsked,
    /// The target has not answered yet.
    Unknown,
    /// It runs these images, by their names in the trigger.
    Set(&'a BTreeMap<String, RolloutImage>),
    /// It runs no set that can be adopted, for this reason: the images are rolled out.
    NoSet(&'a str),
}

impl Situation<'_> {
    /// Returns whether the decision depends on the images that the target runs: at first sight, if
    /// the trigger adopts them. A person who resumes the trigger wants its own images rolled out.
    #[must_use]
    pub fn asks_target(&self) -> bool {
        let first = self.first.start == Start::Adopt && self.last.is_none();
        first && !self.paused && !self.resumed && wanted_set(self).is_some()
    }

    /// Returns the report of the target, if the decision depends on it.
    pub(super) fn reported(&self) -> Reported<'_> {
        match self.first.start == Start::Adopt && self.last.is_none() && !self.resumed {
            true => self.first.reported,
            false => Reported::NotAsked,
        }
    }

    /// Returns whether the target lacks the images of the last rollout by a change of the
    /// configuration.
    #[must_use]
    pub fn must_send_again(&self) -> bool {
        self.target_changed || self.cut_off
    }

    /// Returns whether these images were there before the trigger, so that at first sight they are
    /// no reason to touch the target. Images from before the first reconciliation are history.
    pub(super) fn were_there(&self, names: &[String]) -> bool {
        let selected = |name| self.selected.get(name).filter(|one| !one.configuration);
        let heads = || names.iter().map(|name| Some(&selected(name)?.head));
        let imported = heads().all(|head| head.is_some_and(|head| head.origin == Origin::Imported));
        let configured_at = self.first.configured_at;
        let older = heads().all(|head| head.is_some_and(|head| head.recorded_at < configured_at));
        imported || self.first.start == Start::Next && older
    }
}
