//! `/d/{digest}`: one digest: the images that have it, those that had it, the triggers that run it,
//! and the rollouts that had it.

mod contents;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::digests::{self, DigestInterval};
use tagtrail_history::manifests::manifest;
use tagtrail_history::search::same_commit;
use tagtrail_proto::{Digest, Manifest, Rollout};
use time::OffsetDateTime;

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::digests::{LIST, whole_digest};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::commit::built_from;
use crate::pages::part::digest::{big_swatch, copy, digits, link_with};
use crate::pages::part::image;
use crate::pages::part::lane::{Bar, Window, axis, lane};
use crate::pages::part::question::address;
use crate::pages::part::rollout;
use crate::pages::part::standing::{cause, state};
use crate::pages::part::text::{
    counted, foreign, link_or_text, number, platform_name, size, visible,
};
use crate::pages::part::when::{Form, ago, time};
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store;
use crate::store::running::{self, Running};

pub(crate) const PAGE: Page = Page {
    id: "page_digest",
    paths: &["/d/{digest}"],
    open: false,
    stored: true,
    serve: || get(show),
};

/// Most triggers, and most other digests, that are listed.
const MOST: i64 = 25;
/// Most rollouts that are listed.
const ROLLOUTS: i64 = 10;

/// The content of the page.
struct Read {
    held: Items<DigestInterval>,
    /// Whether this is the first page of the intervals.
    start: bool,
    manifest: Option<Manifest>,
    running: Vec<Running>,
    /// The newest rollouts that had it: at most [`ROLLOUTS`], and one more.
    rollouts: Vec<Rollout>,
    /// Other digests of the same commit.
    siblings: Vec<Digest>,
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[CURSOR])?;
    let part = Part::read(LIST, &parameters)?;
    let digest = whole_digest(&shared.database, &path).await?;
    let read = shared
        .database
        .ask_page(async |db| {
            let held = digests::intervals(db, &digest, part.after, part.fetch()).await?;
            let manifest = manifest(db, &digest).await?;
            let running = running::of_digests(db, &[&digest], MOST).await?;
            let rollouts = store::rollouts::with_digest(db, &digest, None, ROLLOUTS + 1).await?;
            let commit = manifest.as_ref().and_then(|one| one.revision.as_deref());
            let siblings = match commit {
                Some(commit) => same_commit(db, commit, &digest, MOST).await?,
                None => Vec::new(),
            };
            Ok(Read {
                held: part.cut(held),
                start: part.after.is_none(),
                manifest,
                running,
                rollouts: rollouts.into_iter().map(|(_, one)| one.rollout).collect(),
                siblings,
            })
        })
        .await?;
    if read.held.items.is_empty() && read.manifest.is_none() && read.running.is_empty() {
        return Err(Error::DigestUnheard(digest));
    }
    let short = digits(&digest, 12);
    let mut frame = Frame::new(short.clone(), Section::Images);
    let cursor = [(CURSOR.name, parameters.text(CURSOR.name))];
    frame.list(address(&format!("/v1/digests/{digest}"), &cursor));
    frame.cli = Some(format!("tagtrail digest {digest}"));
    let content = html! {
        (crumbs(&[("Images".to_owned(), Some("/i".to_owned())), (short, None)]))
        (head(&digest, &read))
        (verdict(&read))
        (intervals(&digest, &read, reader.now))
        (rolled_out(&digest, &read, reader.now))
        @match &read.manifest {
            Some(manifest) => {
                (contents(manifest, &read.siblings))
                @if let Some(of) = &manifest.image { (contents::image(of, manifest.index.is_some())) }
            },
            None => p class="note" { "Its manifest has not been read yet, or its registry has no " code { "[[registry]]" } " entry in tagtrail.toml." },
        }
    };
    Ok(frame.page(&reader, &content))
}

