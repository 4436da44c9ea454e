//! The reports of the first page: a chart or a table for each, with a sentence.

use maud::{Markup, html};
use tagtrail_history::reports::find;
use tagtrail_proto::{Image, instant};
use time::{Duration, OffsetDateTime};

use super::Asked;
use super::rows::{count, digest_of, length, seconds, table, text};
use crate::operations::reports::Answer;
use crate::pages::part::bars::{Column, Columns, Height, Tick, columns, share_bar, shares};
use crate::pages::part::digest::change;
use crate::pages::part::image;
use crate::pages::part::lines::{Point, lines, place, share};
use crate::pages::part::text::{counted, number, visible};
use crate::pages::part::when::{Form, day_of_month, time};

/// Most columns of the chart of deployments: longer times are drawn by several days.
const COLUMNS: i64 = 92;
/// Most rows of a table of the page.
const ROWS: usize = 12;

/// Draws all reports that have an answer.
pub(super) fn all(asked: &Asked, answers: &[Answer]) -> Markup {
    let of = |name: &str| answers.iter().find(|answer| answer.name == name);
    html! {
        div class="g11" {
            @if let Some(answer) = of("deployments") { (deployments(asked, answer)) }
            @if let Some(answer) = of("lead-time") { (lead_time(asked, answer)) }
            @if let Some(answer) = of("rollout-time") { (rollout_time(asked, answer)) }
        }
        @if let Some(answer) = of("releases-moved") { (releases(asked, answer)) }
        div class="g11" {
            @match of("coverage") {
                Some(answer) => { (coverage(asked, answer)) },
                None => section class="card" {
                    h2 { "Coverage by registry" }
                    p class="note" { "A change counts as reported once its event arrives, however late: so coverage has no figures that are final." }
                },
            }
            @if let Some(answer) = of("churn") { (churn(asked, answer)) }
        }
        section class="card" {
            h2 { a href=(asked.address("/reports/running")) { "What ran when" } " " (forms(asked, "running")) }
            p class="s" { (find("running").map_or("", |report| report.about)) }
        }
    }
}

/// Draws the links to the other forms of a report.
pub(super) fn forms(asked: &Asked, name: &str) -> Markup {
    html! {
        span class="push bar" {
            a href=(asked.address(&format!("/reports/{name}.csv"))) { "CSV" }
            a href=(asked.address(&format!("/v1/reports/{name}"))) { "JSON" }
        }
    }
}

/// Draws the statement that makes a report.
pub(super) fn sql(answer: &Answer) -> Markup {
    html! { details { summary { "SQL" } pre { code { (visible(&answer.sql)) } } } }
}

fn card(asked: &Asked, answer: &Answer, sentence: &Markup, content: &Markup) -> Markup {
    let title = find(answer.name).map_or(answer.name, |report| report.title);
    let whole = asked.address(&format!("/reports/{}", answer.name));
    html! {
        section class="card" aria-label=(title) {
            h2 { a href=(whole) { (title) } " " (forms(asked, answer.name)) }
            p class="s" { (sentence) }
            @if answer.items.is_empty() { p class="note" { "Nothing in this time." } } @else { (content) }
            (sql(answer))
        }
    }
}

fn as_table(answer: &Answer) -> Markup {
    html! { details { summary { "As a table" } (table(answer)) } }
}

fn day(text: &str) -> Option<OffsetDateTime> {
    instant::parse(&format!("{text}T00:00:00Z"))
}

