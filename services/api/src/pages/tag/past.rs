//! A tag at a moment in the past.

use std::collections::BTreeMap;

use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use sqlx::PgConnection;
use tagtrail_history::changes::{self, HistoryItem};
use tagtrail_history::contents::{Content, contents};
use tagtrail_history::instant::Instant;
use tagtrail_history::lane::{Stretch, lane};
use tagtrail_history::resolve::{self, Resolution, RevisionInForce};
use tagtrail_history::summary::{Summary, summary};
use tagtrail_proto::{Digest, Image};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::operations::history::cursor;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::digest::{link, link_or};
use crate::pages::part::image;
use crate::pages::part::lane::Window;
use crate::pages::part::text::{counted, number};
use crate::pages::part::when::{Form, span, time, written};
use crate::pages::reader::Reader;
use crate::pages::tag::asked::{Asked, Change, Span};
use crate::pages::tag::head::Until;
use crate::pages::tag::{NEWER, ROWS, digests, head, row, table, trail, unknown};
use crate::shared::Shared;
use crate::store::rolled_out::{RolledOut, of_revisions};

/// The content of a page of the past.
#[derive(Debug)]
struct Read {
    summary: Summary,
    /// The revisions around the moment, newest first.
    items: Vec<([i64; 2], HistoryItem)>,
    /// The revision in force then, as it was known at the time asked for; without such a time, as
    /// it was known at the moment itself.
    known: Resolution,
    span: Span,
    window: Window,
    stretches: Vec<Stretch>,
    contents: BTreeMap<Digest, Content>,
    rolled_out: RolledOut,
}

/// Shows a tag at a moment.
pub(crate) async fn show(
    reader: &Reader,
    shared: &Shared,
    image: &Image,
    asked: &Asked,
    at: OffsetDateTime,
) -> Result<Response, Error> {
    let read = shared
        .database
        .ask_page(async |db| read(db, image, asked, at, reader.now).await)
        .await?;
    let Some(read) = read else {
        return Err(unknown(shared, image.clone()).await);
    };
    let newer = read
        .items
        .iter()
        .take_while(|(_, item)| item.occurred_at.0 > at);
    let place = newer.count();
    let now_known = read.items.get(place).map(|(_, item)| item);
    // With `known_at`, the answer of then counts.
    let then = match (&read.known, asked.known_at) {
        (_, None) => now_known,
        (Resolution::InForce(known), Some(_)) => {
            let mut items = read.items.iter().map(|(_, item)| item);
            items.find(|item| item.revision == known.revision)
        }
        _ => None,
    };
    let until = place.checked_sub(1).and_then(|newer| read.items.get(newer));
    let until = match until.map(|(_, item)| item.occurred_at.0) {
        _ if then.map(|item| item.revision) != now_known.map(|item| item.revision) => {
            Until::Unknown
        }
        Some(until) => Until::At(until),
        None => Until::Now(reader.now),
    };
    let content = then.and_then(|item| read.contents.get(item.digest.as_ref()?));
    let mut frame = Frame::new(
        format!("{} at {} UTC", head::name(image), written(at, Form::Full)),
        Section::Images,
    );
    let mut json = format!("/v1/resolve?image={image}&at={}", Instant(at));
    let mut cli = format!("tagtrail resolve {image} --at {}", Instant(at));
    if let Some(known_at) = asked.known_at {
        json += &format!("&known_at={}", Instant(known_at));
        cli += &format!(" --known-at {}", Instant(known_at));
    }
    (frame.json, frame.cli) = (Some(json), Some(cli));
    let mut steps = head::steps(image);
    steps.push(("in the past".to_owned(), None));
    let drawn = html! {
        (crumbs(&steps))
        (head::past(image, at, then, until, content, read.summary.since))
        (note(image, asked, at, (then, now_known), &read))
        section class="card" aria-labelledby="trail-h" {
            (row::draw(image, asked, (read.span, read.window), &read.stretches, reader.now))
            (rows(image, asked, &read, then, place, reader.now))
        }
    };
    Ok(frame.page(reader, &drawn).into_response())
}

