//! A rollout: one numbered attempt to bring a trigger's target to one set of pinned images.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion, words};
use crate::{Digest, Event, Image, Pinned};

words! {
    /// How far a rollout is.
    RolloutState {
        /// Recorded, not begun.
        Pending = "pending",
        /// At least one attempt was begun; it may be waiting for the next.
        Running = "running",
        /// The target took it.
        Succeeded = "succeeded",
        /// Given up.
        Failed = "failed",
        /// A newer one took its place before it succeeded.
        Superseded = "superseded",
    }
}

words! {
    /// What made a rollout necessary.
    CauseReason {
        /// The first one of its trigger.
        Start = "start",
        /// A tag moved.
        Revision = "revision",
        /// The trigger was resumed.
        Resume = "resume",
        /// The trigger's images were configured anew.
        Configuration = "configuration",
    }
}

/// Why a rollout was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// What made it necessary.
    pub reason: CauseReason,
    /// Names of the trigger's images whose digest differs from the rollout before.
    pub changed: Vec<String>,
}

/// One image of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutImage {
    /// The image watched.
    pub image: Image,
    /// Its revision at that moment.
    pub revision: u64,
    /// The digest of that revision.
    pub digest: Digest,
    /// What to run.
    pub pinned: Pinned,
}

/// One numbered attempt to bring a trigger's target to one set of pinned images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// Unique, and the `webhook-id` of every attempt.
    pub id: String,
    /// Name of the trigger.
    pub trigger: String,
    /// 1, 2, 3 … per trigger. A target drops numbers below the last that it has seen.
    pub number: u64,
    /// How far it is.
    pub state: RolloutState,
    /// The whole set, by the names in the trigger. Never changed.
    pub images: BTreeMap<String, RolloutImage>,
    /// Why it was recorded.
    pub cause: Cause,
    /// Attempts begun.
    pub attempts: u32,
    /// When it was recorded.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// When it succeeded, failed or was superseded.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<OffsetDateTime>,
    /// What the last failed attempt said.
    pub error: Option<String>,
}

impl Rollout {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.rollout.v1";

    /// The message about it, at `time`.
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
}
