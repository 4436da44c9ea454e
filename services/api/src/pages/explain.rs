//! `/triggers/{name}/explain`: for each image the tags that a trigger passes over, and why.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::instant::Instant;
use tagtrail_proto::Name;

use crate::http::error::Error;
use crate::http::parameters::{AT, Parameters, PathValues};
use crate::operations::explain::{ExplainedImage, USUAL, explained};
use crate::operations::triggers::NAME;
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::digest::{link, link_or};
use crate::pages::part::question::past;
use crate::pages::part::standing::words;
use crate::pages::part::text::{counted, number, visible};
use crate::pages::part::when::{self, Form, time};
use crate::pages::reader::Reader;
use crate::pages::trigger::parts::plain;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_explain",
    paths: &["/triggers/{name}/explain"],
    open: false,
    stored: true,
    serve: || get(show),
};

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, &[AT])?;
    let name: Name = path.parse(&NAME).map_err(|_| Error::TriggerUnknown)?;
    let at = past(&parameters, AT.name, reader.now)?;
    if let Some(typed) = at.filter(|at| !at.lasts) {
        // The address of the page holds the time as it was understood.
        let address = format!("/triggers/{name}/explain?at={}", Instant(typed.at));
        return Ok(Redirect::to(&address).into_response());
    }
    let at = at.map(|at| at.at);
    let found = shared
        .database
        .ask_page(async |db| explained(db, &name, at, USUAL).await)
        .await?;
    let found = found.ok_or(Error::TriggerUnknown)?;
    let mut frame = Frame::new(format!("Why {name} stands there"), Section::Triggers);
    let query = at.map_or(String::new(), |at| format!("?at={}", Instant(at)));
    frame.json = Some(format!("/v1/triggers/{name}/explain{query}"));
    frame.cli = Some(match at {
        Some(at) => format!("tagtrail explain {name} --at {}", Instant(at)),
        None => format!("tagtrail explain {name}"),
    });
    let steps = [
        ("Triggers".to_owned(), Some("/triggers".to_owned())),
        (name.to_string(), Some(format!("/triggers/{name}"))),
        ("Explain".to_owned(), None),
    ];
    let content = html! {
        (crumbs(&steps))
        h1 { "Why " (name) " stands for these tags" }
        form class="bar e" {
            label { "At (UTC)" input name="at" value=[at.map(|at| when::written(at, Form::Full))] placeholder="3 Mar 14:02, or 2 h ago"; }
            button class="pri" { "Show" }
            span class="push s" { "The rule is the present one; heads and the last rollout are those of " (time(found.at.0, Form::Full)) }
        }
        @if let Some(follow) = &found.follow { p class="note" { "Its images are those of the triggers that it follows: " (visible(&plain(follow))) "." } }
        @if found.images.is_empty() { p class="note" { "It has no images of its own." } }
        @for (name, one) in &found.images { (image(name, one)) }
    };
    Ok(frame.page(&reader, &content).into_response())
}

fn image(name: &str, one: &ExplainedImage) -> Markup {
    html! {
        section class="card" {
            h2 { (visible(name)) " " span class="push q n" { (visible(&one.image)) } }
            p {
                @match &one.selected {
                    Some(selected) => {
                        "Stands for " code { (selected.tag) } ", " (link(&selected.digest))
                        @if selected.revision > 0 { ", revision " (number(selected.revision)) }
                        "."
                    },
                    None => b { "It stands for no tag." },
                }
            }
            p class="s" {
                @match &one.rule {
                    Some(rule) => { "Rule: " span class="n" { (visible(&plain(rule))) } },
                    None => "The trigger names this tag: its digest is followed.",
                }
            }
            @if !one.passed_over.is_empty() {
                table class="st" {
                    thead { tr { th scope="col" { "Tag passed over" } th scope="col" { "Digest" } th scope="col" { "Reason" } th scope="col" { "Why" } th scope="col" class="r" { "Ends" } } }
                    tbody { @for other in &one.passed_over { tr {
                        th scope="row" class="n" { (other.tag) }
                        td { (link_or(other.digest.as_ref(), "deleted")) }
                        td { (words(&other.code)) }
                        td class="full s" { (visible(&other.why)) }
                        td class="r s" { @if let Some(at) = other.opens_at { (time(at.0, Form::Full)) } }
                    } } }
                }
                @if one.left > 0 { p class="more" { (counted(one.left, "more tag is", "more tags are")) " passed over" } }
            }
        }
    }
}
