//! `/d/{digest}`: one digest: the images that have it, and those that had it.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::digests::{self, DigestInterval};
use tagtrail_history::manifests::manifest;
use tagtrail_proto::{Digest, Manifest};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::digests::{LIST, whole_digest};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::digest::{big_swatch, copy, hex};
use crate::pages::part::image;
use crate::pages::part::lane::{Bar, Window, axis, lane};
use crate::pages::part::text::{counted, foreign, link_or_text, platform_name, size, visible};
use crate::pages::part::when::{Form, time};
use crate::pages::reader::Reader;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_digest",
    paths: &["/d/{digest}"],
    open: false,
    serve: || get(show),
};

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[CURSOR])?;
    let part = Part::read(LIST, &parameters)?;
    let digest = whole_digest(&shared.database, &path).await?;
    let (held, read) = shared
        .database
        .ask_page(async |db| {
            let held = digests::intervals(db, &digest, part.after, part.fetch()).await?;
            Ok((held, manifest(db, &digest).await?))
        })
        .await?;
    let held = part.cut(held);
    if held.items.is_empty() && read.is_none() {
        return Err(Error::DigestUnheard(digest));
    }
    let mut frame = Frame::new(
        hex(&digest).chars().take(12).collect::<String>(),
        Section::Images,
    );
    frame.json = Some(format!("/v1/digests/{digest}"));
    frame.cli = Some(format!("tagtrail digest {digest}"));
    let content = html! {
        (crumbs(&[("Images".to_owned(), Some("/i".to_owned())), (hex(&digest).chars().take(12).collect(), None)]))
        (head(&digest, read.as_ref()))
        (verdict(&held))
        (intervals(&digest, &held, reader.now))
        @if let Some(read) = &read { (contents(read)) }
        @else { p class="note" { "Its manifest has not been read yet, or its registry has no " code { "[[registry]]" } " entry in tagtrail.toml." } }
    };
    Ok(frame.page(&reader, &content))
}

fn head(digest: &Digest, read: Option<&Manifest>) -> Markup {
    html! {
        section class="head" {
            (big_swatch(digest))
            div {
                h1 { @match read.and_then(|read| read.version.as_deref()) {
                    Some(version) => { (visible(version)) },
                    None => { "Digest " (hex(digest).chars().take(12).collect::<String>()) },
                } }
                p class="n" { (digest) (copy(&digest.to_string(), "Copy the digest")) }
                @if let Some(read) = read {
                    p class="meta" {
                        span { (visible(&read.media_type)) ", " (size(read.size)) }
                        @if let Some(created) = read.created { span { "built " (time(created, Form::Full)) } }
                        @if let Some(revision) = &read.revision { span { "commit " code { (visible(revision)) } } }
                    }
                }
            }
        }
    }
}

fn verdict(held: &Items<DigestInterval>) -> Markup {
    let now = held
        .items
        .iter()
        .filter(|one| one.until.is_none() && !one.signature);
    let count = now.count();
    html! {
        @match count {
            0 => p class="note" { b { "In force for no tag." } },
            _ => p class="note ok" { b { "In force for " (counted(count as u64, "tag", "tags")) "." } },
        }
    }
}

fn intervals(digest: &Digest, held: &Items<DigestInterval>, now: OffsetDateTime) -> Markup {
    let first = held.items.iter().map(|one| one.from.0).min();
    let window = Window {
        from: first.unwrap_or(now),
        until: now,
    };
    html! {
        section class="card" {
            h2 { "Images that had it" }
            table class="lanes st fix" {
                thead { tr {
                    th scope="col" class="w22" { "Image" }
                    th scope="col" class="full" { (axis(window)) span class="vh" { "When" } }
                    th scope="col" class="w18" { "From, until" }
                } }
                tbody {
                    @for one in &held.items {
                        @let until = one.until.map_or(now, |until| until.0);
                        @let bar = Bar { from: one.from.0, until, digest: Some(digest.clone()), revision: Some(one.revision), version: None };
                        tr {
                            th scope="row" class="n" { (image::link(&one.image)) }
                            td class="full" { (lane(window, &[bar], &[], &format!("the time in which {} had it", one.image))) }
                            td class="s" {
                                (time(one.from.0, Form::Short)) " to "
                                @match one.until { Some(until) => { (time(until.0, Form::Short)) }, None => b { "now" } }
                            }
                        }
                    }
                }
            }
            @if let Some(next) = &held.next { p class="more" { a href={ "?cursor=" (next) } { "More images" } } }
        }
    }
}

fn contents(read: &Manifest) -> Markup {
    html! {
        div class="g11" {
            section class="card" {
                h2 { "Platforms" }
                ul { @for platform in &read.platforms { li class="n" { (platform_name(platform)) } } }
            }
            section class="card" {
                h2 { "Labels" }
                dl class="kv" {
                    @for (name, value) in read.labels.iter().chain(&read.annotations) {
                        dt class="n" { (foreign(name)) }
                        dd { (link_or_text(value)) }
                    }
                }
            }
        }
    }
}
