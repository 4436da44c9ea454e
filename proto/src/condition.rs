//! A change of a trigger's condition.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion};
use crate::{Condition, Event, Reason};

/// A trigger whose condition has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionChange {
    /// Name of the trigger.
    pub trigger: String,
    /// The condition from now on.
    pub condition: Condition,
    /// The condition of the event before; `null` in the first event of a trigger.
    pub before: Option<Condition>,
    /// The reasons, those about the whole trigger first.
    pub reasons: Vec<Reason>,
}

impl ConditionChange {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.trigger.v1";

    /// Returns the event that carries the change, as of `time`.
    #[must_use]
    pub fn event(self, time: OffsetDateTime) -> Event<ConditionChange> {
        Event {
            specversion: SpecVersion::V1,
            id: format!(
                "{}/{}/{}",
                self.trigger,
                self.condition,
                time.unix_timestamp_nanos() / 1000
            ),
            source: format!("tagtrail/trigger/{}", self.trigger),
            r#type: ConditionChange::TYPE.to_owned(),
            subject: self.trigger.clone(),
            time,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }
}
