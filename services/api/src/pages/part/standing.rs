//! Words and badges of triggers, rollouts and gates.

use maud::{Markup, html};
use tagtrail_proto::{CauseReason, Condition, Digest, RolloutState};

use crate::pages::part::digest::change;
use crate::pages::part::kind::{Tone, badge};

/// Returns the badge of the condition of a trigger.
pub(crate) fn condition(condition: Condition) -> Markup {
    let (tone, icon) = match condition {
        Condition::Settled => (Tone::Good, "ok"),
        Condition::Waiting => (Tone::Warning, "late"),
        Condition::Held => (Tone::Warning, "hold"),
        Condition::RollingOut => (Tone::Marked, "run"),
        Condition::Failing | Condition::Broken => (Tone::Bad, "fail"),
        Condition::Paused => (Tone::Warning, "pause"),
        Condition::Removed => (Tone::Plain, "deleted"),
    };
    badge(tone, icon, &words(condition.as_str()))
}

/// Returns colour and icon of the state of a rollout.
pub(crate) fn look(state: RolloutState) -> (Tone, &'static str) {
    match state {
        RolloutState::Held => (Tone::Warning, "hold"),
        RolloutState::AwaitingApproval => (Tone::Marked, "user"),
        RolloutState::Pending | RolloutState::Running => (Tone::Marked, "run"),
        RolloutState::Watching => (Tone::Marked, "late"),
        RolloutState::Succeeded => (Tone::Good, "ok"),
        RolloutState::Failed | RolloutState::Rejected => (Tone::Bad, "fail"),
        RolloutState::Superseded => (Tone::Plain, "sup"),
        RolloutState::Cancelled => (Tone::Plain, "deleted"),
    }
}

/// Returns the badge of the state of a rollout.
pub(crate) fn state(state: RolloutState) -> Markup {
    let (tone, icon) = look(state);
    badge(tone, icon, &words(state.as_str()))
}

/// Returns a fixed word as people read it.
pub(crate) fn words(word: &str) -> String {
    word.replace('_', " ")
}

/// Returns the cause of a rollout in words.
pub(crate) fn cause(reason: CauseReason) -> &'static str {
    match reason {
        CauseReason::Start => "the first rollout",
        CauseReason::Adopted => "adopted, never sent",
        CauseReason::Revision => "a tag moved",
        CauseReason::Resume => "resumed",
        CauseReason::Configuration => "the configuration changed",
        CauseReason::Order => "ordered",
        CauseReason::Rollback => "rolled back",
        CauseReason::Upstream => "it lasted upstream",
        CauseReason::Release => "released",
    }
}

/// An image that differs: name, and the digests before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) name: String,
    pub(crate) from: Option<Digest>,
    pub(crate) to: Option<Digest>,
}

/// Returns the images that differ, in a line of text.
pub(crate) fn differences(all: &[Difference]) -> Markup {
    html! {
        @for (place, one) in all.iter().enumerate() {
            @if place > 0 { "; " }
            code { (one.name) } " " (change(one.from.as_ref(), one.to.as_ref()))
        }
    }
}

/// Names the way in which a change was found that no event reported.
pub(crate) fn finder(origin: &str) -> &'static str {
    match origin {
        "observed" => "a pull",
        _ => "comparing the registry",
    }
}
