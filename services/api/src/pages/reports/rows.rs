//! The table of any report, and the values of its cells.

use maud::{Markup, html};
use serde_json::{Map, Value};
use tagtrail_proto::{Digest, Image, instant};
use time::Duration;

use crate::operations::reports::Answer;
use crate::pages::part::digest;
use crate::pages::part::image;
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, span, time};

/// Most rows of a table on a page; JSON and CSV have all.
pub(super) const SHOWN: usize = 100;

/// Returns a number of a row.
pub(super) fn count(row: &Map<String, Value>, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Returns seconds of a row.
pub(super) fn seconds(row: &Map<String, Value>, name: &str) -> Option<f64> {
    row.get(name).and_then(Value::as_f64)
}

/// Returns a text of a row.
pub(super) fn text<'a>(row: &'a Map<String, Value>, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a digest of a row.
pub(super) fn digest_of(row: &Map<String, Value>, name: &str) -> Option<Digest> {
    text(row, name).parse().ok()
}

/// Returns seconds in the unit that fits.
pub(super) fn length(seconds: f64) -> String {
    span(Duration::seconds_f64(seconds.clamp(0.0, 1e10)))
}

/// Draws the rows of a report, with a name for each column.
pub(super) fn table(answer: &Answer) -> Markup {
    let is_number = |name: &str| {
        let values = answer.items.iter().map(|row| row.get(name));
        let values: Vec<&Value> = values.flatten().filter(|value| !value.is_null()).collect();
        !values.is_empty() && values.iter().all(|value| value.is_number())
    };
    let columns: Vec<(&str, bool)> = answer
        .columns
        .iter()
        .map(|column| (column.name, is_number(column.name)))
        .collect();
    html! {
        @if answer.items.is_empty() { p class="note" { "Nothing in this time." } }
        @else {
            div class="scroll" tabindex="0" role="region" aria-label="The report as a table" {
                table {
                    thead { tr { @for (name, right) in &columns { th scope="col" class=[right.then_some("r")] { (name.replace('_', " ")) } } } }
                    tbody {
                        @for row in &answer.items {
                            tr { @for (name, right) in &columns {
                                td class={ @if *right { "r " } "n" } { (cell(name, row.get(*name).unwrap_or(&Value::Null))) }
                            } }
                        }
                    }
                }
            }
            @if answer.more { p class="s" { "The first " (SHOWN) " rows; JSON and CSV have all." } }
        }
    }
}

fn cell(name: &str, value: &Value) -> Markup {
    html! {
        @match value {
            Value::Null => {},
            Value::Number(count) => @match (count.as_u64(), count.as_f64()) {
                (Some(count), _) if !name.ends_with("_seconds") => { (number(count)) },
                (_, Some(seconds)) if name.contains("seconds") => { (length(seconds)) },
                _ => { (count) },
            },
            Value::String(text) => @match (text.parse::<Digest>(), text.parse::<Image>(), instant::parse(text)) {
                (Ok(found), _, _) => { (digest::link(&found)) },
                (_, Ok(found), _) if name == "image" => { (image::link(&found)) },
                (_, _, Some(at)) => { (time(at, Form::Full)) },
                _ => { (visible(text)) },
            },
            other => { (visible(&other.to_string())) },
        }
    }
}
