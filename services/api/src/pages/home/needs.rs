//! Needs attention: failed rollouts, triggers that are behind with the reason, silent sources.

use maud::{Markup, html};
use tagtrail_proto::Condition;
use time::OffsetDateTime;

use crate::operations::status::Seen;
use crate::pages::part::icon::icon_for;
use crate::pages::part::kind::Tone;
use crate::pages::part::rollout;
use crate::pages::part::text::{counted, visible, with_code};
use crate::pages::part::when::{Form, span, time};
use crate::store::triggers::Trigger;

/// Rows of the list; the rest is counted.
const MOST: usize = 12;

/// A row: something that a person should look at.
struct Need {
    tone: Tone,
    title: String,
    address: String,
    since: Option<OffsetDateTime>,
    why: String,
}

pub(super) fn draw(seen: &Seen, quarantined: Option<u64>, now: OffsetDateTime) -> Markup {
    let mut needs: Vec<Need> = seen.triggers.iter().filter_map(of_trigger).collect();
    needs.extend(seen.sources.iter().filter_map(|source| {
        let since = source.silent_since?.0;
        Some(Need {
            tone: Tone::Warning,
            title: format!("{} is silent for {}", source.source, span(now - since)),
            address: format!("/sources#{}", source.source),
            since: Some(since),
            why: format!(
                "its last event about {} was then; at these hours it usually sends",
                source.registry
            ),
        })
    }));
    if let Some(count) = quarantined.filter(|count| *count > 0) {
        needs.push(Need {
            tone: Tone::Warning,
            title: format!("{} in quarantine", counted(count, "body", "bodies")),
            address: "/sources#quarantine".to_owned(),
            since: None,
            why: match count {
                1 => "an authenticated webhook that could not be interpreted: its changes are not recorded until it is replayed, or reconciling finds them",
                _ => "authenticated webhooks that could not be interpreted: their changes are not recorded until they are replayed, or reconciling finds them",
            }
            .to_owned(),
        });
    }
    // Errors first, then the newest.
    needs.sort_by_key(|need| (need.tone != Tone::Bad, std::cmp::Reverse(need.since)));
    let more = needs.len().saturating_sub(MOST);
    html! {
        section class="card" aria-labelledby="needs" {
            h2 id="needs" { "Needs attention" }
            @if needs.is_empty() {
                p { span class="ok" { (icon_for("ok", "good")) } " Nothing: all triggers are up to date, and all sources send." }
            }
            ul class="feed need" {
                @for need in needs.iter().take(MOST) { (row(need)) }
            }
            @if more > 0 { p class="more" { a href="/triggers" { (counted(more as u64, "more trigger or source", "more triggers and sources")) } } }
        }
    }
}

fn row(need: &Need) -> Markup {
    let (icon, word) = match need.tone {
        Tone::Bad => ("fail", "error"),
        Tone::Warning => ("warn", "warning"),
        _ => ("quiet", "note"),
    };
    html! {
        li {
            span {
                span class=(need.tone.class()) { (icon_for(icon, word)) } " "
                a class="b" href=(need.address) { (visible(&need.title)) }
            }
            @if let Some(since) = need.since { span class="q" { (time(since, Form::Short)) } }
            span class="meta" { span { (with_code(&need.why)) } }
        }
    }
}

fn of_trigger(trigger: &Trigger) -> Option<Need> {
    let name = &trigger.name;
    let behind = counted(trigger.newer.into(), "image", "images");
    let last = trigger.last.as_ref();
    let (tone, title) = match trigger.condition {
        Condition::Settled | Condition::RollingOut | Condition::Removed => return None,
        Condition::Broken => (Tone::Bad, format!("{name} is broken")),
        Condition::Failing => match last {
            Some(last) => (Tone::Bad, format!("{name} #{} failed", last.number)),
            None => (Tone::Bad, format!("{name} is failing")),
        },
        Condition::Held => (Tone::Warning, format!("{name} is held")),
        // A paused trigger with the present images is no surprise, but people forget it.
        Condition::Paused if trigger.newer == 0 => (Tone::Plain, format!("{name} is paused")),
        Condition::Paused => (Tone::Warning, format!("{name} is paused, {behind} behind")),
        Condition::Waiting => (Tone::Warning, format!("{name} waits")),
    };
    let address = match (trigger.condition, last) {
        (Condition::Failing, Some(last)) => rollout::address(name, last.number),
        _ => format!("/triggers/{name}"),
    };
    let reason = trigger.reasons.first();
    let mut why = reason.map_or_else(String::new, |reason| reason.why.clone());
    let error = last.and_then(|last| last.error.as_deref());
    if let (Condition::Failing, Some(error)) = (trigger.condition, error)
        && !why.contains(error)
    {
        why = format!("{error}; {why}");
    }
    if let Some(cure) = reason.and_then(|reason| reason.cure.as_deref()) {
        why = format!("{why}; {cure}");
    }
    let ended = last.and_then(|last| last.finished_at);
    let since = match trigger.condition {
        Condition::Paused => trigger.paused_at,
        Condition::Failing => ended.or(reason.and_then(|reason| reason.since)),
        _ => reason.and_then(|reason| reason.since),
    };
    Some(Need {
        tone,
        title,
        address,
        since,
        why: cut(&why),
    })
}

/// Returns the first 300 bytes of a text: the page of the trigger has the rest.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(300);
    match text.split_at(end) {
        (all, "") => all.trim_end_matches("; ").to_owned(),
        (start, _) => format!("{start}…"),
    }
}
