//! The parts of the page of a trigger that show.

use maud::{Markup, html};
use serde_json::Value;
use tagtrail_condition::HoldKind;
use tagtrail_proto::{Condition, Gate, Reason, ReasonCode, Rollout};
use time::OffsetDateTime;

use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::rollout;
use crate::pages::part::standing::{cause, differences, state, words};
use crate::pages::part::text::{number, visible, with_code};
use crate::pages::part::when::{Form, ago, time};
use crate::pages::trigger::View;
use crate::pages::trigger::standing::{Standing, why};
use crate::store::acts::Act;
use crate::store::rollouts::RolloutWithAttempt;
use crate::store::triggers::Trigger;

/// Rollouts in the table.
const SHOWN: usize = 6;

/// Draws the answer to the question why nothing starts, or that nothing is missing.
pub(super) fn verdict(standing: &Standing, now: OffsetDateTime) -> Markup {
    let trigger = &standing.trigger;
    let changes = standing.differences();
    let (class, lead) = match trigger.condition {
        Condition::Settled => ("note ok", "The wanted images run."),
        Condition::Paused => ("note warn", "Nothing starts."),
        Condition::Held => ("note warn", "Held."),
        Condition::Waiting => ("note warn", "Waiting."),
        Condition::Failing => ("note bad", "The last attempt failed."),
        Condition::Broken => ("note bad", "The entry of this trigger can't be used."),
        Condition::RollingOut => ("note acc", "Rolling out."),
        Condition::Removed => ("note", "This trigger is no longer configured."),
    };
    html! {
        p class=(class) {
            b { (lead) } " "
            @if trigger.condition == Condition::Paused {
                "It was " (why(trigger, now))
                @if let Some(at) = trigger.paused_at { " (" (time(at, Form::Full)) ")" }
                ". "
                (standing.after_resume())
            } @else {
                @if let Some(reason) = trigger.reasons.first() {
                    (visible(&reason.why))
                    @if let Some(cure) = &reason.cure { ". Cure: " (with_code(cure)) }
                    ". "
                }
                @if !changes.is_empty() { "The heads differ: " (differences(&changes)) "." }
            }
            @if trigger.stale { " An earlier generation of the settings is in force, because the present entry is broken." }
            @if let Some(problem) = &trigger.problem { " " (visible(problem)) }
        }
    }
}

/// Draws the images: the digest that runs, and the head where it differs.
pub(super) fn images(standing: &Standing, now: OffsetDateTime) -> Markup {
    html! {
        section class="card" {
            h2 { "Deployed, and the head where it differs" }
            @match standing.images.is_empty() {
                true => p class="none" { "no image is known yet" },
                false => ul class="deps" { @for image in &standing.images { (image.line(now)) } },
            }
        }
    }
}

/// Draws the gates in the order in which they are evaluated, and the other reasons.
pub(super) fn gates(trigger: &Trigger, now: OffsetDateTime) -> Markup {
    let settings = &trigger.gate_settings;
    let gate = |reason: &&Reason| {
        reason.code == ReasonCode::Pause
            || Gate::ALL
                .iter()
                .any(|gate| ReasonCode::from(*gate) == reason.code)
    };
    let others: Vec<&Reason> = trigger.reasons.iter().filter(|one| !gate(one)).collect();
    let order = [
        (ReasonCode::Pause, None),
        (ReasonCode::Freeze, None),
        (ReasonCode::Pin, None),
        (ReasonCode::Fault, None),
        (ReasonCode::Recheck, None),
        (ReasonCode::Tombstone, None),
        (ReasonCode::Upstream, settings.get("follow")),
        (ReasonCode::Settle, settings.get("settle")),
        (ReasonCode::Manifest, None),
        (ReasonCode::MinAge, None),
        (ReasonCode::Window, settings.get("window")),
        (ReasonCode::Gap, settings.get("gap")),
        (ReasonCode::Group, settings.get("group")),
        (ReasonCode::Approval, settings.get("approvals")),
    ];
    html! {
        section class="card" {
            h2 { "Gates " span class="push q" { "in the order in which they are evaluated" } }
            table class="st" {
                thead { tr { th scope="col" { "Gate" } th scope="col" { "State" } th scope="col" { "Why" } th scope="col" class="r" { "Opens" } } }
                tbody {
                    @for (code, setting) in order {
                        @let closed: Vec<&Reason> = trigger.reasons.iter().filter(|one| one.code == code).collect();
                        @for reason in &closed { (row(code.as_str(), Some(reason), None, now)) }
                        // Gates without a setting are shown while closed; the pause always.
                        @if closed.is_empty() && (setting.is_some() || code == ReasonCode::Pause) { (row(code.as_str(), None, setting, now)) }
                    }
                    @if trigger.holds.is_empty() { (row("freeze, pin, fault", None, None, now)) }
                }
            }
        }
        @if !others.is_empty() {
            section class="card" {
                h2 { "Reasons" }
                table class="st" {
                    thead { tr { th scope="col" { "Reason" } th scope="col" { "Why" } th scope="col" { "Cure" } th scope="col" class="r" { "Since" } } }
                    tbody { @for reason in others { tr {
                        th scope="row" { (words(reason.code.as_str())) @if let Some(image) = &reason.image { br; span class="q s" { (visible(image)) } } }
                        td class="full" { (visible(&reason.why)) }
                        td class="s" { @if let Some(cure) = &reason.cure { (with_code(cure)) } }
                        td class="r" { @if let Some(at) = reason.since { (time(at, Form::Short)) } }
                    } } }
                }
            }
        }
    }
}

