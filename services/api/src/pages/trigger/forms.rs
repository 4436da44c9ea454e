//! The forms of a trigger. Each names the change that it starts.

use std::collections::BTreeMap;

use maud::{Markup, html};
use tagtrail_config::Role;
use tagtrail_proto::{Digest, ReasonCode, Rollout, RolloutState};

use crate::pages::act::shows;
use crate::pages::part::digest::short;
use crate::pages::part::form::{self, button, hidden, reason, until};
use crate::pages::part::standing::differences;
use crate::pages::part::text::{number, visible};
use crate::pages::reader::Reader;
use crate::pages::trigger::View;
use crate::pages::trigger::standing::{Standing, Watched};

/// Gates that an order may skip.
const SKIPPABLE: [ReasonCode; 4] = [
    ReasonCode::Recheck,
    ReasonCode::Manifest,
    ReasonCode::Upstream,
    ReasonCode::Window,
];

/// Draws the forms that the reader may send now.
pub(crate) fn all(reader: &Reader, view: &View) -> Markup {
    let standing = &view.standing;
    let name = &standing.trigger.name;
    if !shows(reader, Role::Operate, name, view.named) {
        return html! {
            section class="card" {
                h2 { "Acts" }
                p class="s" { "Pausing, rolling out and back take a token of role " code { "operate" } " that may act on this trigger." }
            }
        };
    }
    html! {
        @if standing.is_paused() { (resume(standing)) } @else {
            @if standing.is_held() { (release(standing)) }
            (retry(standing))
            (pause(standing))
            (roll_out(standing))
            (roll_back(view))
            (pin(view))
        }
    }
}

/// Draws a form on the trigger.
fn form(standing: &Standing, act: &str, title: &str, fields: &Markup) -> Markup {
    html! {
        section class="card" id=(act) {
            h2 { (title) }
            form method="post" action={ "/triggers/" (standing.trigger.name) "/" (act) } class="form" {
                (hidden(&standing.seen(act)))
                (fields)
            }
        }
    }
}

fn resume(standing: &Standing) -> Markup {
    let word = format!("Resume {}", standing.trigger.name);
    let fields = html! {
        p class="s" { (standing.after_resume()) }
        (reason(false))
        (button(true, "play", &word))
    };
    html! {
        (form(standing, "resume", "Resume", &fields))
        section class="card" {
            h2 { "While paused" }
            p class="s" { "Rolling out, rolling back and pinning work once the trigger is resumed." }
        }
    }
}

fn pause(standing: &Standing) -> Markup {
    let word = format!("Pause {}", standing.trigger.name);
    let fields = html! {
        p class="s" { "No rollout starts, and no attempt begins, until somebody resumes." }
        (reason(false))
        (button(false, "pause", &word))
    };
    form(standing, "pause", "Pause", &fields)
}

fn release(standing: &Standing) -> Markup {
    let changes = standing.differences();
    let fields = html! {
        p class="s" {
            "Ends the pin and the faults of this trigger. "
            @match changes.is_empty() {
                true => "Nothing starts: the present heads run.",
                false => { "The present heads are rolled out, once: " (differences(&changes)) "." },
            }
        }
        (reason(false))
        (button(true, "play", "Release"))
    };
    form(standing, "release", "Release", &fields)
}

/// The next attempt, of a last rollout that has not succeeded.
fn retry(standing: &Standing) -> Markup {
    let last = standing.trigger.last.as_ref();
    let Some(last) = last.filter(|last| is_tried(last)) else {
        return html! {};
    };
    form(standing, "retry", "Retry", &form::retry(last.number))
}

/// Whether an attempt at the rollout has failed, and another one can follow.
pub(crate) fn is_tried(rollout: &Rollout) -> bool {
    let open = matches!(rollout.state, RolloutState::Running | RolloutState::Failed);
    open && rollout.error.is_some()
}

