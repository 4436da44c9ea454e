//! `/search?q=`: everything that a text can mean. One answer leads to its page at once.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::search::BuiltFrom;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters};
use crate::operations::search::{Found, QUESTION, find, question};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::part::commit::built_from;
use crate::pages::part::digest::{self, link_with};
use crate::pages::part::image;
use crate::pages::part::text::{counted, visible};
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store::similar;

pub(crate) const PAGE: Page = Page {
    id: "page_search",
    paths: &["/search"],
    open: false,
    stored: true,
    serve: || get(show),
};

const KNOWN: &[Parameter] = &[QUESTION];

async fn show(reader: Reader, State(shared): State<Shared>, uri: Uri) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, KNOWN)?;
    let mut frame = Frame::new("Search", Section::Other);
    let Some(question) = question(&parameters)? else {
        let content = html! { h1 { "Search" } (help()) };
        return Ok(frame.page(&reader, &content).into_response());
    };
    let names = shared.names.get().clone();
    let (found, similar) = shared
        .database
        .ask_page(async |db| {
            let found = find(db, &names, question).await?;
            let similar = match count(&found) {
                0 => similar::names(db, &found.question).await?,
                _ => Vec::new(),
            };
            Ok((found, similar))
        })
        .await?;
    if let Some(address) = only(&found) {
        return Ok(Redirect::to(&address).into_response());
    }
    frame.question = visible(question);
    let escaped: String = form_urlencoded::byte_serialize(question.as_bytes()).collect();
    frame.json = Some(format!("/v1/search?q={escaped}"));
    let content = match count(&found) {
        0 => none(&found.question, &similar),
        _ => results(&found),
    };
    Ok(frame.page(&reader, &content).into_response())
}

fn count(found: &Found) -> usize {
    found.images.len()
        + found.digests.len()
        + found.commits.len()
        + found.rollouts.len()
        + found.triggers.len()
        + found.repositories.len()
        + found.tags.len()
}

/// Returns the address of the only answer.
fn only(found: &Found) -> Option<String> {
    if count(found) != 1 {
        return None;
    }
    let images = found.images.iter().map(image::address);
    let digests = found.digests.iter().map(digest::address);
    let commits = found.commits.iter().map(|one| digest::address(&one.digest));
    let rollouts = found.rollouts.iter();
    let rollouts = rollouts.map(|one| format!("/rollouts/{}/{}", one.trigger, one.number));
    let triggers = found
        .triggers
        .iter()
        .map(|name| format!("/triggers/{name}"));
    let repositories = found.repositories.iter();
    let repositories =
        repositories.map(|one| image::repository_address(&one.registry, &one.repository));
    images
        .chain(found.tags.iter().map(image::address))
        .chain(digests)
        .chain(commits)
        .chain(rollouts)
        .chain(triggers)
        .chain(repositories)
        .next()
}

fn results(found: &Found) -> Markup {
    html! {
        h1 { "“" (visible(&found.question)) "”" }
        @if !found.commits.is_empty() { (commits(&found.commits)) }
        (list("Digests", found.digests.iter().map(|one| link_with(one, 12)).collect()))
        (list("Images", found.images.iter().map(image::link).collect()))
        (list("Repositories", found.repositories.iter().map(|one| {
            let address = image::repository_address(&one.registry, &one.repository);
            html! { a class="im" href=(address) { (one.registry) "/" (one.repository) } }
        }).collect()))
        (list("Tags", found.tags.iter().map(image::link).collect()))
        (list("Triggers", found.triggers.iter().map(|name| html! { a class="b" href={ "/triggers/" (name) } { (name) } }).collect()))
        (help())
    }
}

fn list(heading: &str, items: Vec<Markup>) -> Markup {
    html! {
        @if !items.is_empty() {
            section class="card" {
                h2 { (heading) span class="push q" { (counted(items.len() as u64, "answer", "answers")) } }
                ul class="feed need" { @for item in items { li { (item) } } }
            }
        }
    }
}

fn commits(commits: &[BuiltFrom]) -> Markup {
    html! {
        section class="card" {
            h2 { "Commits" span class="push q" { (counted(commits.len() as u64, "digest", "digests")) } }
            table class="st" {
                thead { tr {
                    th scope="col" { "Commit" }
                    th scope="col" { "Digest" }
                    th scope="col" { "Image" }
                } }
                tbody {
                    @for one in commits {
                        tr {
                            th scope="row" class="n" { (built_from(None, Some(&one.commit), one.source.as_deref())) }
                            td { (link_with(&one.digest, 12)) }
                            td data-l="image" {
                                (one.repository)
                                @if let Some(version) = &one.version { " " (visible(version)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn none(question: &str, similar: &[String]) -> Markup {
    html! {
        h1 { "Nothing for “" (visible(question)) "”" }
        p class="note" {
            "No image, digest, commit, rollout, trigger or repository of this name was ever recorded."
            (image::did_you_mean(similar))
        }
        p { a href="/sources" { "Check its source" } }
        (help())
    }
}

fn help() -> Markup {
    html! {
        p class="s" {
            "Paste anything: " code { "registry/repository:tag" } ", " code { "…@sha256:…" } ", " code { "docker pull …" }
            ", the beginning of a digest or commit (6 or more), " code { "shop#418" } ", or part of a name."
        }
    }
}
