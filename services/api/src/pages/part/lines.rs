//! A chart of two lines over time, with a point for each value: one solid, one dashed above it.

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::pages::part::bars::Tick;
use crate::pages::part::lane::percent;

/// Top and bottom of the lines, in percent of the height. The number stands above the top, so that
/// no line is behind it.
const TOP: f64 = 10.6;
const BOTTOM: f64 = 88.6;

/// The values of both lines at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Place in percent of the width.
    pub(crate) place: f64,
    pub(crate) solid: f64,
    pub(crate) dashed: f64,
}

/// The value of a point on one of the lines.
type Value = fn(&Point) -> f64;

/// Returns the place of a time between two others, in percent; the middle if these are the same.
pub(crate) fn place(at: OffsetDateTime, first: OffsetDateTime, last: OffsetDateTime) -> f64 {
    let whole = (last - first).as_seconds_f64();
    match whole > 0.0 {
        true => ((at - first).as_seconds_f64() / whole * 100.0).clamp(0.0, 100.0),
        false => 50.0,
    }
}

/// Draws the lines. The greatest value is at the top, where `most` is written, and zero at the
/// bottom. `label` says in a sentence what the chart shows.
pub(crate) fn lines(points: &[Point], ticks: &[Tick], most: &str, label: &str) -> Markup {
    let all = points.iter().flat_map(|point| [point.solid, point.dashed]);
    let greatest = all.fold(f64::MIN_POSITIVE, f64::max);
    let height = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / greatest).clamp(0.0, 1.0);
    let line = |of: Value| -> String {
        let points = points.iter();
        let points = points.map(|point| format!("{:.1},{:.1}", point.place, height(of(point))));
        points.collect::<Vec<_>>().join(" ")
    };
    let dots: [(_, Value); 2] = [
        (Some("p9"), |point| point.dashed),
        (None, |point| point.solid),
    ];
    html! {
        svg class="ch" role="img" aria-label=(label) {
            @for y in [TOP, f64::midpoint(TOP, BOTTOM)] {
                line class="grid" x2="100%" y1=(percent(y)) y2=(percent(y)) {}
            }
            @for (class, of) in dots {
                svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%" { polyline class=[class] points=(line(of)) {} }
            }
            // A line of one value has no length: only its point is seen.
            @for (class, of) in dots {
                @for point in points {
                    circle class=[class] cx=(percent(point.place.clamp(0.4, 99.6))) cy=(percent(height(of(point)))) r="3" {}
                }
            }
            text x="100%" y="11" text-anchor="end" { (most) }
            @for tick in ticks {
                @let anchor = match tick.place { ..=4.0 => "start", 96.0.. => "end", _ => "middle" };
                text x=(percent(tick.place)) y="99%" text-anchor=(anchor) { (tick.text) }
            }
        }
    }
}

/// Returns a place in percent.
#[expect(
    clippy::cast_precision_loss,
    reason = "places of a picture: 53 bits are more than enough"
)]
pub(crate) fn share(number: usize, of: usize) -> f64 {
    number as f64 / of.max(1) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        tagtrail_proto::instant::parse(&format!("{text}T00:00:00Z")).unwrap()
    }

    fn point(place: f64, solid: f64, dashed: f64) -> Point {
        Point {
            place,
            solid,
            dashed,
        }
    }

    #[test]
    fn the_greatest_value_is_at_the_top_and_zero_at_the_bottom() {
        let points = [point(0.0, 0.0, 10.0), point(100.0, 5.0, 8.0)];
        let drawn = lines(&points, &[], "10 s", "x").into_string();
        assert!(
            drawn.contains(r#"class="p9" points="0.0,10.6 100.0,26.2""#),
            "{drawn}"
        );
        assert!(drawn.contains(r#"points="0.0,88.6 100.0,49.6""#), "{drawn}");
        // The points are on their lines.
        for dot in [
            r#"<circle class="p9" cx="0.4%" cy="10.6%""#,
            r#"<circle class="p9" cx="99.6%" cy="26.2%""#,
            r#"<circle cx="0.4%" cy="88.6%""#,
            r#"<circle cx="99.6%" cy="49.6%""#,
        ] {
            assert!(drawn.contains(dot), "{dot}: {drawn}");
        }
        assert!(
            lines(&[point(0.0, 0.0, 0.0)], &[], "", "x")
                .into_string()
                .contains("0.0,88.6")
        );
    }

    #[test]
    fn a_value_stands_at_its_time_and_a_single_one_in_the_middle() {
        let (first, last) = (at("2026-03-02"), at("2026-03-30"));
        // The weeks of the 9th and of the 16th had none.
        assert!((place(at("2026-03-23"), first, last) - 75.0).abs() < 0.001);
        assert!((place(first, first, first) - 50.0).abs() < 0.001);
        let drawn = lines(&[point(50.0, 15.0, 60.0)], &[], "1 min", "x").into_string();
        assert!(
            drawn.contains(r#"<circle class="p9" cx="50%" cy="10.6%""#),
            "{drawn}"
        );
        assert!(drawn.contains(r#"<circle cx="50%" cy="69.1%""#), "{drawn}");
    }
}
