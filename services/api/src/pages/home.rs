//! `/`: what moves, what needs a person, and whether the system works.

mod feed;
mod first;
mod needs;

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::activity::{self, Busy};
use tagtrail_history::recorded::{Between, Newest, newest};
use tagtrail_history::slots::first_minute_at;
use tagtrail_proto::Condition;
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::parameters::Parameters;
use crate::operations::status::{Seen, Status, see};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section};
use crate::pages::part::bars::{Column, Columns, Height, Tick, columns, in_row};
use crate::pages::part::icon::icon_for;
use crate::pages::part::image::repository_address;
use crate::pages::part::kind::{Tone, state};
use crate::pages::part::rollout;
use crate::pages::part::text::{counted, number, visible};
use crate::pages::part::when::{Form, ago, time, written, zone};
use crate::pages::reader::Reader;
use crate::shared::Shared;
use crate::store;
use crate::store::rollouts::{Filter, RolloutWithAttempt};
use crate::store::services::Process;

pub(crate) const PAGE: Page = Page {
    id: "page_home",
    paths: &["/"],
    open: false,
    stored: true,
    serve: || get(show),
};

/// Rows of the live feed: the script keeps as many.
const LATEST: usize = 12;
/// Rows of the lists beside it.
const ROLLOUTS: i64 = 6;
/// Rows of the list of repositories.
const BUSIEST: i64 = 6;

/// The rows of the page, of one snapshot.
struct Rows {
    seen: Seen,
    latest: Newest,
    busy: Busy,
    rollouts: Vec<RolloutWithAttempt>,
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Html<String>, Error> {
    Parameters::read(&uri, &[])?;
    let now = reader.now;
    let rows = shared
        .database
        .ask_page(async |db| {
            let seen = see(db, now).await?;
            let keeps = |image: &tagtrail_proto::Image| !image.tag.is_signature();
            let latest = newest(db, Between::default(), None, keeps, LATEST).await?;
            let busy = activity::busy(db, now, BUSIEST).await?;
            let rollouts = store::rollouts::all(db, &Filter::default(), None, ROLLOUTS).await?;
            Ok(Rows {
                seen,
                latest,
                busy,
                rollouts: rollouts.into_iter().map(|(_, rollout)| rollout).collect(),
            })
        })
        .await?;
    let mut frame = Frame::new("Home", Section::Home);
    frame.json = Some("/v1/status".to_owned());
    frame.cli = Some("tagtrail watch".to_owned());
    frame.live = Some("/v1/revisions");
    let content = match rows.seen.status.totals.revisions {
        0 => first::draw(&shared.file.get(), shared.gateway),
        _ => draw(&rows, shared.quarantine.count(), now),
    };
    Ok(frame.page(&reader, &content))
}

fn draw(rows: &Rows, quarantined: Option<u64>, now: OffsetDateTime) -> Markup {
    html! {
        h1 class="vh" { "Home" }
        (figures(&rows.seen.status, now))
        (last_hour(&rows.busy, now))
        div class="g2" {
            div class="col" {
                (feed::draw(&rows.latest.items, now))
                (busiest(&rows.busy))
            }
            div class="col" {
                (needs::draw(&rows.seen, quarantined, now))
                (rollouts(&rows.rollouts, now))
                (services(&rows.seen.status, now))
            }
        }
    }
}

fn figures(status: &Status, now: OffsetDateTime) -> Markup {
    let (totals, changes, rollouts) = (&status.totals, &status.changes, &status.rollouts);
    let triggers: u64 = status.triggers.values().sum();
    let settled = status.in_condition(Condition::Settled);
    let others = triggers - settled - status.in_condition(Condition::RollingOut);
    html! {
        dl class="stats" {
            (figure("Images followed", &number(totals.images), html! {
                (counted(totals.repositories, "repository", "repositories")) ", " (counted(totals.registries, "registry", "registries"))
            }))
            (figure("Changes today", &number(changes.today), html! {
                @match changes.usual_today {
                    Some(usual) => { (number(usual)) " is usual at this hour" },
                    None => { "since " (time(now.truncate_to_day(), Form::Hour)) " " (zone()) },
                }
            }))
            @match &totals.delay {
                Some(delay) => (figure("Push to revision", &millis(delay.median_ms), html! {
                    "p99 " (millis(delay.p99_ms)) ", of the last " (counted(delay.pushes, "push", "pushes"))
                })),
                None => (figure("Push to revision", "none yet", html! {})),
            }
            (figure("Known from events", &known(changes.of_week, changes.lost_of_week), html! {
                @let text = format!("{} of {}", number(changes.lost_of_week), number(changes.of_week));
                @match changes.lost_of_week {
                    0 => (text),
                    _ => a href="/sources#lost" { (text) },
                }
                " found only by reconciling, in 7 days"
            }))
            (figure("Rollouts today", &number(rollouts.today), html! {
                @if rollouts.failed_today > 0 { (state(Tone::Bad, "fail", &format!("{} failed", number(rollouts.failed_today)))) ", " }
                (number(rollouts.live)) " not ended"
            }))
            (figure("Triggers settled", &format!("{} of {}", number(settled), number(triggers)), html! {
                @if others > 0 { (state(Tone::Warning, "warn", &format!("{} to look at", number(others)))) ": " (conditions(status)) }
            }))
        }
    }
}

/// Draws a figure of the row of figures.
pub(super) fn figure(name: &str, value: &str, below: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) small { (below) } } } }
}

