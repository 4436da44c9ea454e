//! Rollouts in lists: address, state and a few words.

use maud::{Markup, html};
use tagtrail_proto::{Rollout, RolloutState};

use crate::pages::part::icon::icon_for;
use crate::pages::part::standing::{look, words};
use crate::pages::part::text::counted;
use crate::pages::part::when::span;

/// Returns the address of the page of a rollout.
pub(crate) fn address(trigger: &str, number: u64) -> String {
    format!("/rollouts/{trigger}/{number}")
}

/// Returns the icon of a state, which stands for its word.
pub(crate) fn state_icon(state: RolloutState) -> Markup {
    let (tone, icon) = look(state);
    html! { span class=(tone.class()) { (icon_for(icon, &words(state.as_str()))) } }
}

/// Returns the time that a rollout took, from its planning to its end: the one length of all lists
/// and of the report of rollout times. `None`: it has not ended.
pub(crate) fn took(rollout: &Rollout) -> Option<String> {
    let end = rollout.finished_at?;
    Some(span(end - rollout.created_at))
}

/// Returns the time that a rollout took if it succeeded, and otherwise its state.
pub(crate) fn summary(rollout: &Rollout) -> String {
    match (rollout.state, took(rollout)) {
        (RolloutState::Succeeded, Some(took)) => format!("took {took}"),
        (RolloutState::Failed | RolloutState::Running, _) if rollout.attempts > 1 => {
            let attempts = counted(rollout.attempts.into(), "attempt", "attempts");
            format!("{}, {attempts}", words(rollout.state.as_str()))
        }
        _ => words(rollout.state.as_str()),
    }
}
