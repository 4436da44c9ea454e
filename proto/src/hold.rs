//! A hold: a recorded reason not to begin rollouts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Event;
use crate::event::{DataContentType, SpecVersion, words};

words! {
    /// A change of a hold.
    HoldChange {
        /// The hold is in force from now on.
        Set = "set",
        /// A person has ended the hold.
        Released = "released",
        /// The hold has ended by itself, at `until`.
        Expired = "expired",
    }
}

/// A hold after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Number of the hold.
    pub id: u64,
    /// The change.
    pub change: HoldChange,
    /// `freeze`: no new images. `pin`: no images but these. `fault`: something unexpected happened.
    pub kind: String,
    /// Name of the trigger that is held; of a freeze, perhaps a pattern with `*`.
    pub triggers: String,
    /// Reason of the hold, if one was given.
    pub reason: Option<String>,
    /// The freeze also holds images that have been rolled out before.
    pub hard: bool,
    /// The person who set the hold; of a fault, the service.
    pub actor: String,
    /// The person who ended the hold.
    pub released_by: Option<String>,
    /// Time of setting.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// Time at which the hold ends by itself.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<OffsetDateTime>,
}

impl Held {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.hold.v1";

    /// Returns the event that carries the hold, as of `time`.
    #[must_use]
    pub fn event(self, time: OffsetDateTime) -> Event<Held> {
        Event {
            specversion: SpecVersion::V1,
            // The time tells apart holds with one number, before and after a loss of the store.
            id: format!(
                "hold/{}/{}/{}",
                self.id,
                self.change,
                time.unix_timestamp_nanos() / 1000
            ),
            source: "tagtrail/hold".to_owned(),
            r#type: Held::TYPE.to_owned(),
            subject: self.triggers.clone(),
            time,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }
}
