//! `/i/{registry}/{repository}:{tag}`: a tag: its head, its row of time, and the trail of its
//! revisions. With `at`, the same around a moment in the past; with `known_at`, as it was known
//! then.

mod asked;
mod head;
mod pair;
mod past;
mod row;
mod trail;

use std::collections::BTreeMap;

use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use sqlx::PgConnection;
use tagtrail_history::changes::{HistoryItem, Range};
use tagtrail_history::contents::{Content, contents};
use tagtrail_history::lane::{Stretch, lane};
use tagtrail_history::summary::{Summary, summary};
use tagtrail_proto::{Digest, Image};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::operations::history::{self, Turned};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::icon::icon;
use crate::pages::part::image;
use crate::pages::part::lane::Window;
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store::rolled_out::{RolledOut, of_revisions};
use crate::store::running::{self, Running};
use crate::store::similar;
use asked::{Asked, Change, Span};
pub(crate) use head::steps;

/// Rows of a table.
const ROWS: usize = 20;
/// Rows of the table around a moment that are newer than the moment.
const NEWER: i64 = 6;
/// Most triggers that the figures are about.
const TRIGGERS: i64 = 50;

/// The content of a page of the present.
#[derive(Debug)]
struct Read {
    summary: Summary,
    /// The head, on the first page.
    head: Option<HistoryItem>,
    trail: history::Trail,
    /// The time at which the first revision of the table was replaced.
    replaced_at: Option<OffsetDateTime>,
    span: Span,
    window: Window,
    stretches: Vec<Stretch>,
    contents: BTreeMap<Digest, Content>,
    rolled_out: RolledOut,
    running: Vec<Running>,
}

/// Shows a tag.
pub(crate) async fn show(
    reader: &Reader,
    shared: &Shared,
    image: Image,
    uri: &Uri,
) -> Result<Response, Error> {
    if let Some(numbers) = pair::selected(uri)? {
        return pair::compare(shared, &image, &numbers).await;
    }
    let asked = Asked::read(uri, reader.now)?;
    if asked.lenient {
        let address = asked.address(&image, Change::Nothing);
        return Ok(Redirect::to(&address).into_response());
    }
    let turned = Turned::read(&asked.parameters, Some(ROWS))?;
    if let (Some(at), true) = (asked.at, turned.is_start()) {
        return past::show(reader, shared, &image, &asked, at).await;
    }
    let read = shared
        .database
        .ask_page(async |db| read(db, &image, &asked, &turned, reader.now).await)
        .await?;
    let Some(read) = read else {
        return Err(unknown(shared, image).await);
    };
    let mut frame = Frame::new(head::name(&image), Section::Images);
    frame.list(format!("/v1/history?image={image}"));
    frame.cli = Some(format!("tagtrail history {image}"));
    let mut steps = head::steps(&image);
    if let Some((_, address)) = steps.last_mut().filter(|_| read.head.is_some()) {
        *address = None;
    } else {
        steps.push(("older and newer".to_owned(), None));
    }
    let tag = image.tag.as_ref();
    let content = html! {
        (crumbs(&steps))
        @match &read.head {
            Some(head) => {
                @let content = head.digest.as_ref().and_then(|digest| read.contents.get(digest));
                (head::present(&image, head, content, &read.summary, reader.now))
                @if head.digest.is_none() { (head::deleted(head)) }
                (head::stats(&read.summary, &read.running, tag, reader.now))
            },
            None => { h1 { (head::name(&image)) } },
        }
        (card(&image, &asked, &read, reader.now))
    };
    Ok(frame.page(reader, &content).into_response())
}

async fn read(
    db: &mut PgConnection,
    image: &Image,
    asked: &Asked,
    turned: &Turned,
    now: OffsetDateTime,
) -> Result<Option<Read>, sqlx::Error> {
    let Some(summary) = summary(db, image, now).await? else {
        return Ok(None);
    };
    let range = Range::default();
    let trail = turned.ask(db, summary.tag, image, range).await?;
    let span = asked.span(summary.since, now);
    let window = span.window(summary.since, asked.at, now);
    let stretches = lane(db, summary.tag, window.from, window.until, row::MOST).await?;
    let start = turned.is_start();
    let head = trail.items.items.first().filter(|_| start).cloned();
    Ok(Some(Read {
        contents: contents(db, &digests(&trail.items.items)).await?,
        rolled_out: of_revisions(db, summary.tag, &trail.items.items, trail::READ).await?,
        running: match start {
            true => running::of_image(db, image, TRIGGERS).await?,
            false => Vec::new(),
        },
        replaced_at: trail.replaced_at,
        summary,
        head,
        trail,
        span,
        window,
        stretches,
    }))
}

/// Returns the problem of an unknown tag, with the names that are like it.
async fn unknown(shared: &Shared, image: Image) -> Error {
    let name = image.to_string();
    let similar = shared
        .database
        .ask_large(async |db| similar::names(db, &name).await);
    match similar.await {
        Ok(similar) if similar.is_empty() => Error::TagUnknown(image),
        Ok(similar) => Error::TagUnlike { image, similar },
        Err(error) => error,
    }
}

/// Returns the digests of revisions, and those before them.
fn digests(items: &[HistoryItem]) -> Vec<&Digest> {
    let mut digests: Vec<&Digest> = Vec::new();
    for item in items {
        digests.extend(&item.digest);
        if let Some(point) = &item.previous {
            digests.extend(&point.digest);
        }
    }
    digests.sort_unstable();
    digests.dedup();
    digests
}

fn card(image: &Image, asked: &Asked, read: &Read, now: OffsetDateTime) -> Markup {
    let items = &read.trail.items;
    let trail = trail::Trail {
        items: &items.items,
        replaced_at: read.replaced_at,
        contents: &read.contents,
        rolled_out: &read.rolled_out,
        head: read.summary.head,
        then: None,
        release: trail::is_release(image.tag.as_ref()),
        now,
    };
    let pages = (read.trail.previous.as_deref(), items.next.as_deref());
    html! {
        section class="card" aria-labelledby="trail-h" {
            (row::draw(image, asked, (read.span, read.window), &read.stretches, now))
            (table(image, asked, &trail, pages))
        }
    }
}

/// Draws the table, with the ways to newer and older revisions.
fn table(
    image: &Image,
    asked: &Asked,
    trail: &trail::Trail<'_>,
    (newer, older): (Option<&str>, Option<&str>),
) -> Markup {
    html! {
        form action=(image::address(image)) {
            @if trail.items.is_empty() { p class="q" { "No revision is here." } }
            @else { (trail::table(trail)) }
            div class="bar more" {
                @if let Some(newer) = newer { a class="btn" rel="prev" href=(asked.address(image, Change::Newer(newer))) { "Newer" } }
                @if trail.items.len() > 1 { button class="btn" { (icon("copy")) "Compare the two selected" } }
                @if let Some(older) = older { a class="btn push" rel="next" href=(asked.address(image, Change::Older(older))) { "Older " (icon("moved")) } }
            }
        }
    }
}
