//! Lanes of many tags, drawn from what the tags had at evenly spaced moments. The more the tags
//! change, the fewer moments are drawn, so that a page has its size whatever they do.

use std::fmt::Write as _;

use maud::{Markup, html};
use tagtrail_history::lanes::{MOMENTS, Sample};
use tagtrail_proto::Digest;
use time::OffsetDateTime;

use crate::pages::part::digest::{hue, short};
use crate::pages::part::lane::{Window, percent};

/// Most stretches of all lanes of a page.
const MOST: usize = 300;
/// Numbers of moments that are drawn as one, all of which divide [`MOMENTS`].
const COARSE: [u32; 8] = [1, 2, 3, 5, 6, 9, 10, 15];
/// Widths in percent: of the narrowest stretch, and of one that has room for its digits.
const NARROWEST: f64 = 0.25;
const LABELLED: f64 = 12.0;

/// A stretch of a lane.
#[derive(Debug)]
struct Stretch<'a> {
    from: OffsetDateTime,
    digest: Option<&'a Digest>,
}

/// Returns the most stretches of a lane, so that the lanes of a page fit. Lanes with fewer are
/// drawn at every moment.
pub(crate) fn room<'a>(lanes: impl Iterator<Item = &'a [Sample]>) -> usize {
    let mut counts: Vec<usize> = lanes.map(|lane| stretches(lane, 1).len()).collect();
    counts.sort_unstable();
    let mut left = MOST;
    for (place, count) in counts.iter().enumerate() {
        // Each of the others has as many at least.
        let share = left / (counts.len() - place);
        if *count > share {
            return share;
        }
        left -= count;
    }
    MOST
}

/// Returns how many moments of a lane are drawn as one.
fn coarseness(lane: &[Sample], room: usize) -> u32 {
    let fits = |coarse: &u32| stretches(lane, *coarse).len() <= room;
    COARSE.into_iter().find(fits).unwrap_or(MOMENTS / 3)
}

/// Returns the samples at each moment that is drawn.
fn thinned(lane: &[Sample], coarse: u32) -> Vec<&Sample> {
    let step = |sample: &Sample| sample.moment.div_ceil(coarse);
    let last_of_step = lane.iter().enumerate().filter(|(place, sample)| {
        let next = lane.get(place + 1);
        next.is_none_or(|next| step(next) != step(sample))
    });
    last_of_step.map(|(_, sample)| sample).collect()
}

fn stretches(lane: &[Sample], coarse: u32) -> Vec<Stretch<'_>> {
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    for sample in thinned(lane, coarse) {
        let digest = sample.digest.as_ref();
        if stretches.last().is_none_or(|last| last.digest != digest) {
            let from = sample.from.0;
            stretches.push(Stretch { from, digest });
        }
    }
    stretches
}

/// Draws the lane of a tag in at most `room` stretches. `label` says in a sentence what it shows.
pub(crate) fn sampled(window: Window, lane: &[Sample], room: usize, label: &str) -> Markup {
    let coarse = coarseness(lane, room);
    let stretches = stretches(lane, coarse);
    html! {
        svg class="lane" role="img" aria-label=(label) {
            @for (place, stretch) in stretches.iter().enumerate() {
                @let until = stretches.get(place + 1).map_or(window.until, |next| next.from);
                (draw(window, stretch, until))
            }
            (marks(lane, coarse))
        }
    }
}

fn draw(window: Window, stretch: &Stretch<'_>, until: OffsetDateTime) -> Markup {
    let (from, until) = (window.place(stretch.from), window.place(until));
    let width = (until - from - 0.12).max(NARROWEST);
    let (x, wide) = (percent(from.min(100.0 - width)), percent(width));
    html! {
        @match stretch.digest {
            None => rect class="gone" x=(x) y="1" width=(wide) height="17" {},
            Some(digest) => {
                rect class=(hue(digest)) x=(x) width=(wide) height="19" {}
                @if width > LABELLED { svg x=(x) width=(wide) height="19" { text x="6" y="14" { (short(digest)) } } }
            }
        }
    }
}