fn roll_out(standing: &Standing) -> Markup {
    let closed = standing.trigger.reasons.iter();
    let closed: Vec<&str> = closed
        .filter(|reason| SKIPPABLE.contains(&reason.code))
        .map(|reason| reason.code.as_str())
        .collect();
    // While pinned, the wanted set is the pinned one.
    let pin = standing.pinned();
    let changes = pin.clone().unwrap_or_else(|| standing.differences());
    let fields = html! {
        p class="s" {
            @match (changes.is_empty(), pin.is_some()) {
                (true, false) => "Sends the running set once more.",
                (true, true) => "Sends the pinned set, which runs, once more.",
                (false, false) => { "Rolls out the present heads: " (differences(&changes)) "." },
                (false, true) => { "Rolls out the pinned set: " (differences(&changes)) "." },
            }
        }
        @for gate in &closed {
            label class="in" { input type="checkbox" name={ "skip." (gate) }; "pass the closed gate " (gate) " (needs a reason)" }
        }
        (reason(false))
        (button(false, "moved", "Roll out"))
    };
    form(standing, "rollout", "Roll out", &fields)
}

fn roll_back(view: &View) -> Markup {
    let current = view.standing.trigger.current.as_ref();
    let mut sets: Vec<BTreeMap<&String, &Digest>> = current.map(set).into_iter().collect();
    let mut known = Vec::new();
    for one in &view.rollouts {
        let rollout = &one.rollout;
        // A set that has other images than the trigger today can't be rolled out.
        let fits = current.is_none_or(|current| current.images.keys().eq(rollout.images.keys()));
        if rollout.state == RolloutState::Succeeded && fits && !sets.contains(&set(rollout)) {
            sets.push(set(rollout));
            known.push(rollout);
        }
    }
    if known.is_empty() {
        return html! {};
    }
    let fields = html! {
        p class="s" { "Rolls out that set and pins the trigger to it. Does not wait for a window, a gap or an approval." }
        label { "To" select name="to" {
            @for rollout in known {
                option value=(rollout.number) {
                    "#" (number(rollout.number)) ":"
                    @for (place, (name, image)) in rollout.images.iter().enumerate() {
                        @if place > 0 { "," } " " (visible(name)) " " (short(&image.digest))
                    }
                }
            }
        } }
        (reason(true)) (until())
        (button(false, "reverted", "Roll back"))
    };
    form(&view.standing, "rollback", "Roll back", &fields)
}

fn set(rollout: &Rollout) -> BTreeMap<&String, &Digest> {
    let images = rollout.images.iter();
    images.map(|(name, one)| (name, &one.digest)).collect()
}

fn pin(view: &View) -> Markup {
    let some = view.standing.images.iter();
    let some: Vec<&Watched> = some
        .filter(|one| one.runs.is_some() || one.head.is_some())
        .collect();
    if some.is_empty() {
        return html! {};
    }
    let fields = html! {
        p class="s" { "Rolls out these digests and keeps them: pushes roll nothing out until somebody releases the trigger." }
        @for image in some {
            label { (visible(&image.name)) select name={ "image." (image.name) } {
                @for (digest, text) in choices(image, view) { option value=(digest) { (text) } }
            } }
        }
        (reason(true)) (until())
        (button(false, "hold", "Pin"))
    };
    form(&view.standing, "pin", "Pin", &fields)
}

/// Returns the digests that an image can be pinned to: the one that runs, the head, those of the
/// last rollouts.
fn choices(image: &Watched, view: &View) -> Vec<(Digest, String)> {
    let mut choices: Vec<(Digest, String)> = Vec::new();
    let mut add = |digest: &Digest, text: String| {
        if choices.iter().all(|(known, _)| known != digest) {
            choices.push((digest.clone(), text));
        }
    };
    if let Some(runs) = &image.runs {
        let word = match image.differs() {
            true => "runs",
            false => "runs, and head",
        };
        add(&runs.digest, format!("{word}: {}", short(&runs.digest)));
    }
    if let Some((head, revision)) = &image.head {
        let revision = number(*revision);
        add(head, format!("head: {}, revision {revision}", short(head)));
    }
    for one in &view.rollouts {
        if let Some(then) = one.rollout.images.get(&image.name) {
            let number = number(one.rollout.number);
            add(
                &then.digest,
                format!("of #{number}: {}", short(&then.digest)),
            );
        }
    }
    choices
}
