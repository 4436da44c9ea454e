//! Lanes: one row of time, in which each colour is a digest. Coordinates are percent, so a lane
//! fits any width without script.

use maud::{Markup, html};
use tagtrail_history::instant::Instant;
use tagtrail_proto::Digest;
use time::{Duration, OffsetDateTime};

use crate::pages::part::digest::{hue, short};
use crate::pages::part::when::{Form, span, written};

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

    /// Returns the part of the window since this time, at which a history begins, and the window
    /// itself if the history is longer: the history of a young store fills the row.
    pub(crate) fn since(self, begin: Option<OffsetDateTime>) -> Window {
        let least = self.until - Duration::HOUR;
        let from = begin.map_or(self.from, |begin| begin.min(least));
        Window {
            from: from.max(self.from),
            until: self.until,
        }
    }

    /// Returns the length of the window in words.
    pub(crate) fn length(self) -> String {
        span(self.until - self.from)
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
pub(crate) fn lane(window: Window, bars: &[Bar], label: &str) -> Markup {
    draw(window, bars, label, false)
}

/// Draws a row of 56 units, with versions.
pub(crate) fn tall_lane(window: Window, bars: &[Bar], label: &str) -> Markup {
    draw(window, bars, label, true)
}

fn draw(window: Window, bars: &[Bar], label: &str, tall: bool) -> Markup {
    let height = if tall { 56 } else { 26 };
    html! {
        svg class={ "lane" @if tall { " tall" } } role="img" aria-label=(label) {
            @for bar in bars.iter().filter(|bar| bar.until > window.from && bar.from < window.until) {
                (rect(window, bar, height, tall))
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

/// Draws the days above lanes, and the clock above those of less than two days.
pub(crate) fn axis(window: Window) -> Markup {
    let length = window.until - window.from;
    let (apart, form) = match length.whole_days() {
        ..=0 => (length / 4, Form::Hour),
        1 => (length / 2, Form::Short),
        2..10 => (Duration::days(2), Form::DayOfMonth),
        10..20 => (Duration::days(4), Form::DayOfMonth),
        20..45 => (Duration::days(7), Form::DayOfMonth),
        45..120 => (Duration::days(21), Form::DayOfMonth),
        days => (Duration::days(days / 4), Form::DayOfMonth),
    };
    let ends = std::iter::successors(Some(window.from), |at| at.checked_add(apart));
    let ticks = ends.take(5).take_while(|at| *at <= window.until);
    html! {
        svg class="axis" aria-hidden="true" {
            @for (number, at) in ticks.enumerate() {
                @let x = percent(window.place(at));
                @let anchor = match (number, window.place(at)) { (0, _) => "start", (_, 95.0..) => "end", _ => "middle" };
                line x1=(x) x2=(x) y1="14" y2="20" {}
                text x=(x) y="11" text-anchor=(anchor) data-f=(form.name()) data-t=(Instant(at)) { (written(at, form)) }
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
        let drawn = lane(window, &[long, last, outside], "x").into_string();
        assert!(drawn.contains("x=\"0%\" width=\"49.88%\""), "{drawn}");
        assert!(drawn.contains("x=\"99.75%\" width=\"0.25%\""), "{drawn}");
        assert_eq!(drawn.matches("<rect").count(), 2);
    }

    #[test]
    fn a_young_history_fills_the_row_and_an_axis_of_hours_has_clock_times() {
        let until = tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap();
        let window = Window::days(30, until);
        let days = |days: i64| window.since(Some(until - Duration::days(days))).length();
        assert_eq!(
            (days(5), days(31)),
            ("5 days".to_owned(), "30 days".to_owned())
        );
        assert_eq!(window.since(None).from, window.from);
        let hour = window.since(Some(until - Duration::MINUTE));
        assert_eq!(hour.length(), "1 h");
        let drawn = axis(hour).into_string();
        for clock in ["13:31", "13:46", "14:01", "14:16", "14:31"] {
            assert!(drawn.contains(&format!(">{clock}</text>")), "{drawn}");
        }
        assert!(drawn.contains(r#"data-f="h" data-t="2026-11-23T13:31:08Z""#));
        assert_eq!(axis(window).into_string().matches("<text").count(), 5);
    }
}
