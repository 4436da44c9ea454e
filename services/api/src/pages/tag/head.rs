//! The head of a tag's page: name, digest, and the figures.

use maud::{Markup, html};
use tagtrail_history::changes::HistoryItem;
use tagtrail_history::contents::Content;
use tagtrail_history::instant::Instant;
use tagtrail_history::summary::Summary;
use tagtrail_proto::Image;
use time::{Duration, OffsetDateTime};

use crate::pages::part::bars::{Column, in_row};
use crate::pages::part::commit::built_from;
use crate::pages::part::digest::{big_swatch, copy};
use crate::pages::part::icon::icon;
use crate::pages::part::image;
use crate::pages::part::kind::{Tone, badge, state, word};
use crate::pages::part::text::{counted, number, platform_name, visible};
use crate::pages::part::when::{Form, since, span, time, zone};
use crate::store::running::Running;

/// Returns the name of a tag without its registry.
pub(crate) fn name(image: &Image) -> String {
    format!("{}:{}", image.repository, image.tag)
}

/// Returns the way to a tag: registry, folders, repository, tag.
pub(crate) fn steps(image: &Image) -> Vec<(String, Option<String>)> {
    let mut steps = image::way(image.registry.as_ref(), image.repository.as_ref());
    steps.push((image.tag.to_string(), Some(image::address(image))));
    steps
}

/// Draws the swatch, the name and the digest.
fn top(item: Option<&HistoryItem>, heading: &Markup, meta: &Markup) -> Markup {
    let digest = item.and_then(|item| item.digest.as_ref());
    html! {
        section class="head" {
            @match digest {
                Some(digest) => { (big_swatch(digest)) },
                None => { span class="x big bad" { (icon("deleted")) } },
            }
            div {
                div class="bar" { (heading) }
                @if let Some(item) = item {
                    @if let (Some(digest), Some(pinned)) = (digest, &item.pinned) {
                        p class="n" { (digest) (copy(&pinned.to_string(), "Copy the pinned reference")) }
                    }
                }
                p class="meta" { (meta) }
            }
        }
    }
}

fn content_of(content: &Content) -> Markup {
    let (version, commit) = (content.version.as_deref(), content.revision.as_deref());
    let platforms: Vec<String> = content
        .platforms
        .iter()
        .take(8)
        .map(platform_name)
        .collect();
    html! {
        (built_from(version, commit, content.source.as_deref()))
        @if !platforms.is_empty() { span { (platforms.join(", ")) } }
    }
}

/// Draws the head of the present.
pub(crate) fn present(
    image: &Image,
    head: &HistoryItem,
    content: Option<&Content>,
    summary: &Summary,
    now: OffsetDateTime,
) -> Markup {
    let heading = html! {
        h1 { (name(image)) }
        @match head.digest {
            Some(_) => { (word(Tone::Marked, &format!("head, revision {}", number(head.revision)))) },
            None => { (badge(Tone::Bad, "deleted", "deleted")) },
        }
    };
    let aliases = summary.aliases.iter().take(8);
    let meta = html! {
        span { "since " (since(head.occurred_at.0, now)) }
        @match &head.actor {
            Some(actor) => span { "by " (visible(actor)) },
            None => span class="q" { "actor unknown" },
        }
        @if let Some(content) = content { (content_of(content)) }
        @if !summary.aliases.is_empty() {
            span {
                "also "
                @for (place, alias) in aliases.enumerate() {
                    @if place > 0 { ", " }
                    @let other = Image { tag: alias.clone(), ..image.clone() };
                    a href=(image::address(&other)) { (alias) }
                }
                @if summary.aliases.len() > 8 { " and more" }
            }
        }
    };
    top(Some(head), &heading, &meta)
}

/// Draws the note of a deleted tag.
pub(crate) fn deleted(head: &HistoryItem) -> Markup {
    let last = head
        .previous
        .as_ref()
        .and_then(|point| point.digest.as_ref());
    html! {
        p class="note bad" {
            "This tag cannot be pulled. "
            @if let Some(last) = last { "Its last digest is " (crate::pages::part::digest::link(last)) ". " }
            "Its history is kept."
        }
    }
}

