//! The forms of a rollout: verdicts, the next attempt, and its end.

use maud::{Markup, html};
use tagtrail_config::{Role, TriggerGlob};
use tagtrail_proto::Gate;

use super::View;
use crate::pages::act::shows;
use crate::pages::part::form::{self, button, hidden, reason};
use crate::pages::part::text::visible;
use crate::pages::reader::Reader;
use crate::pages::trigger::forms::is_tried;
use crate::store::approvals::Waiting;

/// Draws the forms that the reader may send now, and who may approve. `None`: there is nothing.
pub(super) fn all(reader: &Reader, view: &View) -> Option<Markup> {
    let rollout = &view.one.rollout;
    let may = |role| shows(reader, role, &rollout.trigger, view.named);
    let operates = may(Role::Operate) && view.times.live;
    if view.waiting.is_none() && !operates {
        return None;
    }
    Some(html! {
        @if let Some(waiting) = &view.waiting {
            @if may(Role::Approve) && is_listed(reader, waiting) {
                (approve(reader, view, waiting))
                (reject(view))
            }
            (approvers(waiting))
        }
        @if operates {
            @if view.times.newest && is_tried(rollout) { (form(view, "retry", "Retry", &form::retry(rollout.number))) }
            (cancel(view))
        }
    })
}

/// Whether the setting `approvals` of the trigger lets the reader give verdicts.
fn is_listed(reader: &Reader, waiting: &Waiting) -> bool {
    let name = reader.name().unwrap_or_default();
    let matches = |pattern: &String| {
        TriggerGlob::try_from(pattern.clone()).is_ok_and(|glob| glob.matches(name))
    };
    waiting.by.is_empty() || waiting.by.iter().any(matches)
}

fn form(view: &View, act: &str, title: &str, fields: &Markup) -> Markup {
    html! {
        section class="card" id=(act) {
            h2 { (title) }
            form method="post" action={ "/rollouts/" (view.one.rollout.id) "/" (act) } class="form" {
                (hidden(&view.seen(act)))
                (fields)
            }
        }
    }
}

fn approve(reader: &Reader, view: &View, waiting: &Waiting) -> Markup {
    let name = reader.name().unwrap_or_default();
    let word = format!("Approve as {name}");
    let given = waiting.given.iter().any(|given| given.actor == name);
    let missing = usize::from(waiting.needs).saturating_sub(waiting.given.len());
    let others = view.one.rollout.gates.iter();
    let others = others.filter(|gate| gate.gate != Gate::Approval).count();
    let fields = html! {
        p class="s" {
            @match (given, missing, others) {
                (true, ..) => "You have approved this set already; each person counts once.",
                (false, 0 | 1, 0) => "This approval starts it at once: every other gate is open.",
                (false, 0 | 1, _) => "This is the last approval; it starts when the other gates are open.",
                _ => "Further approvals are needed after this one.",
            }
        }
        (reason(false))
        (button(true, "ok", &word))
    };
    form(view, "approve", "Approve", &fields)
}

fn reject(view: &View) -> Markup {
    let fields = html! {
        p class="s" { "Ends this rollout. The set is not offered again until the heads differ." }
        (reason(true))
        (button(false, "fail", "Reject"))
    };
    form(view, "reject", "Reject", &fields)
}

fn approvers(waiting: &Waiting) -> Markup {
    html! {
        section class="card" {
            h2 { "Who may approve" }
            p class="s" {
                "Tokens of role " code { "approve" }
                @for (place, by) in waiting.by.iter().enumerate() {
                    @match place { 0 => " whose name matches ", _ => " or " }
                    code { (visible(by)) }
                }
                "; one token, one vote."
            }
        }
    }
}

fn cancel(view: &View) -> Markup {
    let fields = html! {
        p class="s" { "Ends this rollout. Its set is not offered again until the wanted set differs or somebody orders it." }
        (reason(true))
        (button(false, "deleted", "Cancel the rollout"))
    };
    form(view, "cancel", "Cancel", &fields)
}
