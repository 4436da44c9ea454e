//! `/i`, `/i/{registry}[/{part}…]`: repositories as folders.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::folders::{Folder, FoldersQuery, folders};

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, List, Page as Part};
use crate::http::parameters::{PART, Parameter, Parameters, optional, text};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::bars::{Column, in_row};
use crate::pages::part::command::command;
use crate::pages::part::icon::icon;
use crate::pages::part::question::{address, field, select};
use crate::pages::part::text::{counted, number, visible};
use crate::pages::reader::Reader;
use crate::pages::repository::steps;
use crate::shared::Shared;
use crate::store::similar;

pub(crate) const PAGE: Page = Page {
    id: "page_browse",
    paths: &["/i"],
    open: false,
    stored: true,
    serve: || get(all),
};

const FIRST: Parameter = optional("sort", "The first of the list.", "changes", text);
const ROWS: usize = 25;

/// The first of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Changes,
    Name,
}

impl First {
    const EVERY: [First; 2] = [First::Changes, First::Name];

    fn as_str(self) -> &'static str {
        match self {
            First::Changes => "changes",
            First::Name => "name",
        }
    }
}

async fn all(reader: Reader, State(shared): State<Shared>, uri: Uri) -> Result<Response, Error> {
    show(&reader, &shared, "", &uri).await
}

/// Shows what is below a place: a registry, and perhaps parts of a name.
pub(crate) async fn show(
    reader: &Reader,
    shared: &Shared,
    below: &str,
    uri: &Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(uri, &[PART, FIRST, CURSOR])?;
    let first = parameters.choice(FIRST.name, &First::EVERY, First::as_str)?;
    let first = first.unwrap_or(First::Changes);
    let name = match first {
        First::Changes => "folders_busiest",
        First::Name => "folders",
    };
    let part = Part::read(List { name, time: None }, &parameters)?.with(ROWS);
    let query = FoldersQuery {
        below,
        part: parameters.written(PART.name),
        busiest: first == First::Changes,
        now: reader.now,
    };
    let found = shared
        .database
        .ask_page(async |db| folders(db, query, part.after, part.fetch()).await)
        .await?;
    let found = part.cut(found);
    if found.items.is_empty() && !below.is_empty() && query.part.is_none() {
        return Err(unknown(shared, below.to_owned()).await);
    }
    Ok(page(reader, below, query.part, first, &found).into_response())
}

/// The problem of a repository or folder without history, which names similar repositories.
async fn unknown(shared: &Shared, repository: String) -> Error {
    let similar = shared
        .database
        .ask_large(async |db| similar::names(db, &repository).await);
    match similar.await {
        Ok(similar) if !similar.is_empty() => Error::RepositoryUnlike {
            repository,
            similar,
        },
        _ => Error::RepositoryUnknown(repository),
    }
}

fn page(
    reader: &Reader,
    below: &str,
    part: Option<&str>,
    first: First,
    found: &Items<Folder>,
) -> Html<String> {
    let path = match below {
        "" => "/i".to_owned(),
        below => format!("/i/{below}/"),
    };
    let next = found.next.as_deref().map(|next| {
        let first = Some(first.as_str());
        address(
            &path,
            &[("q", part), ("sort", first), ("cursor", Some(next))],
        )
    });
    let orders = [
        (
            First::Changes.as_str(),
            "most changes in 24 hours".to_owned(),
        ),
        (First::Name.as_str(), "name".to_owned()),
    ];
    let heading = below.rsplit('/').next().filter(|last| !last.is_empty());
    let content = html! {
        @if let Some((registry, rest)) = below.split_once('/').or((!below.is_empty()).then_some((below, ""))) {
            div { (crumbs(&steps(registry, rest))) h1 { (visible(heading.unwrap_or(registry))) } }
        } @else { h1 { "Images" } }
        section class="card" {
            form class="bar e" action=(path) {
                (field("q", "Name contains", 22, part.unwrap_or_default(), ""))
                (select("sort", "First", &orders, first.as_str()))
                button class="pri" { "Show" }
            }
            @if found.items.is_empty() { (nothing(part, &path)) }
            @else { (table(&found.items, part.is_some())) }
            @if let Some(next) = next {
                div class="bar more" { a class="btn push" rel="next" href=(next) { "Next " (icon("moved")) } }
            }
        }
    };
    let mut frame = Frame::new(heading.unwrap_or("Images"), Section::Images);
    let prefix = Some(format!("{below}/")).filter(|_| !below.is_empty());
    frame.list(address(
        "/v1/repositories",
        &[
            ("prefix", prefix.as_deref()),
            ("q", part),
            ("sort", Some(first.as_str())),
        ],
    ));
    let words = ["images"].into_iter().chain(prefix.as_deref());
    frame.cli = Some(command(
        &words.collect::<Vec<_>>(),
        &[("contains", part), ("sort", Some(first.as_str()))],
    ));
    frame.page(reader, &content)
}

fn nothing(part: Option<&str>, path: &str) -> Markup {
    html! {
        @match part {
            Some(part) => p class="note" { "No repository here has " q { (visible(part)) } " in its name. " a href=(path) { "Show all" } },
            None => p class="note" { "No push has been recorded yet. " a href="/" { "Home" } " shows what to set up." },
        }
    }
}

fn table(folders: &[Folder], repositories: bool) -> Markup {
    html! {
        table class="st" {
            thead { tr {
                th scope="col" { @if repositories { "Repository" } @else { "Under" } }
                th scope="col" class="full" { "Over 24 hours" }
                th scope="col" class="r" { "Repositories" }
                th scope="col" class="r" { "Tags" }
                th scope="col" class="r" { "Changes in 24 h" }
            } }
            tbody { @for folder in folders { (row(folder)) } }
        }
    }
}

fn row(folder: &Folder) -> Markup {
    let recent = folder.recent();
    let label = format!(
        "{} of {} over 24 hours",
        counted(recent, "change", "changes"),
        folder.place
    );
    let more = folder.repositories > u64::from(folder.is_repository);
    let page = match folder.is_repository {
        true => format!("/i/{}", folder.place),
        // With a slash at the end, a folder is meant also where a repository has the name.
        false => format!("/i/{}/", folder.place),
    };
    html! {
        tr {
            th scope="row" {
                a class="im" href=(page) { (visible(&folder.place)) @if !folder.is_repository { "/" } }
                @if folder.is_repository && more { " " a class="s" href={ (page) "/" } { "and below" } }
            }
            td class="full" { (in_row(&folder.changes.map(Column::of), &label)) }
            td class="r n" data-l="repositories" { (number(folder.repositories)) }
            td class="r n" data-l="tags" { (number(folder.tags)) }
            td class="r n" data-l="changes in 24 h" { (number(recent)) }
        }
    }
}