fn row(
    name: &str,
    closed: Option<&Reason>,
    setting: Option<&Value>,
    now: OffsetDateTime,
) -> Markup {
    html! {
        tr {
            th scope="row" { (words(name)) }
            td { @match closed { Some(_) => (badge(Tone::Warning, "hold", "closed")), None => (badge(Tone::Good, "ok", "open")) } }
            td class="full s" {
                @match (closed, setting) {
                    (Some(reason), _) => {
                        (visible(&reason.why))
                        @if let Some(at) = reason.since { "; closed " (ago(at, now)) }
                    },
                    (None, Some(setting)) => (visible(&plain(setting))),
                    (None, None) if name == ReasonCode::Pause.as_str() => "not paused",
                    (None, None) => "none in force",
                }
            }
            td class="full s" {
                @if let Some(reason) = closed {
                    @match (reason.opens_at, &reason.cure) {
                        (Some(at), _) => (time(at, Form::Full)),
                        (None, Some(cure)) => (with_code(cure)),
                        _ => {},
                    }
                }
            }
        }
    }
}

/// Returns a setting as people write it.
pub(crate) fn plain(setting: &Value) -> String {
    match setting {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let some = fields.iter().filter(|(_, value)| !value.is_null());
            let parts: Vec<String> = some
                .map(|(name, value)| format!("{name} {}", plain(value)))
                .collect();
            parts.join("; ")
        }
        other => other.to_string(),
    }
}

/// Draws the last rollouts.
pub(super) fn rollouts(view: &View) -> Markup {
    let name = &view.standing.trigger.name;
    html! {
        section class="card" {
            h2 { "Rollouts" }
            @if view.rollouts.is_empty() { p class="none" { "none yet" } } @else {
                table class="st" {
                    thead { tr {
                        th scope="col" { "Rollout" } th scope="col" { "State" } th scope="col" { "Differs in" }
                        th scope="col" { "Why" } th scope="col" { "Took" } th scope="col" class="r" { "Planned" }
                    } }
                    tbody { @for one in view.rollouts.iter().take(SHOWN) { (row_of(one)) } }
                }
                p class="more" { a href={ "/rollouts?trigger=" (name) } { "All rollouts of " (name) } }
            }
        }
    }
}

fn row_of(one: &RolloutWithAttempt) -> Markup {
    let rollout = &one.rollout;
    html! {
        tr {
            th scope="row" { a href={ "/rollouts/" (rollout.id) } { "#" (number(rollout.number)) } }
            td { (state(rollout.state)) }
            td { (changed(rollout)) }
            td { (cause(rollout.cause.reason)) }
            td class="n" data-l="took" { (took(rollout)) }
            td class="r" { (time(rollout.created_at, Form::Short)) }
        }
    }
}

/// Returns the names of the images that differ from the rollout before.
pub(crate) fn changed(rollout: &Rollout) -> String {
    visible(&rollout.cause.changed.join(", "))
}

/// Returns the time from the recording to the end, or the number of attempts.
pub(crate) fn took(rollout: &Rollout) -> String {
    match (rollout::took(rollout), rollout.attempts) {
        (Some(took), 0 | 1) => took,
        (Some(took), attempts) => format!("{took}, {attempts} attempts"),
        (None, 0) => String::new(),
        (None, 1) => "1 attempt".to_owned(),
        (None, attempts) => format!("{attempts} attempts"),
    }
}

pub(super) fn settings(trigger: &Trigger) -> Markup {
    html! {
        section class="card" {
            h2 { "Settings" }
            dl class="kv" {
                dt { "Target" } dd { (visible(&trigger.target)) }
                @for (name, image) in &trigger.images { dt { (visible(name)) } dd class="n" { (visible(image)) } }
                @for (name, policy) in &trigger.policies { dt { "Rule of " (visible(name)) } dd class="n" { (visible(&plain(&policy.rule))) } }
                @for (name, setting) in &trigger.gate_settings { dt { (words(name)) } dd { (visible(&plain(setting))) } }
                @for (name, value) in &trigger.labels { dt { (visible(name)) } dd { (visible(value)) } }
                @if let Some(door) = &trigger.door { dt { "Door" } dd class="n" { (visible(door)) } }
                dt { "Generation" } dd class="n" { (number(trigger.generation)) }
            }
            @for hold in &trigger.holds {
                p class="s" {
                    b { @match hold.kind { HoldKind::Freeze => "frozen", HoldKind::Pin => "pinned", HoldKind::Fault => "fault" } }
                    " by " (visible(&hold.actor)) ", " (time(hold.created_at, Form::Short))
                    @if let Some(until) = hold.until { ", until " (time(until, Form::Full)) }
                    @if let Some(reason) = &hold.reason { ": " (visible(reason)) }
                }
            }
        }
    }
}

/// Draws the acts of people.
pub(super) fn acts(acts: &[Act]) -> Markup {
    html! {
        section class="card" {
            h2 { "Record of acts " span class="push q" { "who, when, why" } }
            @if acts.is_empty() { p class="none" { "nobody has acted yet" } } @else {
                ul class="feed need" { @for act in acts { li {
                    span class="b" { (words(&act.act)) }
                    (time(act.at.0, Form::Full))
                    span class="meta" { (visible(&act.actor)) @if let Some(reason) = &act.reason { ": " (visible(reason)) } }
                } } }
            }
        }
    }
}
