//! `/quarantine/{number}`: one body that could not be interpreted, and its replay.

use axum::body::to_bytes;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};
use serde_json::Value;
use tagtrail_config::TriggerGlob;
use tagtrail_proto::{Quarantined, Replayed};
use uuid::Uuid;

use crate::http::error::Error;
use crate::http::guard::QUARANTINE;
use crate::http::parameters::{Parameter, Parameters, PathValues, optional, text};
use crate::operations::quarantine::{self as operations, LIST, WholeEntry, entry, number};
use crate::pages::Page;
use crate::pages::act::{Acting, Order, is_named};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::form::{Fields, reason};
use crate::pages::part::icon::icon;
use crate::pages::part::text::{counted, foreign, number as with_commas, visible};
use crate::pages::part::when::since;
use crate::pages::reader::Reader;
use crate::pages::trigger::because;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_quarantine",
    paths: &["/quarantine/{number}"],
    open: false,
    stored: false,
    serve: || get(show),
};
pub(crate) const REPLAY: Page = Page {
    id: "page_quarantine_replay",
    paths: &["/quarantine/{number}/replay"],
    open: false,
    stored: false,
    serve: || post(replay).layer(Fields::limit()),
};

/// The result of a replay, in the address to which its form leads.
const REPLAYED: Parameter = optional("replayed", "Pushes of the replay.", "4", text);

/// Longest answer of a replay, in bytes.
const LONGEST: usize = 4096;

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[REPLAYED])?;
    // Bodies may hold secrets.
    may_see(&reader, &shared).await?;
    let number = number(&path)?;
    let WholeEntry { entry, .. } = entry(&shared.quarantine, number).await?;
    let replayed = parameters.text(REPLAYED.name);
    let replayed = replayed.and_then(|count| count.parse::<u64>().ok());
    let mut frame = Frame::new(format!("Quarantine {number}"), Section::Sources);
    frame.json = Some(format!("/v1/quarantine/{number}"));
    frame.cli = Some(format!("tagtrail quarantine show {number}"));
    let sources = "/sources".to_owned();
    let content = html! {
        (crumbs(&[
            ("Sources".to_owned(), Some(sources.clone())),
            (visible(&entry.source), Some(format!("{sources}#{}", entry.source))),
            (format!("Quarantine {number}"), None),
        ]))
        h1 { (first_line(&entry.reason)) }
        @match replayed {
            Some(count) => p class="note ok" role="status" {
                "Replayed: " (counted(count, "push is", "pushes are")) " stored. Those that were stored before are recorded once."
            },
            None => p class="note warn" {
                "Nothing of this body is recorded: its changes are lost until it is replayed, or found by reconciling. "
                "Fix the cause, then replay the body; its pushes are recorded with their own times, as late."
            },
        }
        div class="g2" {
            (body(&entry))
            div class="col" {
                (properties(&entry, &reader))
                (form(number, &entry))
            }
        }
    };
    Ok(frame.page(&reader, &content))
}

/// Checks that the reader may see bodies in quarantine: as the operations do.
pub(super) async fn may_see(reader: &Reader, shared: &Shared) -> Result<(), Error> {
    reader.check(LIST.role)?;
    let named = shared
        .database
        .ask(async |db| is_named(db, reader).await)
        .await?;
    match reader.may_act(LIST.role, named, TriggerGlob::is_of_all) {
        true => Ok(()),
        false => Err(Error::OutOfScope {
            token: reader.name().unwrap_or_default().to_owned(),
            trigger: QUARANTINE.to_owned(),
        }),
    }
}

/// Carries out the form. Repeating a replay is harmless, so no key is kept with the form.
async fn replay(
    acting: Acting,
    path: PathValues,
    uri: Uri,
    fields: Fields,
) -> Result<Response, Error> {
    Parameters::read(&uri, &[])?;
    let number = number(&path)?;
    let order = Order {
        method: Method::POST,
        path: format!("/v1/quarantine/{number}/replay"),
        body: Value::Object(because(&fields)),
        role: operations::REPLAY.role,
        trigger: None,
    };
    let response = acting.call(&Uuid::now_v7().to_string(), order).await?;
    if !response.status().is_success() {
        return Ok(response);
    }
    let body = to_bytes(response.into_body(), LONGEST).await;
    let replayed: Option<Replayed> = body.ok().and_then(|it| serde_json::from_slice(&it).ok());
    let stored = replayed.map_or(0, |replayed| replayed.accepted + replayed.unresolved);
    let address = format!("/quarantine/{number}?replayed={stored}");
    Ok(Redirect::to(&address).into_response())
}

fn first_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(200);
    visible(line.get(..end).unwrap_or_default())
}

fn body(entry: &Quarantined) -> Markup {
    let bytes = STANDARD.decode(&entry.body).unwrap_or_default();
    let text = match serde_json::from_slice::<Value>(&bytes) {
        Ok(json) => serde_json::to_string_pretty(&json).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    html! {
        section class="card" {
            h2 {
                "The body "
                span class="push q" {
                    (with_commas(entry.length)) " bytes, "
                    @match entry.truncated { true => "cut", false => "whole" }
                }
            }
            pre { (foreign(&text)) }
        }
    }
}

fn properties(entry: &Quarantined, reader: &Reader) -> Markup {
    html! {
        section class="card" {
            h2 { "Properties" }
            dl class="kv" {
                dt { "Source" } dd { (visible(&entry.source)) " (" (visible(&entry.kind)) ")" }
                dt { "Why" } dd { (foreign(&entry.reason)) }
                dt { "Received" } dd { (since(entry.received_at, reader.now)) }
                dt { "Content-Type" }
                dd class="n" { @match &entry.content_type { Some(kind) => { (visible(kind)) }, None => span class="none" { "none" } } }
                dt { "SHA-256" } dd class="n" { (entry.sha256) }
                @for (name, value) in &entry.headers { dt class="n" { (visible(name)) } dd class="n" { (foreign(value)) } }
            }
        }
    }
}

fn form(number: u64, entry: &Quarantined) -> Markup {
    html! {
        section class="card" {
            h2 { "Replay" }
            @if entry.truncated {
                p { "Only the beginning of this body was kept: have the registry send the event again." }
            } @else {
                form method="post" action={ "/quarantine/" (number) "/replay" } class="form" {
                    p class="s" { "Interpreted with the present settings of " (visible(&entry.source)) ". Repeating it is harmless." }
                    (reason(false))
                    button class="pri" { (icon("recreated")) "Replay" }
                }
            }
        }
    }
}
