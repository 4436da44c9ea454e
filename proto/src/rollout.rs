//! A rollout: one numbered attempt to bring a trigger's target to one set of pinned images.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion, words};
use crate::{ClosedGate, Digest, Event, Image, Pinned};

words! {
    /// The state of a rollout.
    RolloutState {
        /// Recorded; a closed gate keeps the first attempt from beginning.
        Held = "held",
        /// Recorded; too few people have approved the images.
        AwaitingApproval = "awaiting_approval",
        /// Recorded, with no attempt begun.
        Pending = "pending",
        /// At least one attempt has begun; the next may be due later.
        Running = "running",
        /// The target took the images; whether they run well is not known yet.
        Watching = "watching",
        /// The target has the images.
        Succeeded = "succeeded",
        /// No success so far. Attempts go on once an hour, unless the target ended the relation.
        Failed = "failed",
        /// A newer rollout replaced this one before success, or an image changed before the first
        /// attempt.
        Superseded = "superseded",
        /// An approver rejected the images.
        Rejected = "rejected",
        /// A person ended the rollout, or the trigger was removed.
        Cancelled = "cancelled",
    }
}

words! {
    /// The reason for a rollout.
    CauseReason {
        /// The first rollout of its trigger.
        Start = "start",
        /// The images were there before the trigger, so they count as rolled out. They were never
        /// sent to the target.
        Adopted = "adopted",
        /// A tag moved.
        Revision = "revision",
        /// The trigger was resumed.
        Resume = "resume",
        /// The configuration of the trigger's images changed.
        Configuration = "configuration",
        /// A person ordered the rollout.
        Order = "order",
        /// A person ordered an earlier set of images again.
        Rollback = "rollback",
        /// The images have lasted at the triggers that this one follows.
        Upstream = "upstream",
        /// A person ended a pin or a fault: the present heads are rolled out.
        Release = "release",
    }
}

/// The cause of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// Reason for the rollout.
    pub reason: CauseReason,
    /// Names of the trigger's images whose digest differs from the previous rollout.
    pub changed: Vec<String>,
    /// Why the first rollout adopted no images although the trigger was to adopt them, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_adopted: Option<String>,
}

/// One image of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutImage {
    /// The watched image.
    pub image: Image,
    /// Revision of the image when the rollout was recorded. Of adopted images, 0: the target runs a
    /// digest that the image never had in history.
    pub revision: u64,
    /// Digest of the revision.
    pub digest: Digest,
    /// Pinned reference to run.
    pub pinned: Pinned,
    /// The account that pushed the revision, if known. Only answers of the API have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The revision that ran before: of the newest older rollout that succeeded; null if there is
    /// none. Only answers of the API have it.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<RanBefore>")]
    pub previous: Option<Option<RanBefore>>,
}

/// The image that a trigger ran under a name before a rollout. With a policy, its tag may differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RanBefore {
    /// The watched image.
    pub image: Image,
    /// The number of its revision.
    pub revision: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Tells null from a field that is missing.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<RanBefore>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// One numbered attempt to bring a trigger's target to one set of pinned images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// Unique id, and the `webhook-id` of every attempt.
    pub id: String,
    /// Name of the trigger.
    pub trigger: String,
    /// Number: 1, 2, 3 … per trigger and epoch. A target ignores a rollout whose epoch and number,
    /// compared in this order, are below the highest seen.
    pub number: u64,
    /// Time at which the store first recorded the trigger. After a loss of the store numbers may
    /// begin again, with a later epoch. Written with six decimals, so epochs sort as text.
    #[serde(with = "crate::instant", default = "before_epochs")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub epoch: OffsetDateTime,
    /// State of the rollout.
    pub state: RolloutState,
    /// All images, by their names in the trigger. Never changed.
    pub images: BTreeMap<String, RolloutImage>,
    /// Cause of the rollout.
    pub cause: Cause,
    /// Number of attempts begun.
    pub attempts: u32,
    /// Time of recording.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// Time at which the rollout ended.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<OffsetDateTime>,
    /// Error of the last failed attempt.
    pub error: Option<String>,
    /// The closed gates: no attempt begins before all are open. Left out if there is none.
    #[serde(
        default,
        deserialize_with = "ClosedGate::deserialize_known",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub gates: Vec<ClosedGate>,
    /// Time at which all closed gates will be open. Left out if that is not known.
    #[serde(
        default,
        with = "crate::instant::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub opens_at: Option<OffsetDateTime>,
}

/// The epoch of a message of an earlier version, which has none.
const fn before_epochs() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH
}

impl Rollout {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.rollout.v1";

    /// Returns the event that carries the rollout, as of `time`.
    #[must_use]
    pub fn event(self, time: OffsetDateTime) -> Event<Rollout> {
        Event {
            specversion: SpecVersion::V1,
            id: format!("{}/{}/{}", self.id, self.state, self.attempts),
            source: format!("tagtrail/trigger/{}", self.trigger),
            r#type: Rollout::TYPE.to_owned(),
            subject: self.trigger.clone(),
            time,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }

    /// Returns the event of the change of state with this ordinal among all changes of rollouts, as
    /// of `time`.
    #[must_use]
    pub fn changed(self, ordinal: i64, time: OffsetDateTime) -> Event<Rollout> {
        use RolloutState::{AwaitingApproval, Held, Pending};
        let mut event = self.event(time);
        if matches!(event.data.state, Held | AwaitingApproval | Pending) {
            // A rollout comes to such a state each time that a gate closes or opens.
            event.id = format!("{}/{}/{ordinal}", event.data.id, event.data.state);
        }
        event
    }
}
