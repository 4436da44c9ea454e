//! The gate `approval`: people approve a set of images.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;

use super::{Closed, Facts, Look};

/// The approval of a set of images by a person.
#[derive(Debug, Clone, Deserialize)]
pub struct Approval {
    /// The name of the token.
    pub actor: String,
    /// The time of the approval.
    #[serde(with = "tagtrail_proto::instant")]
    pub given_at: OffsetDateTime,
}

/// Closed while too few people have approved the images.
pub(super) fn look(facts: &Facts<'_>) -> Look {
    let Some(approvals) = &facts.settings.approvals else {
        return Look::Open(None);
    };
    // Each person counts once, by the last approval.
    let mut counted: BTreeMap<&str, OffsetDateTime> = BTreeMap::new();
    for one in facts
        .approvals
        .iter()
        .filter(|one| approvals.may_give(&one.actor))
    {
        let given_at = counted.entry(&one.actor).or_insert(one.given_at);
        *given_at = one.given_at.max(*given_at);
    }
    let mut given: Vec<OffsetDateTime> = counted.into_values().collect();
    if let Some(within) = approvals.within {
        given.retain(|given_at| *given_at + within > facts.now);
    }
    let needs = usize::from(approvals.needs);
    if given.len() < needs {
        let by = match approvals.by.as_slice() {
            [] => String::new(),
            by => format!(" by {}", by.join(", ")),
        };
        let why = format!("{} of {needs} approvals{by}", given.len());
        return Look::Closed(Closed::until(None, why));
    }
    // Of the newest approvals that suffice, the oldest ends first.
    given.sort_unstable_by(|one, other| other.cmp(one));
    let oldest = needs.checked_sub(1).and_then(|last| given.get(last));
    let ends = oldest
        .zip(approvals.within)
        .map(|(at, within)| *at + within);
    Look::Open(ends)
}
