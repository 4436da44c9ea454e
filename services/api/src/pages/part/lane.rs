//! Lanes: one row of time, in which each colour is a digest. Coordinates are percent, so a lane
//! fits any width without script.

use maud::{Markup, html};
use tagtrail_proto::Digest;
use time::{Duration, OffsetDateTime};

use crate::pages::part::digest::{hue, short};
use crate::pages::part::when::{Form, day_of_month, written};

/// The time that a lane covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
}

/// A stretch of a lane.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    /// `None`: the tag was deleted.
    pub(crate) digest: Option<Digest>,
    /// The number of the revision, if the stretch is one revision.
    pub(crate) revision: Option<u64>,
    /// The version that the image states.
    pub(crate) version: Option<String>,
}

/// A mark below a lane: changes within a step of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) at: OffsetDateTime,
    pub(crate) changes: u64,
}

/// Parts of the width below which a bar is widened, and above which it is labelled, in percent.
const NARROWEST: f64 = 0.25;
const LABELLED: f64 = 6.0;

impl Window {
    /// Returns the window of this many days that ends at `until`.
    pub(crate) fn days(days: i64, until: OffsetDateTime) -> Window {
        let from = until.checked_sub(Duration::days(days));
        Window {
            from: from.unwrap_or(until),
            until,
        }
    }

    /// Returns the place of a time in the window, in percent from 0 to 100.
    pub(crate) fn place(self, at: OffsetDateTime) -> f64 {
        let whole = (self.until - self.from).as_seconds_f64().max(1.0);
        ((at - self.from).as_seconds_f64() / whole * 100.0).clamp(0.0, 100.0)
    }
}

/// Writes a share of the width with two decimals at most.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Draws a row of 26 units. `label` says in a sentence what the row shows.
pub(crate) fn lane(window: Window, bars: &[Bar], steps: &[Step], label: &str) -> Markup {
    draw(window, bars, steps, label, false)
}

/// Draws a row of 56 units, with versions.
pub(crate) fn tall_lane(window: Window, bars: &[Bar], label: &str) -> Markup {
    draw(window, bars, &[], label, true)
}

fn draw(window: Window, bars: &[Bar], steps: &[Step], label: &str, tall: bool) -> Markup {
    let height = match (tall, steps.is_empty()) {
        (true, _) => 56,
        (false, true) => 26,
        (false, false) => 19,
    };
    html! {
        svg class={ "lane" @if tall { " tall" } } role="img" aria-label=(label) {
            @for bar in bars.iter().filter(|bar| bar.until > window.from && bar.from < window.until) {
                (rect(window, bar, height, tall))
            }
            @for step in steps {
                @let class = match step.changes { 0..2 => "t", 2..6 => "t2", _ => "t3" };
                rect class=(class) x=(percent(window.place(step.at))) y="22" width="0.9%" height="4" {
                    title { (step.changes) " changes" }
                }
            }
        }
    }
}

fn rect(window: Window, bar: &Bar, height: u32, tall: bool) -> Markup {
    let (from, until) = (window.place(bar.from), window.place(bar.until));
    // A gap between two bars, which also keeps the shortest one visible.
    let width = (until - from - 0.12).max(NARROWEST);
    let from = from.min(100.0 - width);
    let (x, wide) = (percent(from), percent(width));
    let Some(digest) = &bar.digest else {
        return html! {
            rect class="gone" x=(x) y="1" width=(wide) height=(height - 2) {
                title { "deleted: " (written(bar.from, Form::Full)) " to " (written(bar.until, Form::Full)) " UTC" }
            }
        };
    };
    let time = written(bar.from, Form::Full).replace(' ', "T");
    html! {
        rect class=(hue(digest)) x=(x) width=(wide) height=(height)
            data-r=[bar.revision] data-d=[bar.revision.map(|_| short(digest))] data-t=[bar.revision.map(|_| &time)] {
            title {
                (short(digest))
                @if let Some(revision) = bar.revision { ", revision " (revision) }
                ": " (written(bar.from, Form::Full)) " to " (written(bar.until, Form::Full)) " UTC"
            }
        }
        @if width > LABELLED {
            svg x=(x) width=(wide) height=(height) {
                @match (&bar.version, tall) {
                    (Some(version), true) => {
                        text class="vn n" x="7" y="24" { (version) }
                        text class="n" x="7" y="42" { (short(digest)) }
                    },
                    (None, true) => text class="n" x="7" y="33" { (short(digest)) },
                    _ => text x="6" y=(height / 2 + 4) { (short(digest)) },
                }
            }
        }
    }
}

/// Draws the days above lanes.
pub(crate) fn axis(window: Window) -> Markup {
    let days = (window.until - window.from).whole_days().max(1);
    let apart = match days {
        0..10 => 2,
        10..20 => 4,
        20..45 => 7,
        45..120 => 21,
        _ => days / 4,
    };
    let ticks = (0..=days / apart).map(|tick| window.from + Duration::days(tick * apart));
    html! {
        svg class="axis" aria-hidden="true" {
            @for (number, at) in ticks.enumerate() {
                @let x = percent(window.place(at));
                @let anchor = match (number, window.place(at)) { (0, _) => "start", (_, 95.0..) => "end", _ => "middle" };
                line x1=(x) x2=(x) y1="14" y2="20" {}
                text x=(x) y="11" text-anchor=(anchor) { (day_of_month(at)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_lies_within_the_window_and_is_always_seen() {
        let until = tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap();
        let window = Window::days(30, until);
        let digest = Digest::sha256_of(b"x");
        let bar = |from, until| Bar {
            from,
            until,
            digest: Some(digest.clone()),
            revision: Some(1),
            version: None,
        };
        let long = bar(until - Duration::days(90), until - Duration::days(15));
        let last = bar(until - Duration::SECOND, until);
        let outside = bar(until - Duration::days(90), until - Duration::days(60));
        let drawn = lane(window, &[long, last, outside], &[], "x").into_string();
        assert!(drawn.contains("x=\"0%\" width=\"49.88%\""), "{drawn}");
        assert!(drawn.contains("x=\"99.75%\" width=\"0.25%\""), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 2);
    }
}
