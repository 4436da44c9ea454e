//! Charts of numbers: columns over time, and shares of a whole. Coordinates are percent, as those
//! of lanes. A chart is an image with a sentence; the numbers are also in a table on the page.

use maud::{Markup, html};
use tagtrail_history::instant::Instant;
use time::{Duration, OffsetDateTime};

use crate::pages::part::lane::percent;
use crate::pages::part::text::number;
use crate::pages::part::when::{Form, time, written};

/// The height of a chart of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Height {
    /// In a row of a table: 2 rem, without text.
    Row,
    /// 4.5 rem.
    Low,
    /// 9 rem.
    Tall,
}

/// A column: parts on top of each other, from the bottom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Column {
    /// Drawn in the accent colour.
    pub(crate) plain: u64,
    /// Drawn in grey.
    pub(crate) grey: u64,
    /// Drawn in the colour of failures.
    pub(crate) bad: u64,
}

/// A text below the columns.
#[derive(Debug, Clone)]
pub(crate) struct Tick {
    /// Place in percent of the width.
    pub(crate) place: f64,
    pub(crate) text: String,
    /// The moment that the text names by the clock. `None` for a length or a day of UTC, of which
    /// the column is the sum.
    pub(crate) clock: Option<OffsetDateTime>,
}

impl Tick {
    /// Returns a text that is the same by each clock.
    pub(crate) fn plain(place: f64, text: String) -> Tick {
        Tick {
            place,
            text,
            clock: None,
        }
    }

    /// Returns the clock at a moment.
    pub(crate) fn clock(place: f64, at: OffsetDateTime) -> Tick {
        Tick {
            place,
            text: written(at, Form::Hour),
            clock: Some(at),
        }
    }
}

/// A chart of columns of equal width.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) height: Height,
    /// Texts below the columns; none in a row of a table.
    pub(crate) ticks: &'a [Tick],
    /// The columns from this one on are a silence: drawn as one low bar.
    pub(crate) silent_from: Option<usize>,
    /// States in a sentence what the chart shows.
    pub(crate) label: &'a str,
}

/// Draws columns in a row of a table.
pub(crate) fn in_row(shown: &[Column], label: &str) -> Markup {
    columns(&Columns {
        columns: shown,
        height: Height::Row,
        ticks: &[],
        silent_from: None,
        label,
    })
}

/// Returns the time that a chart of the last day covers: of a store with very many changes only
/// the last ones are counted.
pub(crate) fn of_day(from: OffsetDateTime, now: OffsetDateTime) -> Markup {
    html! {
        @match from <= now - Duration::DAY + Duration::MINUTE {
            true => "24 hours",
            false => { "since " (time(from, Form::Short)) },
        }
    }
}

/// Least height of a column that is not zero, in percent.
const LOWEST: f64 = 0.4;
/// The width of a column, as a share of the distance between two.
const WIDE: f64 = 0.83;

impl Column {
    /// Returns a column of one part.
    pub(crate) fn of(count: u64) -> Column {
        Column {
            plain: count,
            ..Column::default()
        }
    }

    fn sum(self) -> u64 {
        self.plain
            .saturating_add(self.grey)
            .saturating_add(self.bad)
    }

