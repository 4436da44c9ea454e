//! `/sources`: the sources of events: sending or silent since when, and findings with their cures.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::Parameters;
use crate::operations::quarantine::{self, EntryItem};
use crate::operations::sources::{Finding, Level, Source, Sources, Standing, see};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::home::{figure, known};
use crate::pages::part::bars::{Column, Columns, Height, columns, of_day};
use crate::pages::part::icon::icon_for;
use crate::pages::part::kind::Tone;
use crate::pages::part::standing::finder;
use crate::pages::part::text::{counted, foreign, number, size, visible, with_code};
use crate::pages::part::when::{Form, ago, since, span, time};
use crate::pages::part::{digest, image};
use crate::pages::quarantine::may_see;
use crate::pages::reader::Reader;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_sources",
    paths: &["/sources"],
    open: false,
    stored: false,
    serve: || get(show),
};

/// Rows of the list of bodies, each of which is read from the stream.
const QUARANTINED: usize = 25;
/// Rows of the list of repositories that could not be reconciled.
const NOT_COMPARED: usize = 25;

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[CURSOR])?;
    let (now, file) = (reader.now, shared.file.get());
    let sources = shared
        .database
        .ask_page(async |db| see(db, &file, now).await)
        .await?;
    let quarantined = match may_see(&reader, &shared).await {
        Ok(()) => {
            let page = Part::read(quarantine::ALL, &parameters)?.at_most(QUARANTINED);
            Some(quarantine::entries(&shared.quarantine, &page).await)
        }
        Err(Error::OutOfScope { .. } | Error::Forbidden { .. }) => None,
        Err(error) => return Err(error),
    };
    let mut frame = Frame::new("Sources", Section::Sources);
    frame.list("/v1/sources".to_owned());
    frame.cli = Some("tagtrail doctor".to_owned());
    let content = html! {
        h1 { "Sources" }
        (figures(&sources, shared.quarantine.count(), now))
        (table(&sources, now))
        (lost(&sources, now))
        (not_compared(&sources, now))
        (quarantine_list(quarantined.as_ref(), shared.quarantine.count()))
    };
    Ok(frame.page(&reader, &content))
}