fn deployments(asked: &Asked, answer: &Answer) -> Markup {
    let sum = |name| answer.items.iter().map(|row| count(row, name)).sum::<u64>();
    let [succeeded, failed, superseded] = ["succeeded", "failed", "superseded"].map(sum);
    let first = asked.question.from.truncate_to_day();
    let days = (asked.question.to - first).whole_days().max(1);
    // Each column is as many days as the width needs.
    let each = days / COLUMNS + 1;
    let place_of = |at: OffsetDateTime| usize::try_from((at - first).whole_days() / each).ok();
    let last = asked.question.to - Duration::NANOSECOND;
    let mut drawn = vec![Column::default(); place_of(last).unwrap_or(0) + 1];
    for row in &answer.items {
        let column = day(text(row, "day")).and_then(place_of);
        if let Some(column) = column.and_then(|place| drawn.get_mut(place)) {
            column.plain += count(row, "succeeded");
            column.grey += count(row, "superseded") + count(row, "cancelled");
            column.bad += count(row, "failed");
        }
    }
    let ticks = [0_u8, 1, 2, 3].map(|part| {
        let at = first + (last - first) * i32::from(part) / 3;
        Tick::plain(share(part.into(), 3), day_of_month(at))
    });
    let label =
        format!("Rollouts a day: {succeeded} succeeded, {superseded} superseded, {failed} failed");
    let sentence = html! {
        (counted(succeeded, "rollout", "rollouts")) " succeeded, " (number(failed)) " failed, "
        (number(superseded)) " " (if superseded == 1 { "was" } else { "were" }) " superseded, in " (counted(days.unsigned_abs(), "day", "days")) "."
        @if each > 1 { " A column is " (each) " days." }
    };
    let content = html! {
        (columns(&Columns { columns: &drawn, height: Height::Tall, ticks: &ticks, silent_from: None, label: &label }))
        p class="key" {
            span { i {} "succeeded" }
            span { i class="u" {} "superseded, cancelled" }
            span { i class="f" {} "failed" }
        }
        (as_table(answer))
    };
    card(asked, answer, &sentence, &content)
}

fn lead_time(asked: &Asked, answer: &Answer) -> Markup {
    let of = |row, name| seconds(row, name).unwrap_or(0.0).max(0.0);
    let week = |row| day(text(row, "week"));
    let rows = || answer.items.iter();
    let ends = rows().find_map(week).zip(rows().rev().find_map(week));
    // A week without deployments has no row: the places are those of the times.
    let points: Vec<Point> = ends.map_or_else(Vec::new, |(first, last)| {
        let point = |row| {
            Some(Point {
                place: place(week(row)?, first, last),
                solid: of(row, "p50_seconds"),
                dashed: of(row, "p90_seconds"),
            })
        };
        rows().filter_map(point).collect()
    });
    let most = points
        .iter()
        .map(|point| point.solid.max(point.dashed))
        .fold(0.0, f64::max);
    let ticks: Vec<Tick> = ends.map_or_else(Vec::new, |(first, last)| {
        let mut ends = vec![first, last];
        ends.dedup();
        let tick = |at| Tick::plain(place(at, first, last), day_of_month(at));
        ends.into_iter().map(tick).collect()
    });
    let last = points.last();
    let [half, nearly_all] = [
        last.map_or(0.0, |point| point.solid),
        last.map_or(0.0, |point| point.dashed),
    ]
    .map(length);
    let label = format!(
        "Lead time by week: in the last one half within {half}, nine of ten within {nearly_all}"
    );
    let sentence = html! {
        @match answer.items.last() {
            Some(row) => {
                "Half within " (half) ", nine of ten within " (nearly_all) ", in the week of " (text(row, "week"))
                ". Rollouts that did not succeed are left out."
            },
            None => "No image was deployed.",
        }
    };
    let content = html! {
        (lines(&points, &ticks, &length(most), &label))
        p class="key" { span { i {} "p50" } span { i class="u" {} "p90, dashed" } }
        (as_table(answer))
    };
    card(asked, answer, &sentence, &content)
}

fn rollout_time(asked: &Asked, answer: &Answer) -> Markup {
    let counts: Vec<u64> = answer
        .items
        .iter()
        .map(|row| count(row, "rollouts"))
        .collect();
    let drawn: Vec<Column> = counts.iter().copied().map(Column::of).collect();
    let all: u64 = counts.iter().sum();
    let within = |part: u64| {
        let mut left = (all * part).div_ceil(10);
        let found = answer.items.iter().zip(&counts).find(|(_, count)| {
            left = left.saturating_sub(**count);
            left == 0
        });
        let up_to = found.and_then(|(row, _)| seconds(row, "up_to_seconds"));
        up_to.map_or_else(|| "more than an hour".to_owned(), length)
    };
    let ticks: Vec<Tick> = answer
        .items
        .iter()
        .enumerate()
        .filter(|(place, _)| place % 3 == 1)
        .filter_map(|(place, row)| {
            let text = length(seconds(row, "up_to_seconds")?);
            Some(Tick::plain(share(2 * place + 1, 2 * counts.len()), text))
        })
        .collect();
    let label = format!(
        "Time from planned to done of {}",
        counted(all, "rollout", "rollouts")
    );
    let sentence = html! {
        "From planned to done, " (counted(all, "rollout", "rollouts"))
        @if all > 0 { ": half within " (within(5)) ", nine of ten within " (within(9)) }
        "."
    };
    let content = html! {
        (columns(&Columns { columns: &drawn, height: Height::Tall, ticks: &ticks, silent_from: None, label: &label }))
        (as_table(answer))
    };
    card(asked, answer, &sentence, &content)
}