    fn parts(self) -> [(Option<&'static str>, u64); 3] {
        [
            (None, self.plain),
            (Some("u"), self.grey),
            (Some("f"), self.bad),
        ]
    }
}

impl Height {
    /// Returns the classes, and the places of the top of the highest column and of the bottom, in
    /// percent. The greatest number stands above the top, so that no column is behind it.
    fn shape(self) -> (&'static str, f64, f64) {
        match self {
            Height::Row => ("ch sm", 1.0, 99.6),
            Height::Low => ("ch pulse", 19.6, 79.6),
            Height::Tall => ("ch", 10.6, 88.6),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shares of a picture: 53 bits are more than enough"
)]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Draws columns.
pub(crate) fn columns(chart: &Columns<'_>) -> Markup {
    let (class, top, bottom) = chart.height.shape();
    let most = chart.columns.iter().map(|column| column.sum()).max();
    let most = most.unwrap_or(0);
    let apart = 100.0 * share(1, chart.columns.len() as u64);
    let shown = chart.silent_from.unwrap_or(usize::MAX);
    html! {
        svg class=(class) role="img" aria-label=(chart.label) {
            @if chart.height != Height::Row {
                @for y in [top, f64::midpoint(top, bottom)] {
                    line class="grid" x2="100%" y1=(percent(y)) y2=(percent(y)) {}
                }
            }
            @for (place, column) in chart.columns.iter().enumerate().take(shown) {
                @let x = apart * share(place as u64, 1);
                (stack(*column, x, apart * WIDE, (top, bottom), most))
            }
            @if let Some(from) = chart.silent_from {
                @let x = (apart * share(from as u64, 1)).min(100.0 - apart);
                rect class="w" x=(percent(x)) y="85%" width=(percent(100.0 - x)) height="15%" {}
            }
            @if chart.height != Height::Row {
                text x="100%" y="11" text-anchor="end" { (number(most)) }
            }
            @for tick in chart.ticks {
                @let anchor = match tick.place { ..=4.0 => "start", 96.0.. => "end", _ => "middle" };
                @let form = tick.clock.map(|_| Form::Hour.name());
                text x=(percent(tick.place)) y="99%" text-anchor=(anchor) data-f=[form] data-t=[tick.clock.map(Instant)] { (tick.text) }
            }
        }
    }
}

fn stack(column: Column, x: f64, width: f64, (highest, bottom): (f64, f64), most: u64) -> Markup {
    let mut top = bottom;
    let mut parts = Vec::new();
    for (class, count) in column.parts() {
        if count > 0 {
            let height = ((bottom - highest) * share(count, most)).max(LOWEST);
            let height = height.min(top - highest);
            top -= height;
            parts.push((class, top, height));
        }
    }
    html! {
        @for (class, top, height) in parts {
            rect class=[class] x=(percent(x)) y=(percent(top)) width=(percent(width)) height=(percent(height)) {}
        }
    }
}

/// Draws the parts of one number as a bar of the whole width: in the accent colour, in grey, and in
/// the colour of failures. The numbers stand beside it.
pub(crate) fn shares(whole: Column) -> Markup {
    let sum = whole.sum();
    let mut end = 0.0;
    let mut parts = Vec::new();
    for (class, count) in whole.parts() {
        if count > 0 {
            // A part of one in a million is seen.
            let width = (100.0 * share(count, sum)).max(LOWEST);
            let from = f64::min(end, 100.0 - width);
            end = from + width;
            parts.push((class, from, width));
        }
    }
    html! {
        svg class="ch sm" aria-hidden="true" {
            @for (class, from, width) in parts {
                rect class=[class] x=(percent(from)) y="11" width=(percent(width)) height="18" {}
            }
        }
    }
}

/// Draws a number beside the greatest of its list: a bar of that share of the width.
pub(crate) fn share_bar(part: u64, greatest: u64) -> Markup {
    html! {
        svg class="ch sm" aria-hidden="true" {
            rect y="13" height="14" width=(percent(100.0 * share(part, greatest))) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(columns_drawn: &[Column], height: Height, silent_from: Option<usize>) -> String {
        columns(&Columns {
            columns: columns_drawn,
            height,
            ticks: &[],
            silent_from,
            label: "x",
        })
        .into_string()
    }

    #[test]
    fn the_highest_column_fills_the_height_and_zero_is_empty() {
        let drawn = chart(
            &[Column::of(96), Column::of(0), Column::of(48), Column::of(1)],
            Height::Low,
            None,
        );
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert!(drawn.contains(r#"x="0%" y="19.6%" width="20.75%" height="60%""#));
        assert!(drawn.contains(r#"x="50%" y="49.6%""#), "{drawn}");
        assert!(drawn.contains(">96</text>"), "{drawn}");
    }

    #[test]
    fn parts_stand_on_each_other_and_small_ones_are_seen() {
        let column = Column {
            plain: 100_000,
            grey: 0,
            bad: 1,
        };
        let drawn = chart(&[column], Height::Row, None);
        assert!(drawn.contains(r#"class="f""#) && drawn.matches("<rect").count() == 2);
        let bar = shares(column).into_string();
        assert!(bar.contains(r#"class="f" x="99.6%""#), "{bar}");
    }

    #[test]
    fn a_silence_is_one_bar_to_the_end_and_no_columns_are_no_chart_of_zeros() {
        let drawn = chart(&[Column::of(5); 4], Height::Row, Some(3));
        assert!(drawn.contains(r#"class="w" x="75%" y="85%" width="25%""#));
        assert_eq!(drawn.matches("<rect").count(), 4);
        assert_eq!(chart(&[], Height::Row, None).matches("<rect").count(), 0);
    }
}