/// Draws a mark below each step with changes; darker is more. One path for each darkness.
fn marks(lane: &[Sample], coarse: u32) -> Markup {
    let mut paths = [String::new(), String::new(), String::new()];
    // A late revision counts where it was recorded: where the greatest number grows.
    let mut known = match lane.first() {
        Some(first) if first.moment == 0 => first.revision,
        _ => 0,
    };
    for sample in thinned(lane, coarse) {
        let changes = sample.revision.saturating_sub(known);
        known = known.max(sample.revision);
        let step = sample.moment.div_ceil(coarse) * coarse;
        let path = match changes {
            0 => continue,
            1 => &mut paths[0],
            2..6 => &mut paths[1],
            _ => &mut paths[2],
        };
        let _ = write!(path, "M{} 22h.9v4h-.9z", step.saturating_sub(coarse));
    }
    html! {
        @if paths.iter().any(|path| !path.is_empty()) {
            svg viewBox={ "0 0 " (MOMENTS) " 26" } preserveAspectRatio="none" width="100%" height="26" {
                @for (class, path) in ["t", "t2", "t3"].iter().zip(&paths) {
                    @if !path.is_empty() { path class=(class) d=(path) {} }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use tagtrail_history::instant::Instant;

    use super::*;

    fn now() -> OffsetDateTime {
        tagtrail_proto::instant::parse("2026-11-23T14:31:08Z").unwrap()
    }

    /// A sample of a window of 90 days at this moment, with content and revision.
    fn sample(moment: u32, revision: u64, content: u8) -> Sample {
        Sample {
            moment,
            revision,
            digest: (content > 0).then(|| Digest::sha256_of(&[content])),
            from: Instant(now() - Duration::days(90) + Duration::days(i64::from(moment))),
        }
    }

    #[test]
    fn equal_neighbours_are_one_stretch_and_a_deleted_tag_is_dashed() {
        let lane = [
            sample(0, 3, 1),
            sample(9, 5, 1),
            sample(45, 6, 0),
            sample(81, 7, 2),
        ];
        let window = Window::days(90, now());
        let drawn = sampled(window, &lane, MOST, "x").into_string();
        assert_eq!(drawn.matches("<rect").count(), 3, "{drawn}");
        assert!(drawn.contains(r#"class="gone" x="50%""#), "{drawn}");
        // Two changes by the ninth moment, one by each of the others.
        assert!(
            drawn.contains(r#"class="t2" d="M8 22h.9v4h-.9z""#),
            "{drawn}"
        );
        assert!(
            drawn.contains(r#"class="t" d="M44 22h.9v4h-.9zM80 22"#),
            "{drawn}"
        );
    }

    #[test]
    fn a_late_revision_counts_where_it_was_recorded() {
        // Revision 3 took effect before revision 2, and was recorded after it.
        let lane = [sample(0, 1, 1), sample(10, 3, 3), sample(20, 2, 2)];
        let drawn = marks(&lane, 1).into_string();
        assert!(
            drawn.contains(r#"class="t2" d="M9 22h.9v4h-.9z""#),
            "{drawn}"
        );
        assert_eq!(drawn.matches('M').count(), 1);
    }

    #[test]
    fn busy_lanes_are_drawn_at_fewer_moments() {
        let busy: Vec<Sample> = (0..=90_u8)
            .map(|moment| sample(moment.into(), u64::from(moment) * 20 + 1, moment + 1))
            .collect();
        let quiet = [sample(0, 1, 1)];
        let room = |lanes: &[&[Sample]]| room(lanes.iter().copied());
        assert_eq!(room(&[&quiet[..]; 25]), MOST);
        assert_eq!(room(&[&busy[..]; 25]), 12);
        assert!(stretches(&busy, coarseness(&busy, 12)).len() <= 12);
        // Three busy lanes beside quiet ones keep every moment.
        let [mut few, mut some] = [[&quiet[..]; 25], [&quiet[..]; 25]];
        few[..3].fill(&busy);
        assert_eq!(coarseness(&busy, room(&few)), 1);
        some[..6].fill(&busy);
        assert_eq!(coarseness(&busy, room(&some)), 2);
        let window = Window::days(90, now());
        assert!(sampled(window, &busy, 12, "x").into_string().len() < 2400);
    }
}
