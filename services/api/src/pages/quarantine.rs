//! `/quarantine/{number}`: one body that could not be interpreted, and its replay.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};
use serde_json::Value;
use tagtrail_config::Role;
use tagtrail_proto::Quarantined;

use crate::http::error::Error;
use crate::http::parameters::{Parameter, Parameters, PathValues, optional, text};
use crate::operations::quarantine::{WholeEntry, entry, number};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::icon::icon;
use crate::pages::part::text::{counted, foreign, number as with_commas, visible};
use crate::pages::part::when::since;
use crate::pages::reader::Reader;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_quarantine",
    paths: &["/quarantine/{number}"],
    open: false,
    serve: || get(show),
};
pub(crate) const REPLAY: Page = Page {
    id: "page_quarantine_replay",
    paths: &["/quarantine/{number}/replay"],
    open: false,
    serve: || post(replay),
};

/// The result of a replay, in the address to which its form leads.
const REPLAYED: Parameter = optional("replayed", "Pushes of the replay.", "4", text);

/// Refuses a reader who may not read bodies: they may hold secrets.
pub(super) fn refuse(reader: &Reader) -> Result<(), Error> {
    if reader.may(Role::Operate) {
        return Ok(());
    }
    let holder = reader.holder.as_ref();
    Err(Error::Forbidden {
        token: holder.map_or_else(String::new, |holder| holder.name.clone()),
        role: holder.map_or(Role::Read, |holder| holder.role),
        needed: Role::Operate,
    })
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[REPLAYED])?;
    refuse(&reader)?;
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

/// Carries out the form, by the code of the operation.
async fn replay(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Redirect, Error> {
    Parameters::read(&uri, &[])?;
    refuse(&reader)?;
    let number = number(&path)?;
    let replayed = shared.quarantine.replay(number).await?;
    let actor = reader.name().unwrap_or_default();
    tracing::info!(
        actor,
        number,
        "{actor} replayed the quarantined body {number}"
    );
    let stored = replayed.accepted + replayed.unresolved;
    Ok(Redirect::to(&format!(
        "/quarantine/{number}?replayed={stored}"
    )))
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
                    button class="pri" { (icon("recreated")) "Replay" }
                }
            }
        }
    }
}
