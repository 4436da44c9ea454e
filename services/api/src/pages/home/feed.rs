//! The live feed: the newest revisions, and the row that the script fills for new ones.

use maud::{Markup, html};
use tagtrail_history::changes::HistoryItem;
use tagtrail_proto::{Image, Origin};
use time::OffsetDateTime;

use crate::pages::part::digest::change;
use crate::pages::part::icon::{icon, icon_for};
use crate::pages::part::image::short_link;
use crate::pages::part::kind::{Tone, kind, word};
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, span, time, written};

pub(super) fn draw(items: &[HistoryItem], now: OffsetDateTime) -> Markup {
    html! {
        section class="card" aria-labelledby="now" {
            h2 id="now" {
                "Live feed "
                span class="push bar" {
                    span class="live off" role="status" { "Off" }
                    button type="button" class="ghost" data-hold { "Pause" }
                }
            }
            ol class="feed" data-feed { @for item in items { (row(item, now)) } }
            (template())
            p class="more" { a href="/i" { "All images" } }
        }
    }
}

fn row(item: &HistoryItem, now: OffsetDateTime) -> Markup {
    let image = Image {
        registry: item.registry.clone(),
        repository: item.repository.clone(),
        tag: item.tag.clone(),
    };
    let at = item.occurred_at.0;
    // A row of another day shows the day.
    let form = match written(at, Form::Day) == written(now, Form::Day) {
        true => Form::Clock,
        false => Form::Short,
    };
    let before = item.previous.as_ref().and_then(|one| one.digest.as_ref());
    let found = match item.origin {
        Origin::Event | Origin::Resolved => None,
        Origin::Imported => Some("found by the first reconciling"),
        Origin::Reconciled => Some("found by reconciling"),
    };
    html! {
        li {
            (time(at, form))
            (short_link(&image))
            (kind(item.kind))
            span class="meta" {
                span class="ev" { (change(before, item.digest.as_ref())) }
                span { "revision " (number(item.revision)) }
                @if let Some(actor) = &item.actor { span { (visible(actor)) } }
                @if item.late {
                    span class="badge" { (icon("late")) "late by " (span(item.recorded_at.0 - at)) }
                }
                @if let Some(found) = found { (word(Tone::Plain, found)) }
            }
        }
    }
}

/// The row of a new revision, which the script copies and fills. The second element only names all
/// marks of digests, so that the page has their drawings.
fn template() -> Markup {
    let swatch = html! { svg class="sw" viewBox="0 0 16 16" aria-hidden="true" { rect width="16" height="16" rx="4" {} use {} } code {} };
    html! {
        template id="row" {
            li class="new" {
                time data-f="t" {}
                a class="im" href="/i" {}
                span class="badge" data-k {}
                span class="meta" {
                    span class="ev" {
                        a class="dg" data-was href="/i" { (swatch) }
                        (icon_for("moved", "to"))
                        a class="dg" data-is href="/i" { (swatch) }
                    }
                    span data-rv {}
                    span data-a {}
                }
            }
            li { svg { @for mark in 0..8 { use href={ "#g" (mark) } {} } } }
        }
    }
}