fn head(digest: &Digest, read: &Read) -> Markup {
    let manifest = read.manifest.as_ref();
    let version = manifest.and_then(|one| one.version.as_deref());
    // Only a whole list has the first of the intervals.
    let whole = read.start && read.held.next.is_none();
    let first = read.held.items.iter().filter(|one| whole && !one.signature);
    let first = first.min_by_key(|one| one.from.0);
    html! {
        section class="head" {
            (big_swatch(digest))
            div {
                h1 { @match (version, manifest) {
                    (Some(version), Some(manifest)) => { (manifest.repository) " " (visible(version)) },
                    _ => { "Digest " (digits(digest, 12)) },
                } }
                p class="n" { (digest) (copy(&digest.to_string(), "Copy the digest")) }
                p class="meta" {
                    @if let Some(manifest) = manifest {
                        span { (visible(&manifest.media_type)) ", " (size(manifest.size)) }
                        @if let Some(created) = manifest.created { span { "built " (time(created, Form::Full)) } }
                        (built_from(None, manifest.revision.as_deref(), manifest.source.as_deref()))
                    }
                    @if let Some(first) = first { span { "first seen " (time(first.from.0, Form::Full)) " as " (first.image.tag) } }
                }
            }
        }
    }
}

/// States whether the digest is in use: the question of those who want to delete it.
fn verdict(read: &Read) -> Markup {
    let held = read
        .held
        .items
        .iter()
        .filter(|one| one.until.is_none() && !one.signature);
    let tags = held.count() as u64;
    let more = if read.held.next.is_some() || !read.start {
        " or more"
    } else {
        ""
    };
    let triggers = read.running.len() as u64;
    let used = tags > 0 || triggers > 0;
    html! {
        p class={ "note" @if used { " ok" } } {
            b {
                @match tags { 0 => { "In force for no tag" }, _ => { "In force for " (counted(tags, "tag", "tags")) (more) } }
                @match triggers { 0 => { ", and run by no trigger." }, _ => { ", and run by " (counted(triggers, "trigger", "triggers")) "." } }
            }
            @if !read.running.is_empty() {
                " Deleting it from its registry would break "
                @for (place, one) in read.running.iter().take(5).enumerate() {
                    @if place > 0 { ", " }
                    a href={ "/triggers/" (one.trigger) } { (one.trigger) }
                    @if let Some(since) = one.since { ", which runs it since " (time(since, Form::Short)) }
                }
                @if read.running.len() > 5 { " and others" }
                "."
            }
        }
    }
}

/// Lists the rollouts that had the digest, also those of triggers that run another one now: a
/// person may roll back to it.
fn rolled_out(digest: &Digest, read: &Read, now: OffsetDateTime) -> Markup {
    let shown = usize::try_from(ROLLOUTS).unwrap_or(usize::MAX);
    html! {
        @if !read.rollouts.is_empty() {
            section class="card" {
                h2 { "Rolled out " span class="push q" { "newest first" } }
                table class="st" {
                    thead { tr { th scope="col" { "Rollout" } th scope="col" { "State" } th scope="col" { "Cause" } th scope="col" class="r" { "When" } } }
                    tbody { @for one in read.rollouts.iter().take(shown) { tr {
                        th scope="row" { a href=(rollout::address(&one.trigger, one.number)) { (visible(&one.trigger)) " #" (number(one.number)) } }
                        td { (state(one.state)) }
                        td { (cause(one.cause.reason)) }
                        td class="r nw" { (time(one.created_at, Form::Short)) " " (ago(one.created_at, now)) }
                    } } }
                }
                @if read.rollouts.len() > shown {
                    p class="more" { a href={ "/v1/digests/" (digest) "/rollouts" } { "All rollouts as JSON" } }
                }
            }
        }
    }
}

/// Intervals of one image, which are next to each other in the list.
fn by_image(held: &[DigestInterval]) -> Vec<&[DigestInterval]> {
    held.chunk_by(|one, next| one.image == next.image).collect()
}