async fn read(
    db: &mut PgConnection,
    image: &Image,
    asked: &Asked,
    at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Option<Read>, sqlx::Error> {
    let Some(summary) = summary(db, image, now).await? else {
        return Ok(None);
    };
    let older = i64::try_from(ROWS).unwrap_or(i64::MAX) - NEWER;
    // One more on each side says whether there are others.
    let items = changes::around(db, summary.tag, image, at, NEWER + 1, older + 1).await?;
    let known_at = asked.known_at.unwrap_or(at);
    let known = resolve::known_at(db, image, Some(at), known_at).await?;
    let span = asked.span(summary.since, now);
    let window = span.window(summary.since, Some(at), now);
    let stretches = lane(db, summary.tag, window.from, window.until, row::MOST).await?;
    let plain: Vec<HistoryItem> = items.iter().map(|(_, item)| item.clone()).collect();
    let contents = contents(db, &digests(&plain)).await?;
    let rolled_out = of_revisions(db, summary.tag, &plain, trail::READ).await?;
    Ok(Some(Read {
        summary,
        items,
        known,
        span,
        window,
        stretches,
        contents,
        rolled_out,
    }))
}

fn rows(
    image: &Image,
    asked: &Asked,
    read: &Read,
    then: Option<&HistoryItem>,
    newer: usize,
    now: OffsetDateTime,
) -> Markup {
    let most = usize::try_from(NEWER).unwrap_or(0);
    let skipped = newer.saturating_sub(most);
    let replaced = skipped
        .checked_sub(1)
        .and_then(|place| read.items.get(place));
    let shown: Vec<&([i64; 2], HistoryItem)> = read.items.iter().skip(skipped).collect();
    let end = (newer - skipped) + (ROWS - most);
    let older = shown.len() > end;
    let shown = shown.get(..end.min(shown.len())).unwrap_or(&[]);
    let items: Vec<HistoryItem> = shown.iter().map(|(_, item)| item.clone()).collect();
    let trail = trail::Trail {
        items: &items,
        replaced_at: replaced.map(|(_, item)| item.occurred_at.0),
        contents: &read.contents,
        rolled_out: &read.rolled_out,
        head: read.summary.head,
        then: Some(then.map_or(0, |item| item.revision)),
        release: trail::is_release(image.tag.as_ref()),
        now,
    };
    let first = shown.first().filter(|_| skipped > 0);
    let last = shown.last().filter(|_| older);
    let (first, last) = (
        first.map(|(key, _)| cursor(*key)),
        last.map(|(key, _)| cursor(*key)),
    );
    table(image, asked, &trail, (first.as_deref(), last.as_deref()))
}

/// States whether the answer is as it was known then, and leads to the present.
fn note(
    image: &Image,
    asked: &Asked,
    at: OffsetDateTime,
    (then, now_known): (Option<&HistoryItem>, Option<&HistoryItem>),
    read: &Read,
) -> Markup {
    let known = match &read.known {
        Resolution::InForce(known) => Some(known),
        _ => None,
    };
    let same = now_known.map(|item| item.revision) == known.map(|known| known.revision);
    html! {
        p class={ "note " @if same { "acc" } @else { "warn" } } {
            "This is the past. "
            @match (same, asked.known_at) {
                (true, _) => {
                    @match now_known {
                        Some(item) => { "Recorded at " (time(item.recorded_at.0, Form::Full)) "; no" },
                        None => "No",
                    }
                    " later fact changed the answer. "
                },
                (false, Some(known_at)) => { (changed_later(known_at, now_known)) },
                (false, None) => { (known_later(image, asked, at, now_known, known)) },
            }
            a href=(image::address(image)) { "Show the present" }
            @if let Some(item) = then { (to_present(image, item, read)) }
        }
    }
}

/// The answer as it was known at a time, and another one now.
fn changed_later(known_at: OffsetDateTime, now_known: Option<&HistoryItem>) -> Markup {
    html! {
        "This is the answer as it was known at " (time(known_at, Form::Full)) ". "
        @match now_known {
            Some(item) => {
                "Later, at " (time(item.recorded_at.0, Form::Full)) ", revision " (number(item.revision))
                " was recorded for that time: " (link_or(item.digest.as_ref(), "deleted")) ". "
            },
            None => {},
        }
    }
}

/// The answer of now, which was not known at the moment itself.
fn known_later(
    image: &Image,
    asked: &Asked,
    at: OffsetDateTime,
    now_known: Option<&HistoryItem>,
    known: Option<&RevisionInForce>,
) -> Markup {
    let then = asked.address(
        image,
        Change::At {
            at: Some(at),
            known_at: Some(at),
        },
    );
    html! {
        @if let Some(item) = now_known {
            "It was recorded at " (time(item.recorded_at.0, Form::Full)) ", " (span(item.recorded_at.0 - at)) " after that moment: "
            a href=(then) {
                "known then"
            }
            " was "
            @match known {
                Some(known) => {
                    "revision " (number(known.revision)) ", "
                    @match &known.digest { Some(digest) => { (link(digest)) }, None => { "deleted" } }
                },
                None => { "no revision" },
            }
            ". "
        }
    }
}

fn to_present(image: &Image, item: &HistoryItem, read: &Read) -> Markup {
    let later = read.summary.revisions.saturating_sub(item.revision);
    html! {
        @match (&item.digest, &read.summary.digest) {
            (Some(then), Some(now)) if then != now => {
                " · " a href={ "/compare/" (then) ".." (now) "?image=" (image) } { "Compare with the present" }
            },
            (Some(then), Some(now)) if then == now => { " · the digest is that of the present" },
            _ => {},
        }
        @if later > 0 { ": " (counted(later, "revision", "revisions")) " since" }
        "."
    }
}