fn figures(sources: &Sources, quarantined: Option<u64>, now: OffsetDateTime) -> Markup {
    let states = [
        (Standing::Sending, "sending"),
        (Standing::Idle, "idle"),
        (Standing::Silent, "silent"),
        (Standing::Quiet, "quiet"),
        (Standing::NoEvent, "without an event"),
    ];
    let counts = states.iter().filter_map(|(state, word)| {
        let count = sources.items.iter().filter(|one| one.state == *state);
        let count = count.count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    let last = sources
        .items
        .iter()
        .filter_map(|one| Some((one.last_event_at?.0, &one.name)))
        .max();
    let lost: u64 = sources.items.iter().map(|one| one.lost_of_week).sum();
    let reported: u64 = sources.items.iter().map(|one| one.reported_of_week).sum();
    let compared = sources
        .reconciled
        .iter()
        .map(|one| one.last_reconciled_at.0)
        .max();
    html! {
        dl class="stats" {
            (figure("Sources", &sources.items.len().to_string(), html! { (counts) }))
            @match last {
                Some((at, name)) => (figure("Last event", &span(now - at), html! { "ago, " (name) })),
                None => (figure("Last event", "none yet", html! {})),
            }
            (figure("Known from events", &known(reported + lost, lost), html! { "7 days" }))
            @if let Some(count) = quarantined {
                (figure("In quarantine", &number(count), html! { "kept for 30 days" }))
            }
            (figure("Registries reconciled", &sources.reconciled.len().to_string(), html! {
                @if let Some(at) = compared { "last " (time(at, Form::Short)) }
            }))
        }
    }
}

fn table(sources: &Sources, now: OffsetDateTime) -> Markup {
    html! {
        section class="card" aria-labelledby="all" {
            h2 id="all" {
                "Sources "
                span class="push q" { "pushes by half hour, " (of_day(sources.half_hours_since.0, now)) }
            }
            @if sources.items.is_empty() { p class="s" { "There is no " code { "[[source]]" } " in the files of this api, and no event was received in 90 days. " a href="/" { "Home" } " shows what to set up." } }
            @else {
                table class="st fix" {
                    thead { tr {
                        th scope="col" class="w15" { "Source" }
                        th scope="col" class="w11" { "Now" }
                        th scope="col" class="full" { "Over 24 hours" }
                        th scope="col" class="w8" { "Last event" }
                        th scope="col" class="w28" { "Findings" }
                    } }
                    tbody { @for source in &sources.items { (row(source, now)) } }
                }
            }
        }
    }
}

fn row(source: &Source, now: OffsetDateTime) -> Markup {
    let (tone, icon, word) = match source.state {
        Standing::Sending => (Tone::Good, "ok", "good"),
        Standing::Silent => (Tone::Warning, "warn", "warning"),
        Standing::Idle | Standing::Quiet => (Tone::Plain, "quiet", "note"),
        Standing::NoEvent => (Tone::Warning, "warn", "warning"),
    };
    let sum: u64 = source.half_hours.iter().sum();
    let label = format!(
        "Pushes of {} by half hour over 24 hours, {} in all",
        source.name,
        number(sum)
    );
    let slots: Vec<Column> = source.half_hours.iter().copied().map(Column::of).collect();
    // A silence of which the chart shows a part is drawn as a bar from the last event on.
    let silent = source.silent_since.map(|at| {
        let before = (now - at.0).whole_minutes() / 30;
        slots
            .len()
            .saturating_sub(usize::try_from(before).unwrap_or(usize::MAX))
    });
    html! {
        tr id=(source.name) {
            th scope="row" {
                (visible(&source.name)) br;
                span class="q s" {
                    @if let Some(kind) = &source.kind { (visible(kind)) @if !source.registries.is_empty() { ", " } }
                    (visible(&source.registries.join(", ")))
                }
            }
            td class=(tone.class()) {
                (icon_for(icon, word)) " "
                @match source.state {
                    Standing::Sending => { "sending" @if let Some(at) = source.last_event_at { ", last " (ago(at.0, now)) } },
                    Standing::Idle => { "idle" @if let Some(at) = source.last_event_at { " for " (span(now - at.0)) } },
                    Standing::Silent => { "silent for " @if let Some(at) = source.silent_since { (span(now - at.0)) } },
                    Standing::Quiet => "quiet",
                    Standing::NoEvent => "no event yet",
                }
            }
            td class="full" {
                @if sum == 0 { span class="none" { "none in 24 hours" } }
                @else { (columns(&Columns { columns: &slots, height: Height::Row, ticks: &[], silent_from: silent, label: &label })) }
            }
            td data-l="last event" {
                @match source.last_event_at {
                    Some(at) => (since(at.0, now)),
                    None => span class="none" { "none in 90 days" },
                }
            }
            td class="s full" {
                (counted(source.reported_of_week, "change", "changes")) " reported in 7 days"
                @if source.lost_of_week > 0 { ", " a href="#lost" { (number(source.lost_of_week)) " lost" } }
                @if let Some(gap) = source.usual_gap_seconds { "; usually an event every " (span(Duration::seconds_f64(gap))) }
                @if !source.findings.is_empty() { ul { @for one in &source.findings { (finding(one)) } } }
            }
        }
    }
}

fn finding(finding: &Finding) -> Markup {
    let (tone, icon, word) = match finding.level {
        Level::Note => (Tone::Plain, "quiet", "note"),
        Level::Warning => (Tone::Warning, "warn", "warning"),
    };
    html! {
        li {
            span class=(tone.class()) { (icon_for(icon, word)) } " "
            (foreign(&finding.found))
            @if let Some(cure) = &finding.cure { " " b { "Cure:" } " " (with_code(cure)) }
        }
    }
}

/// Draws the changes without an event: their webhooks were lost.
fn lost(sources: &Sources, now: OffsetDateTime) -> Markup {
    html! {
        @if !sources.lost.is_empty() {
            section class="card" id="lost" {
                h2 {
                    "Lost webhooks " span class="q" { "the last changes that no event reported, of 7 days" }
                    " " a class="push s" href="/v1/sources?format=csv&list=lost" { "CSV" }
                }
                table class="st" {
                    thead { tr {
                        th scope="col" { "Image" }
                        th scope="col" { "Digest" }
                        th scope="col" { "Found" }
                        th scope="col" { "By" }
                    } }
                    tbody {
                        @for one in &sources.lost {
                            tr {
                                th scope="row" { (image::link(&one.image)) " " span class="q n" { "revision " (number(one.revision)) } }
                                td data-l="digest" { (digest::link_or(one.digest.as_ref(), "deleted")) }
                                td data-l="found" { (since(one.found_at.0, now)) }
                                td data-l="by" { (finder(&one.origin)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn not_compared(sources: &Sources, now: OffsetDateTime) -> Markup {
    let all = &sources.not_compared;
    html! {
        @if !all.is_empty() {
            section class="card" aria-labelledby="not" {
                h2 id="not" {
                    "Not reconciled " span class="q" { "repositories whose last comparison failed" }
                    " " a class="push s" href="/v1/sources?format=csv&list=not_compared" { "CSV" }
                }
                table class="st" {
                    thead { tr {
                        th scope="col" { "Repository" }
                        th scope="col" { "Why" }
                        th scope="col" { "Failed" }
                        th scope="col" { "Last compared" }
                    } }
                    tbody {
                        @for one in all.iter().take(NOT_COMPARED) {
                            tr {
                                th scope="row" class="n" { (one.registry) "/" (one.repository) }
                                td class="full s" { (foreign(&one.reason)) }
                                td data-l="failed" { (ago(one.failed_at.0, now)) }
                                td data-l="compared" {
                                    @match one.last_reconciled_at { Some(at) => (time(at.0, Form::Short)), None => span class="none" { "never" } }
                                }
                            }
                        }
                    }
                }
                @if all.len() > NOT_COMPARED { p class="more" { a href="/v1/sources" { "All " (all.len()) } } }
            }
        }
    }
}

/// Draws the bodies that could not be interpreted: `None` for a reader who may not read them.
fn quarantine_list(
    entries: Option<&Result<Items<EntryItem>, Error>>,
    count: Option<u64>,
) -> Markup {
    html! {
        section class="card" id="quarantine" {
            h2 {
                "Quarantine " span class="q" { "authenticated bodies that could not be interpreted" }
                @if entries.is_some() {
                    span class="push s" { a href="/v1/quarantine" { "JSON" } " " a href="/v1/quarantine?format=csv" { "CSV" } }
                }
            }
            @match entries {
                None => p class="s" {
                    @if let Some(count) = count { (counted(count, "body", "bodies")) ". " }
                    "Bodies may hold secrets: reading them needs a token with the role " code { "operate" } " for all triggers."
                },
                Some(Err(error)) => p class="note warn" { (visible(&error.to_string())) },
                Some(Ok(entries)) if entries.items.is_empty() => p class="s" { "Nothing: every body of an authenticated sender was interpreted." },
                Some(Ok(entries)) => {
                    table class="st" {
                        thead { tr {
                            th scope="col" { "Number" }
                            th scope="col" { "Source" }
                            th scope="col" { "Why" }
                            th scope="col" class="r" { "Length" }
                            th scope="col" class="r" { "When" }
                        } }
                        tbody {
                            @for entry in &entries.items {
                                tr {
                                    th scope="row" { a class="btn" href={ "/quarantine/" (entry.number) } { "Show " (entry.number) } }
                                    td { (visible(&entry.source)) }
                                    td class="full s" { (foreign(&entry.reason)) }
                                    td class="r n" data-l="length" { (size(entry.length)) }
                                    td class="r nw" { (time(entry.received_at.0, Form::Short)) }
                                }
                            }
                        }
                    }
                    @if let Some(next) = &entries.next { p class="more" { a href={ "/sources?cursor=" (next) "#quarantine" } { "Older bodies" } } }
                },
            }
        }
    }
}
