//! A chart of two lines over time: one solid with points, one dashed above it.

use maud::{Markup, html};

use crate::pages::part::bars::Tick;
use crate::pages::part::lane::percent;

/// Top and bottom of the lines, in percent of the height. The number stands above the top, so that
/// no line is behind it.
const TOP: f64 = 10.6;
const BOTTOM: f64 = 88.6;

/// Draws the lines. `points` has the values of both at each place; `most` is written above them.
/// `label` says in a sentence what the chart shows.
pub(crate) fn lines(points: &[(f64, f64)], ticks: &[Tick], most: &str, label: &str) -> Markup {
    let all = points.iter().flat_map(|(solid, dashed)| [*solid, *dashed]);
    let greatest = all.fold(f64::MIN_POSITIVE, f64::max);
    let place = |number: usize| share(number, points.len().saturating_sub(1));
    let height = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / greatest).clamp(0.0, 1.0);
    let line = |of: fn(&(f64, f64)) -> f64| -> String {
        let points = points.iter().enumerate();
        let points =
            points.map(|(number, point)| format!("{:.1},{:.1}", place(number), height(of(point))));
        points.collect::<Vec<_>>().join(" ")
    };
    html! {
        svg class="ch" role="img" aria-label=(label) {
            @for y in [TOP, f64::midpoint(TOP, BOTTOM)] {
                line class="grid" x2="100%" y1=(percent(y)) y2=(percent(y)) {}
            }
            @for (class, points) in [(Some("p9"), line(|point| point.1)), (None, line(|point| point.0))] {
                svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%" { polyline class=[class] points=(points) {} }
            }
            @for (number, point) in points.iter().enumerate() {
                circle cx=(percent(place(number).clamp(0.4, 99.6))) cy=(percent(height(point.0))) r="3" {}
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

    #[test]
    fn the_greatest_value_is_at_the_top_and_zero_at_the_bottom() {
        let drawn = lines(&[(0.0, 10.0), (5.0, 8.0)], &[], "10 s", "x").into_string();
        assert!(
            drawn.contains(r#"class="p9" points="0.0,10.6 100.0,26.2""#),
            "{drawn}"
        );
        assert!(drawn.contains(r#"points="0.0,88.6 100.0,49.6""#), "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 2);
        assert!(
            lines(&[(0.0, 0.0)], &[], "", "x")
                .into_string()
                .contains("0.0,88.6")
        );
    }
}