fn conditions(status: &Status) -> String {
    let fine = [Condition::Settled, Condition::RollingOut];
    let others = status.triggers.iter().filter(|(name, _)| {
        !fine
            .iter()
            .any(|condition| condition.as_str() == name.as_str())
    });
    let words = others.map(|(name, count)| format!("{} {name}", number(*count)));
    words.collect::<Vec<_>>().join(", ")
}

fn millis(millis: f64) -> String {
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

/// Returns the share of changes that are known from events. A single lost one is never rounded
/// away.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share of fewer than 2^53 changes"
)]
pub(super) fn known(of: u64, lost: u64) -> String {
    if of == 0 {
        return "none yet".to_owned();
    }
    let share = (of - lost.min(of)) as f64 / of as f64 * 100.0;
    match lost {
        0 => "100 %".to_owned(),
        _ => format!("{:.2} %", share.min(99.99)),
    }
}

fn last_hour(busy: &Busy, now: OffsetDateTime) -> Markup {
    let minutes = &busy.minutes;
    let from = first_minute_at(now);
    let clock = |minutes: i64| written(from + Duration::minutes(minutes), Form::Hour);
    let sum: u64 = minutes.iter().sum();
    let most = minutes
        .iter()
        .enumerate()
        .max_by_key(|(_, changes)| **changes);
    let label = match most {
        Some((minute, changes)) if *changes > 0 => format!(
            "Changes of tags in each minute of the last hour: {} in all, most at {} UTC with {}",
            number(sum),
            clock(i64::try_from(minute).unwrap_or_default()),
            number(*changes)
        ),
        _ => "Changes of tags in each minute of the last hour: none".to_owned(),
    };
    let ticks = [(0.0, 0), (25.0, 15), (50.0, 30), (75.0, 45), (100.0, 60)];
    let ticks = ticks.map(|(place, minutes)| Tick::clock(place, from + Duration::minutes(minutes)));
    html! {
        section class="card" aria-labelledby="p" {
            h2 id="p" { "The last hour " span class="push q" { "changes a minute, " (zone()) } }
            (columns(&Columns { columns: &busy.minutes.map(Column::of), height: Height::Low, ticks: &ticks, silent_from: None, label: &label }))
        }
    }
}