fn intervals(digest: &Digest, read: &Read, now: OffsetDateTime) -> Markup {
    let held = &read.held.items;
    let first = held.iter().map(|one| one.from.0);
    let first = first
        .chain(read.running.iter().filter_map(|one| one.since))
        .min();
    let window = Window {
        from: first.unwrap_or(now),
        until: now,
    };
    let images = by_image(held);
    let bar = |from, until: Option<OffsetDateTime>, revision: Option<u64>| Bar {
        from,
        until: until.unwrap_or(now),
        digest: Some(digest.clone()),
        revision,
        version: None,
    };
    html! {
        section class="card" {
            h2 {
                "Tags that held it and triggers that run it"
                @if read.start && read.held.next.is_none() {
                    span class="push q" { (counted(images.len() as u64, "image", "images")) " in " (counted(held.len() as u64, "interval", "intervals")) }
                }
            }
            table class="lanes st fix" {
                thead { tr {
                    th scope="col" class="w22" { "Image" }
                    th scope="col" class="full" { (axis(window)) span class="vh" { "When" } }
                    th scope="col" class="w18" { "From, until" }
                } }
                tbody {
                    @for spans in images {
                        @if let Some(one) = spans.first() {
                            @let bars: Vec<Bar> = spans.iter().map(|one| bar(one.from.0, one.until.map(|until| until.0), Some(one.revision))).collect();
                            tr {
                                th scope="row" class="n" { (image::link(&one.image)) }
                                td class="full" { (lane(window, &bars, &format!("{} had it {}", one.image, counted(bars.len() as u64, "time", "times")))) }
                                td class="s" {
                                    @for (place, one) in spans.iter().enumerate() {
                                        @if place > 0 { br; }
                                        (time(one.from.0, Form::Short)) " to "
                                        @match one.until { Some(until) => { (time(until.0, Form::Short)) }, None => b { "now" } }
                                    }
                                }
                            }
                        }
                    }
                }
                @if !read.running.is_empty() {
                    tbody {
                        tr class="hd2" { th scope="rowgroup" colspan="3" class="s" { "Triggers that run it" } }
                        @for one in &read.running {
                            tr {
                                th scope="row" { a href={ "/triggers/" (one.trigger) } { (one.trigger) } }
                                td class="full" {
                                    @if let Some(since) = one.since { (lane(window, &[bar(since, None, None)], &format!("{} runs it", one.trigger))) }
                                }
                                td class="s" {
                                    "rollout #" (number(one.rollout))
                                    @if let Some(since) = one.since { ": " (time(since, Form::Short)) " to " b { "now" } }
                                }
                            }
                        }
                    }
                }
            }
            @if let Some(next) = &read.held.next { p class="more" { a href={ "?cursor=" (next) } { "More images" } } }
        }
    }
}

fn contents(manifest: &Manifest, siblings: &[Digest]) -> Markup {
    let texts = manifest.labels.len() + manifest.annotations.len();
    html! {
        div class="g11" {
            section class="card" {
                h2 { "Platforms" }
                @if manifest.platforms.is_empty() { p class="q" { "The manifest names no platform." } }
                @else { table class="st" {
                    thead { tr {
                        th scope="col" { "Platform" }
                        th scope="col" { "Digest" }
                        @if manifest.index.is_some() { th scope="col" class="r" { "Manifest" } }
                    } }
                    tbody {
                        @for platform in &manifest.platforms {
                            tr {
                                th scope="row" { (platform_name(platform)) }
                                td { @match &platform.digest {
                                    // A digest that no tag had has no page.
                                    Some(own) => {
                                        @let pinned = format!("{}/{}@{own}", manifest.registry, manifest.repository);
                                        span class="n" { (digits(own, 12)) }
                                        (copy(&pinned, &format!("Copy the pinned reference for {}", platform_name(platform))))
                                    },
                                    None => span class="q" { "this digest" },
                                } }
                                @if let Some(index) = &manifest.index {
                                    @let child = index.children.iter().find(|one| Some(&one.digest) == platform.digest.as_ref());
                                    td class="r n" { @if let Some(child) = child { (size(child.size)) } }
                                }
                            }
                        }
                    }
                } }
                @if let Some(index) = &manifest.index {
                    @let others = index.children.iter().filter(|one| one.platform.is_none()).count() as u64 + index.children_left_out;
                    @if others > 0 { p class="q" { (counted(others, "more manifest", "more manifests")) " in the index, such as attestations." } }
                }
                @if !siblings.is_empty() {
                    details {
                        summary class="s" {
                            (counted(siblings.len() as u64, "more digest was", "more digests were")) " built from this commit"
                        }
                        ul { @for other in siblings { li { (link_with(other, 12)) } } }
                    }
                }
            }
            section class="card" {
                h2 { "Labels" span class="push q" { (texts) } }
                dl class="kv" {
                    @for (name, value) in manifest.labels.iter().chain(&manifest.annotations) {
                        dt class="n" { (foreign(name)) }
                        dd { (link_or_text(value)) }
                    }
                }
            }
        }
    }
}
