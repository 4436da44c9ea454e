//! `/i/{registry}/{repository}:{tag}`: a tag: its head, and the trail of its revisions.

use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use tagtrail_history::changes::{self, HistoryItem, Range};
use tagtrail_history::tag_id;
use tagtrail_proto::Image;
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Page as Part};
use crate::http::parameters::Parameters;
use crate::operations::history::LIST;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::digest::{change, copy, swatch};
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, since, time};
use crate::pages::part::{icon, kind};
use crate::pages::reader::Reader;
use crate::shared::Shared;

/// Shows a tag.
pub(crate) async fn show(
    reader: &Reader,
    shared: &Shared,
    image: Image,
    uri: &Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(uri, &[CURSOR])?;
    let part = Part::read(LIST, &parameters)?;
    let found = shared
        .database
        .ask_page(async |db| {
            let Some(tag) = tag_id(db, &image).await? else {
                return Ok(None);
            };
            let head = changes::changes(db, tag, &image, Range::default(), None, 1).await?;
            let range = Range::default();
            let trail = changes::changes(db, tag, &image, range, part.after, part.fetch()).await?;
            Ok(Some((head, trail)))
        })
        .await?;
    let (head, trail) = found.ok_or_else(|| Error::TagUnknown(image.clone()))?;
    let trail = part.cut(trail);
    let mut frame = Frame::new(
        format!("{}:{}", image.repository, image.tag),
        Section::Images,
    );
    frame.json = Some(format!("/v1/history?image={image}"));
    frame.cli = Some(format!("tagtrail history {image}"));
    let content = html! {
        (crumbs(&steps(&image)))
        @if let Some((_, head)) = head.first() { (head_of(&image, head, reader.now)) }
        section class="card" aria-labelledby="trail-h" {
            h2 id="trail-h" { "The trail" }
            (table(&trail.items))
            @if let Some(next) = &trail.next {
                div class="bar more" { a class="btn push" rel="next" href={ "?cursor=" (next) } { "Older " (icon::icon("moved")) } }
            }
        }
    };
    Ok(frame.page(reader, &content).into_response())
}

/// Returns the way to a tag: registry, folders, repository, tag.
fn steps(image: &Image) -> Vec<(String, Option<String>)> {
    let registry = image.registry.to_string();
    let mut address = format!("/i/{registry}");
    let mut steps = vec![(registry, Some(address.clone()))];
    for part in image.repository.as_ref().split('/') {
        address = format!("{address}/{part}");
        steps.push((part.to_owned(), Some(address.clone())));
    }
    steps.push((image.tag.to_string(), None));
    steps
}

fn head_of(image: &Image, head: &HistoryItem, now: OffsetDateTime) -> Markup {
    let name = format!("{}:{}", image.repository, image.tag);
    html! {
        section class="head" {
            @if let Some(digest) = &head.digest { (crate::pages::part::digest::big_swatch(digest)) }
            div {
                div class="bar" { h1 { (name) } (kind::word(kind::Tone::Marked, &format!("head r{}", number(head.revision)))) }
                @if let (Some(digest), Some(pinned)) = (&head.digest, &head.pinned) {
                    p class="n" { (digest) (copy(&pinned.to_string(), "Copy the pinned reference")) }
                }
                p class="meta" {
                    span { @if head.digest.is_none() { "deleted " } @else { "since " } (since(head.occurred_at.0, now)) }
                    @if let Some(actor) = &head.actor { span { "by " (visible(actor)) } }
                }
            }
        }
    }
}

fn table(items: &[HistoryItem]) -> Markup {
    html! {
        table class="trail" {
            thead { tr {
                th scope="col" class="w6" { "When (UTC)" }
                th scope="col" { span class="vh" { "Digest" } }
                th scope="col" { "What" }
            } }
            tbody {
                @for item in items {
                    tr id={ "r" (item.revision) } {
                        td class="nw" { (time(item.occurred_at.0, Form::Full)) }
                        td class="nd" { @if let Some(digest) = &item.digest { (swatch(digest)) } }
                        td {
                            div class="ev" {
                                (kind::kind(item.kind))
                                (change(item.previous.as_ref().and_then(|before| before.digest.as_ref()), item.digest.as_ref()))
                            }
                            div class="meta" {
                                span class="n" { "r" (number(item.revision)) }
                                @if let Some(actor) = &item.actor { span { (visible(actor)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
