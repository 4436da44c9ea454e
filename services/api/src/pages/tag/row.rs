//! The row of time of a tag, with the form that asks about a moment.

use maud::{Markup, html};
use tagtrail_history::lane::Stretch;
use tagtrail_proto::Image;
use time::OffsetDateTime;

use crate::pages::part::image;
use crate::pages::part::lane::{Bar, Window, axis, tall_lane};
use crate::pages::part::text::visible;
use crate::pages::part::when::{Form, written};
use crate::pages::tag::asked::{Asked, Change, Span};

/// Most stretches of the row.
pub(crate) const MOST: i64 = 60;
/// Steps of the slider.
const STEPS: f64 = 2880.0;

/// Draws the row, the slider and the form.
pub(crate) fn draw(
    image: &Image,
    asked: &Asked,
    (shown, window): (Span, Window),
    stretches: &[Stretch],
    now: OffsetDateTime,
) -> Markup {
    let ends = stretches.iter().skip(1).map(|next| next.from);
    let ends = ends.chain([window.until]);
    let bars: Vec<Bar> = stretches
        .iter()
        .zip(ends)
        .map(|(one, until)| Bar {
            from: one.from,
            until,
            digest: one.digest.clone(),
            revision: Some(one.revision),
            version: one
                .version
                .as_deref()
                .map(|text| visible(&text.chars().take(16).collect::<String>())),
        })
        .collect();
    let label = format!(
        "Digests of {} from {} to {} UTC; the table below has its revisions",
        image.tag,
        written(window.from, Form::Short),
        written(window.until, Form::Short)
    );
    let moment = asked.at.unwrap_or(now);
    let place = (window.place(moment) / 100.0 * STEPS).round();
    let millis = |at: OffsetDateTime| at.unix_timestamp_nanos() / 1_000_000;
    html! {
        as-of {
            div class="hd" {
                h2 id="trail-h" { "The trail" }
                span class="push" { span class="seg" role="group" aria-label="Window" {
                    @for (span, _, text) in Span::ALL {
                        a href=(asked.address(image, Change::Span(span))) aria-current=[(span == shown).then_some("true")] { (text) }
                    }
                } }
            }
            div {
                (axis(window))
                (tall_lane(window, &bars, &label))
                input type="range" min="0" max=(STEPS) value=(place) hidden
                    data-from=(millis(window.from)) data-to=(millis(window.until)) aria-label="Moment within the window";
            }
            (form(image, asked, moment))
        }
    }
}

fn form(image: &Image, asked: &Asked, moment: OffsetDateTime) -> Markup {
    let window = Span::ALL
        .iter()
        .find(|(span, ..)| Some(*span) == asked.chosen);
    let known = asked.known_at.map(|at| written(at, Form::Full));
    html! {
        form class="bar" action=(image::address(image)) {
            label { "As of" input name="at" size="19" value=(written(moment, Form::Full)) required spellcheck="false" autocomplete="off" aria-describedby="utc"; }
            span class="q" id="utc" { "UTC; any common time format" }
            @if let Some((_, word, _)) = window {
                input type="hidden" name="window" value=(word);
            }
            button class="pri" { "Ask" }
            output class="s" {}
            details class="push" open[known.is_some()] {
                summary { "Known at" }
                label { "by" input name="known_at" size="19" value=[known] placeholder="2026-03-03 15:00:00" spellcheck="false" autocomplete="off"; }
            }
        }
    }
}
