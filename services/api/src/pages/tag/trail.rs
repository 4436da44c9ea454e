//! The trail of a tag: a table of its revisions.

use std::collections::BTreeMap;

use maud::{Markup, html};
use tagtrail_history::changes::HistoryItem;
use tagtrail_history::contents::Content;
use tagtrail_history::instant::Instant;
use tagtrail_proto::{Digest, Kind, Origin, RolloutState};
use time::OffsetDateTime;

use crate::pages::part::commit::built_from;
use crate::pages::part::digest::{address, change, swatch};
use crate::pages::part::icon::icon;
use crate::pages::part::kind::{self, Tone, badge, word};
use crate::pages::part::rollout;
use crate::pages::part::text::{number, platform_name, visible};
use crate::pages::part::when::{Form, span, time, written, zone};
use crate::store::rolled_out::RolledOut;

/// Most rollouts of a revision that are named.
const ROLLOUTS: usize = 3;
/// Rollouts of a revision that are read: one more says whether there are others.
pub(crate) const READ: i64 = ROLLOUTS as i64 + 1;

/// The revisions that a table shows, newest first.
#[derive(Debug)]
pub(crate) struct Trail<'a> {
    pub(crate) items: &'a [HistoryItem],
    /// The time at which the first of them was replaced.
    pub(crate) replaced_at: Option<OffsetDateTime>,
    pub(crate) contents: &'a BTreeMap<Digest, Content>,
    /// At most [`READ`] of each revision.
    pub(crate) rolled_out: &'a RolledOut,
    /// The number of the head.
    pub(crate) head: u64,
    /// The number of the revision in force at the moment asked for.
    pub(crate) then: Option<u64>,
    /// Whether the tag names a release, so that a move of it is remarkable.
    pub(crate) release: bool,
    pub(crate) now: OffsetDateTime,
}

