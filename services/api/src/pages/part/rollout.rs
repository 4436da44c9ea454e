//! Rollouts in lists: address, state and a few words.

use maud::{Markup, html};
use tagtrail_proto::{Rollout, RolloutState};

use crate::pages::part::icon::icon_for;
use crate::pages::part::kind::Tone;
use crate::pages::part::text::counted;
use crate::pages::part::when::span;

/// Returns the address of the page of a rollout.
pub(crate) fn address(trigger: &str, number: u64) -> String {
    format!("/rollouts/{trigger}/{number}")
}

/// Returns colour and icon of a state.
pub(crate) fn look(state: RolloutState) -> (Tone, &'static str) {
    match state {
        RolloutState::Succeeded => (Tone::Good, "ok"),
        RolloutState::Failed => (Tone::Bad, "fail"),
        RolloutState::Held | RolloutState::AwaitingApproval => (Tone::Warning, "hold"),
        RolloutState::Pending | RolloutState::Running | RolloutState::Watching => {
            (Tone::Marked, "run")
        }
        RolloutState::Superseded => (Tone::Plain, "sup"),
        _ => (Tone::Plain, "quiet"),
    }
}

/// Returns the icon of a state, which stands for its word.
pub(crate) fn state_icon(state: RolloutState) -> Markup {
    let (tone, icon) = look(state);
    html! { span class=(tone.class()) { (icon_for(icon, &words(state))) } }
}

/// Returns the word of a state, with spaces.
pub(crate) fn words(state: RolloutState) -> String {
    state.as_str().replace('_', " ")
}

/// Returns the time that a rollout took if it succeeded, and otherwise its state.
pub(crate) fn summary(rollout: &Rollout) -> String {
    match (rollout.state, rollout.finished_at) {
        (RolloutState::Succeeded, Some(at)) => span(at - rollout.created_at),
        (RolloutState::Failed | RolloutState::Running, _) if rollout.attempts > 1 => {
            let attempts = counted(rollout.attempts.into(), "attempt", "attempts");
            format!("{}, {attempts}", words(rollout.state))
        }
        _ => words(rollout.state),
    }
}