fn busiest(busy: &Busy) -> Markup {
    html! {
        section class="card" aria-labelledby="busy" {
            h2 id="busy" {
                "Busiest repositories "
                span class="push q" { "24 hours, by half hour" }
            }
            @if busy.repositories.is_empty() { p class="s" { "No tag changed in the last 24 hours." } }
            @else {
                table class="st" {
                    thead { tr {
                        th scope="col" { "Repository" }
                        th scope="col" { "Changes over the day" }
                        th scope="col" class="r" { "Changes" }
                        th scope="col" class="r" { "Tags" }
                        th scope="col" { "Last by" }
                    } }
                    tbody {
                        @for one in &busy.repositories {
                            @let label = format!("{} of {} over 24 hours, by half hour", counted(one.changes, "change", "changes"), one.repository);
                            tr {
                                th scope="row" { a class="im" href=(repository_address(&one.registry, &one.repository)) title=(one.registry) { (one.repository) } }
                                td class="full" { (in_row(&one.half_hours.map(Column::of), &label)) }
                                td class="r n" data-l="changes" { (number(one.changes)) }
                                td class="r n" data-l="tags" { (number(one.tags)) }
                                td class="s" { @match &one.actor { Some(actor) => { (visible(actor)) }, None => span class="none" { "not named" } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rollouts(rollouts: &[RolloutWithAttempt], now: OffsetDateTime) -> Markup {
    html! {
        section class="card" aria-labelledby="ro" {
            h2 id="ro" { "Rollouts " span class="push q" { "planned" } }
            @if rollouts.is_empty() { p class="s" { "No rollout yet." } }
            ul class="feed need" {
                @for RolloutWithAttempt { rollout, .. } in rollouts {
                    li {
                        span class="ev" {
                            (rollout::state_icon(rollout.state))
                            a href=(rollout::address(&rollout.trigger, rollout.number)) { (rollout.trigger) " #" (rollout.number) }
                            span class="s" { (rollout::summary(rollout)) }
                        }
                        (ago(rollout.created_at, now))
                    }
                }
            }
            p class="more" { a href="/rollouts" { "All rollouts" } }
        }
    }
}

fn services(status: &Status, now: OffsetDateTime) -> Markup {
    let unpublished: u64 = status.partitions.iter().map(|one| one.unpublished).sum();
    html! {
        section class="card" aria-labelledby="svc" {
            h2 id="svc" { "Services" }
            dl class="kv" {
                dt { (ready(status.last_event_at.is_some())) " Gateway" }
                dd class="s" {
                    @match status.last_event_at { Some(last) => { "last event " (ago(last.0, now)) }, None => "no event counted in 90 days" }
                }
                @for (service, name) in [("indexer", "Indexer"), ("resolver", "Resolver"), ("trigger", "Trigger"), ("api", "API")] {
                    @let all: Vec<&Process> = status.services.iter().filter(|one| one.service == service).collect();
                    @let fit = all.iter().filter(|one| one.present && one.ready).count();
                    dt { (ready(fit > 0 && fit == all.len())) " " (name) }
                    dd class="s" {
                        @match all.first() {
                            None => "no process seen in a day",
                            Some(last) if !last.present => { "no process; the last one was seen " (ago(last.seen_at.0, now)) },
                            Some(_) => { (fit) " of " (all.len()) " ready" },
                        }
                        @if service == "indexer" && unpublished > 0 { "; " (counted(unpublished, "revision", "revisions")) " to publish" }
                        @for process in all.iter().filter(|one| one.present) {
                            @if let Some(why) = &process.why { br; (visible(&process.machine)) ": " (visible(why)) }
                        }
                    }
                }
            }
        }
    }
}

fn ready(ready: bool) -> Markup {
    let (tone, icon, word) = match ready {
        true => (Tone::Good, "ok", "good"),
        false => (Tone::Warning, "warn", "warning"),
    };
    html! { span class=(tone.class()) { (icon_for(icon, word)) } }
}