/// Returns whether a tag is a full version: `1.24.3` or `v1.24.3`, perhaps with more behind.
pub(crate) fn is_release(tag: &str) -> bool {
    let version = tag.strip_prefix('v').unwrap_or(tag);
    let core = version.split(['-', '+', '_']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| {
            !part.is_empty() && part.len() < 10 && part.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// Draws the table.
pub(crate) fn table(trail: &Trail<'_>) -> Markup {
    let days: Vec<_> = trail
        .items
        .iter()
        .map(|item| item.occurred_at.0.to_offset(time::UtcOffset::UTC).date())
        .collect();
    html! {
        table class="trail" {
            thead { tr {
                th scope="col" class="w6" { "When (" (zone()) ")" }
                th scope="col" { span class="vh" { "Digest" } }
                th scope="col" { "What" }
                th scope="col" { "Built from" }
                th scope="col" { "Rolled out" }
                th scope="col" class="r" { "Held" }
                th scope="col" class="r" { "Compare" }
            } }
            tbody {
                @for (place, item) in trail.items.iter().enumerate() {
                    @let until = match place { 0 => trail.replaced_at, _ => trail.items.get(place - 1).map(|newer| newer.occurred_at.0) };
                    @let first = place == 0 || days.get(place) != days.get(place - 1);
                    (row(trail, item, until, first))
                }
            }
        }
    }
}

fn row(
    trail: &Trail<'_>,
    item: &HistoryItem,
    until: Option<OffsetDateTime>,
    first: bool,
) -> Markup {
    let then = trail.then == Some(item.revision);
    let class = match (first, then) {
        (true, true) => Some("day hit"),
        (true, false) => Some("day"),
        (false, true) => Some("hit"),
        (false, false) => None,
    };
    let at = item.occurred_at.0.to_offset(time::UtcOffset::UTC);
    let content = item
        .digest
        .as_ref()
        .and_then(|digest| trail.contents.get(digest));
    html! {
        tr class=[class] data-row=(item.revision) id={ "r" (item.revision) } {
            td class="nw" {
                // The script shows the day of each row whose day by the reader's clock is another.
                @let form = if at.year() == trail.now.year() { Form::Weekday } else { Form::DayOfYear };
                div class="b" data-f=(form.name()) data-t=(Instant(at)) hidden[!first] { (written(at, form)) }
                (time(item.occurred_at.0, Form::Clock))
            }
            td class="nd" {
                @match &item.digest {
                    Some(digest) => { (swatch(digest)) },
                    None => { span class="x bad" { (icon("deleted")) } },
                }
            }
            td {
                div class="ev" {
                    (kind::kind(item.kind))
                    (change(before(item), item.digest.as_ref()))
                    (badges(trail, item))
                }
                div class="meta" {
                    span class="n" { "revision " (number(item.revision)) }
                    @match &item.actor {
                        Some(actor) => span { (visible(actor)) },
                        None => span class="q" { "actor unknown" },
                    }
                }
            }
            td class="s" {
                @if let Some(content) = content {
                    (built_from(content.version.as_deref(), content.revision.as_deref(), content.source.as_deref()))
                }
            }
            td class="s" { (rolled_out(trail, item)) }
            td class="r s held" { (span(until.unwrap_or(trail.now) - item.occurred_at.0)) }
            td class="r pk" {
                @if item.digest.is_some() {
                    input type="checkbox" name="rev" value=(item.revision) aria-label={ "Compare revision " (item.revision) };
                }
            }
        }
    }
}

/// Names the rollouts of a revision, the newest first.
fn rolled_out(trail: &Trail<'_>, item: &HistoryItem) -> Markup {
    let rollouts = trail.rolled_out.get(&item.revision);
    let rollouts = rollouts.map_or(&[][..], Vec::as_slice);
    html! {
        div class="ev" {
            @for one in rollouts.iter().take(ROLLOUTS) {
                span class="nw" {
                    (rollout::state_icon(one.state)) " "
                    a href=(rollout::address(&one.trigger, one.number)) { (visible(&one.trigger)) " #" (number(one.number)) }
                    @if one.state == RolloutState::Succeeded { " " (rollout::summary(one)) }
                }
            }
            @if let Some(digest) = item.digest.as_ref().filter(|_| rollouts.len() > ROLLOUTS) {
                a href=(address(digest)) { "and more" }
            }
        }
    }
}

fn before(item: &HistoryItem) -> Option<&Digest> {
    item.previous
        .as_ref()
        .and_then(|point| point.digest.as_ref())
}

fn badges(trail: &Trail<'_>, item: &HistoryItem) -> Markup {
    let moved = trail.release && matches!(item.kind, Kind::Moved | Kind::Reverted);
    html! {
        @if trail.then == Some(item.revision) { b class="acc s" { "in force then" } }
        @if trail.then.is_none() && item.revision == trail.head { (word(Tone::Marked, "head")) }
        @if moved { (badge(Tone::Warning, "warn", "moved after release")) }
        @for (tone, text) in platforms(trail, item) { (badge(tone, "box", &text)) }
        @if item.late {
            @let late = span(item.recorded_at.0 - item.occurred_at.0);
            (badge(Tone::Plain, "late", &format!("late: reported {late} afterwards")))
        }
        @match item.origin {
            Origin::Reconciled => { (badge(Tone::Warning, "warn", "no event; found by reconciling")) },
            Origin::Imported => { (word(Tone::Plain, "there before Tagtrail")) },
            _ => {},
        }
    }
}

/// Returns the platforms that the image has no longer, and those that it has anew.
fn platforms(trail: &Trail<'_>, item: &HistoryItem) -> Vec<(Tone, String)> {
    let names = |digest: Option<&Digest>| {
        let content = digest.and_then(|digest| trail.contents.get(digest))?;
        let names: Vec<String> = content.platforms.iter().map(platform_name).collect();
        (!names.is_empty()).then_some(names)
    };
    let (Some(old), Some(new)) = (names(before(item)), names(item.digest.as_ref())) else {
        return Vec::new();
    };
    let gone = old.iter().filter(|name| !new.contains(name));
    let added = new.iter().filter(|name| !old.contains(name));
    let gone = gone.map(|name| (Tone::Warning, format!("{name} is gone")));
    let added = added.map(|name| (Tone::Good, format!("{name} is new")));
    gone.chain(added).take(4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_full_version() {
        for release in ["1.24.3", "v1.24.3", "1.2.3-alpine", "2026.11.23"] {
            assert!(is_release(release), "{release}");
        }
        for moving in [
            "latest", "1.24", "1", "v", "1..3", "1.2.x", "sha-1.2", "1.2.3.4",
        ] {
            assert!(!is_release(moving), "{moving}");
        }
    }
}
