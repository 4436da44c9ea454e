//! The settings of a trigger that follows others.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tagtrail_proto::Name;

use super::Follow;
use crate::selection::duration;

/// Most triggers that one trigger follows.
const MOST: usize = 16;

/// The settings as they are written. Exactly one of `trigger`, `all` and `any`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FollowSettings {
    /// The trigger whose sets are taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The triggers at all of which a set must have lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<String>>,
    /// The triggers at one of which a set must have lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<String>>,
    /// The time for which a set must have been current there; without it, no time.
    #[serde(
        default,
        deserialize_with = "duration::days::<365, _>",
        serialize_with = "duration::written",
        skip_serializing_if = "Option::is_none"
    )]
    pub soak: Option<Duration>,
}

impl FollowSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// The key, and the mistake with its cure.
    pub fn compile(&self) -> Result<Follow, (&'static str, String)> {
        let one = self.trigger.as_ref().map(std::slice::from_ref);
        let lists = [
            ("trigger", one),
            ("all", self.all.as_deref()),
            ("any", self.any.as_deref()),
        ];
        let mut written = lists
            .iter()
            .filter_map(|(key, list)| Some((*key, (*list)?)));
        let (Some((key, upstream)), None) = (written.next(), written.next()) else {
            let message = "needs exactly one of trigger, all and any, such as { trigger = \"shop-dev\", soak = \"30m\" }";
            return Err(("", message.to_owned()));
        };
        if upstream.is_empty() || upstream.len() > MOST {
            return Err((
                key,
                format!("names {} triggers; write 1 to {MOST}", upstream.len()),
            ));
        }
        if let Some(name) = upstream.iter().find(|name| name.parse::<Name>().is_err()) {
            return Err((key, format!("{name:?} is not the name of a trigger")));
        }
        if upstream.iter().collect::<BTreeSet<_>>().len() < upstream.len() {
            return Err((key, "names a trigger twice".to_owned()));
        }
        Ok(Follow {
            upstream: upstream.to_vec(),
            all: key == "all",
            soak: self.soak.unwrap_or_default(),
        })
    }
}