fn image_link(name: &str) -> Markup {
    html! {
        @match name.parse::<Image>() {
            Ok(image) => { (image::short_link(&image)) },
            Err(_) => { (visible(name)) },
        }
    }
}

fn more(asked: &Asked, answer: &Answer) -> Markup {
    html! {
        @if answer.items.len() > ROWS {
            p class="more" { a href=(asked.address(&format!("/reports/{}", answer.name))) { @if answer.more { "More than " } @else { "All " } (number(answer.items.len() as u64)) } }
        }
    }
}

fn releases(asked: &Asked, answer: &Answer) -> Markup {
    let sentence = html! { "Tags that look like a version (" code { "v?1.2.3" } ") and got another digest in this time." };
    let content = html! {
        table class="st" {
            thead { tr { @for name in ["Image", "Was, then", "When", "By", "How"] { th scope="col" { (name) } } } }
            tbody {
                @for row in answer.items.iter().take(ROWS) {
                    tr {
                        th scope="row" class="full" { (image_link(text(row, "image"))) }
                        td { (change(digest_of(row, "previous_digest").as_ref(), digest_of(row, "digest").as_ref())) }
                        td { @if let Some(at) = instant::parse(text(row, "occurred_at")) { (time(at, Form::Short)) } }
                        td { (visible(text(row, "actor"))) }
                        td class="s" {
                            @match text(row, "kind") { "recreated" => "deleted, then pushed again, ", "reverted" => "moved back, ", _ => "" }
                            @if let Some(after) = seconds(row, "seconds_after") { (length(after)) " after" }
                        }
                    }
                }
            }
        }
        (more(asked, answer))
    };
    card(asked, answer, &sentence, &content)
}

fn coverage(asked: &Asked, answer: &Answer) -> Markup {
    let sentence = html! { (answer.about) };
    let content = html! {
        table class="st" {
            thead { tr {
                th scope="col" { "Registry, source" }
                td {}
                @for name in ["Event", "Resolved", "Lost", "Covered"] { th scope="col" class="r" { (name) } }
            } }
            tbody {
                @for row in answer.items.iter().take(ROWS) {
                    @let whole = Column { plain: count(row, "event"), grey: count(row, "resolved"), bad: count(row, "observed") + count(row, "reconciled") };
                    tr {
                        th scope="row" { (visible(text(row, "registry"))) br; span class="q s" { (visible(text(row, "source"))) } }
                        td class="full" { (shares(whole)) }
                        td class="r n" data-l="event" { (number(whole.plain)) }
                        td class="r n" data-l="resolved" { (number(whole.grey)) }
                        td class="r n" data-l="lost" { (number(whole.bad)) }
                        td class="r n" data-l="covered" { @if let Some(covered) = seconds(row, "covered") { (share_in_words(covered)) } }
                    }
                }
            }
        }
        p class="key" {
            span { i {} "event" }
            span { i class="u" {} "event without a digest, resolved" }
            span { i class="f" {} "lost: found only by a pull or by reconciling" }
        }
        (more(asked, answer))
    };
    card(asked, answer, &sentence, &content)
}

/// Writes a share as percent. It is never rounded up to all.
fn share_in_words(share: f64) -> String {
    format!("{:.2} %", (share * 10_000.0).floor() / 100.0)
}

fn churn(asked: &Asked, answer: &Answer) -> Markup {
    let greatest = answer.items.first().map_or(0, |row| count(row, "changes"));
    let sentence = html! { "With the median time for which each digest is held." };
    let content = html! {
        table class="st" {
            thead { tr {
                th scope="col" { "Image" }
                td {}
                th scope="col" class="r" { "Changes" }
                th scope="col" class="r" { "Median held" }
            } }
            tbody {
                @for row in answer.items.iter().take(ROWS) {
                    tr {
                        th scope="row" { (image_link(text(row, "image"))) }
                        td class="full" { (share_bar(count(row, "changes"), greatest)) }
                        td class="r n" data-l="changes" { (number(count(row, "changes"))) }
                        td class="r n" data-l="held" { @if let Some(held) = seconds(row, "median_held_seconds") { (length(held)) } }
                    }
                }
            }
        }
        (more(asked, answer))
    };
    card(asked, answer, &sentence, &content)
}
