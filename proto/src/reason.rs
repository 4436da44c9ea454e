//! Why a trigger stands as it does: its condition, and the reasons.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Gate;
use crate::event::words;

words! {
    /// The condition of a trigger: the first of these that applies.
    Condition {
        /// The trigger is no longer configured.
        Removed = "removed",
        /// The entry of the trigger or a secret can't be used.
        Broken = "broken",
        /// A person paused the trigger.
        Paused = "paused",
        /// The last attempt of the last rollout failed.
        Failing = "failing",
        /// A freeze, a pin or a fault keeps the wanted images from being rolled out.
        Held = "held",
        /// The last rollout has not ended, or one is about to be recorded.
        RollingOut = "rolling_out",
        /// A gate is closed, or an image of the trigger stands for no digest.
        Waiting = "waiting",
        /// The last rollout has the wanted images, or there is none and nothing is missing.
        Settled = "settled",
    }
}

words! {
    /// The reason for which a trigger does not roll out, or not yet.
    ReasonCode {
        /// The entry of the trigger or a secret can't be used.
        Broken = "broken",
        /// No running process has loaded these settings.
        OtherGeneration = "other_generation",
        /// Gate: a person paused the trigger.
        Pause = "pause",
        /// Gate: a freeze is in force.
        Freeze = "freeze",
        /// Gate: another set is pinned.
        Pin = "pin",
        /// Gate: something unexpected happened, and a person must look at it.
        Fault = "fault",
        /// No push and no import of the image is recorded.
        UnknownImage = "unknown_image",
        /// The tag is deleted.
        Deleted = "deleted",
        /// Gate: a client made the image up in order to delete the tag.
        Tombstone = "tombstone",
        /// The tag that the policy selected is gone.
        Removed = "removed",
        /// No tag of the repository passes the policy.
        NoCandidate = "no_candidate",
        /// The manifest of the best tag is not read yet.
        MetadataWait = "metadata_wait",
        /// The images have no tag, or no commit, in common.
        NoAgreement = "no_agreement",
        /// Gate: the registry is asked whether the tag has an older digest again.
        Recheck = "recheck",
        /// Gate: no set of the trigger before has lasted long enough.
        Upstream = "upstream",
        /// Gate: a head changed shortly before.
        Settle = "settle",
        /// Gate: the manifest of a new digest is not read yet.
        Manifest = "manifest",
        /// Gate: the best tag has its digest for too short a time.
        MinAge = "min_age",
        /// Gate: the time is outside of the windows.
        Window = "window",
        /// Gate: the last rollout began shortly before.
        Gap = "gap",
        /// Gate: another trigger of the group is being rolled out.
        Group = "group",
        /// Gate: too few people have approved the images.
        Approval = "approval",
        /// The last attempt failed, and another one follows.
        Retrying = "retrying",
        /// No attempt has succeeded for long; they go on once an hour.
        Failed = "failed",
        /// No attempt follows unless a person orders one.
        Ended = "ended",
        /// All slots for attempts are in use.
        Slots = "slots",
        /// `concurrency = "finish"`: the result of an older rollout is not known yet.
        Finish = "finish",
        /// An attempt of an older rollout is being ended.
        Ending = "ending",
        /// The target is asked which images it runs, to adopt them.
        Adopting = "adopting",
        /// The set was there before the trigger, and was never sent.
        Adopted = "adopted",
    }
}

impl From<Gate> for ReasonCode {
    fn from(gate: Gate) -> ReasonCode {
        let mut all = ReasonCode::ALL.iter();
        let code = all.find(|code| code.as_str() == gate.as_str());
        // Each gate has a code; a test holds this.
        code.copied().unwrap_or(ReasonCode::Fault)
    }
}

/// A reason for which a trigger does not roll out, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// The reason as a fixed word.
    pub code: ReasonCode,
    /// The image that the reason is about, as the trigger names it; of a policy, the repository.
    pub image: Option<String>,
    /// The reason, for people.
    pub why: String,
    /// Time since which the reason applies, if known.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub since: Option<OffsetDateTime>,
    /// Time at which the reason ends by itself, if known.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub opens_at: Option<OffsetDateTime>,
    /// A person's remedy.
    pub cure: Option<String>,
}

impl Reason {
    /// Returns a reason without image, times and remedy.
    #[must_use]
    pub fn new(code: ReasonCode, why: String) -> Reason {
        Reason {
            code,
            image: None,
            why,
            since: None,
            opens_at: None,
            cure: None,
        }
    }

    /// Returns whether this is the same reason as another one, perhaps with other details.
    #[must_use]
    pub fn is_like(&self, other: &Reason) -> bool {
        self.code == other.code && self.image == other.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_has_a_code() {
        for gate in Gate::ALL {
            assert_eq!(ReasonCode::from(*gate).as_str(), gate.as_str());
        }
    }
}