/// Draws the head of a moment in the past. `until`: the time at which the next revision took
/// effect.
pub(crate) fn past(
    image: &Image,
    at: OffsetDateTime,
    then: Option<&HistoryItem>,
    until: Until,
    content: Option<&Content>,
    since: OffsetDateTime,
) -> Markup {
    let heading = html! { h1 { (name(image)) " at " (time(at, Form::Full)) " " (zone()) } };
    let meta = html! {
        @match then {
            None if at < since => span {
                "not there yet: its history begins on "
                a href={ (image::address(image)) "?at=" (Instant(since)) } { (time(since, Form::Full)) }
            },
            None => span { "not known yet then" },
            Some(item) => {
                span {
                    "revision " (number(item.revision)) ", "
                    @if item.digest.is_none() { "deleted " } @else { "in force " }
                    "from " (time(item.occurred_at.0, Form::Full))
                    @match until {
                        Until::At(until) => { " to " (time(until, Form::Full)) ": " (span_of(item, until)) },
                        Until::Now(now) => { " until now: " (span_of(item, now)) },
                        Until::Unknown => {},
                    }
                }
                @match &item.actor {
                    Some(actor) => span { "by " (visible(actor)) },
                    None => span class="q" { "actor unknown" },
                }
                @if let Some(content) = content { (content_of(content)) }
            },
        }
    };
    top(then, &heading, &meta)
}

/// The end of a revision of the past.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    At(OffsetDateTime),
    /// It is in force at this time, which is the present.
    Now(OffsetDateTime),
    /// The answer is one that was known then, and is another one now.
    Unknown,
}

fn span_of(item: &HistoryItem, until: OffsetDateTime) -> String {
    span(until - item.occurred_at.0)
}

/// Draws the figures: the triggers that run it, and the pace.
pub(crate) fn stats(
    summary: &Summary,
    running: &[Running],
    tag: &str,
    now: OffsetDateTime,
) -> Markup {
    let (current, behind): (Vec<&Running>, Vec<&Running>) = running
        .iter()
        .partition(|one| one.digest.is_some() && one.digest == summary.digest);
    html! {
        dl class="stats" {
            @if !running.is_empty() { (deployed(&current)) }
            @if !behind.is_empty() { (left_behind(&behind, summary)) }
            div {
                dt { "Median time held" }
                dd {
                    @match summary.median_held {
                        Some(seconds) => { (span(Duration::seconds_f64(seconds.clamp(0.0, 1e12)))) },
                        None => { span class="none" { "none yet" } },
                    }
                    small { "median of " (counted(summary.counted, "revision", "revisions")) }
                }
            }
            div {
                dt { "Reverted" }
                dd {
                    (counted(summary.reverted, "time", "times"))
                    small {
                        @match &summary.last_reverted {
                            Some((at, actor)) => {
                                "last " (time(*at, Form::Day))
                                @if let Some(actor) = actor { " by " (visible(actor)) }
                            },
                            None => { "of " (counted(summary.counted, "revision", "revisions")) },
                        }
                    }
                }
            }
            @if summary.weeks.len() > 1 && now - summary.since > Duration::WEEK { (weeks(summary, tag)) }
        }
    }
}

fn deployed(current: &[&Running]) -> Markup {
    html! {
        div {
            dt { "Deployed by" }
            dd {
                @match current.first() {
                    None => { "none" small { "no trigger runs this digest" } },
                    Some(one) => {
                        a href={ "/triggers/" (one.trigger) } { (one.trigger) }
                        small {
                            (state(Tone::Good, "ok", &format!("rollout #{} runs this digest", one.rollout)))
                            @if current.len() > 1 { "; also " (counted((current.len() - 1) as u64, "other trigger", "other triggers")) }
                        }
                    },
                }
            }
        }
    }
}

fn left_behind(behind: &[&Running], summary: &Summary) -> Markup {
    let late = |one: &Running| {
        let revisions = summary.head.saturating_sub(one.revision);
        let paused = if one.paused { ", paused" } else { "" };
        match revisions {
            0 => format!("runs another digest{paused}"),
            _ => format!(
                "{} behind{paused}",
                counted(revisions, "revision", "revisions")
            ),
        }
    };
    html! {
        div {
            dt { "Behind" }
            dd {
                @if let Some(one) = behind.first() {
                    a href={ "/triggers/" (one.trigger) } { (one.trigger) }
                    small {
                        (state(Tone::Warning, "warn", &late(one)))
                        @if behind.len() > 1 { ", and " (counted((behind.len() - 1) as u64, "other trigger", "other triggers")) }
                    }
                }
            }
        }
    }
}

fn weeks(summary: &Summary, tag: &str) -> Markup {
    let most = summary.weeks.iter().max().copied().unwrap_or(0);
    let least = summary.weeks.iter().min().copied().unwrap_or(0);
    let shown: Vec<Column> = summary
        .weeks
        .iter()
        .map(|count| Column::of(*count))
        .collect();
    let label = format!(
        "Changes of {tag} a week over {} weeks, {least} to {most}",
        shown.len()
    );
    html! { div { dt { "Changes a week" } dd { (in_row(&shown, &label)) } } }
}
