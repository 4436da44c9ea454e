//! Rows of time: the digests that a trigger ran, each beside the heads of its tag.

use maud::{Markup, html};
use time::OffsetDateTime;

use crate::pages::part::digest::link_or;
use crate::pages::part::lane::{Bar, Window, axis, lane};
use crate::pages::part::sampled::{room, sampled};
use crate::pages::part::text::visible;
use crate::pages::trigger::View;
use crate::store::rollouts::Ran;

/// Most days that the rows cover.
const DAYS: i64 = 30;

/// Returns the time that the rows cover: 30 days, or the whole history of what they show. `tags`:
/// the time from which on the oldest of the tags has a revision.
pub(super) fn window(ran: &[Ran], tags: Option<OffsetDateTime>, now: OffsetDateTime) -> Window {
    let first = ran.last().map(|set| set.from);
    Window::days(DAYS, now).since(first.into_iter().chain(tags).min())
}

/// Draws two rows for each image: the digests that ran, and the heads of the tag that the trigger
/// names.
pub(super) fn draw(view: &View, now: OffsetDateTime) -> Markup {
    let window = view.window;
    let length = window.length();
    if view.ran.is_empty() && view.heads.is_empty() {
        return html! {};
    }
    let room = room(view.heads.values().map(Vec::as_slice));
    html! {
        section class="card" {
            h2 { "Ran, and the heads " span class="push q" { (length) } }
            table class="lanes st fix" {
                thead { tr {
                    th scope="col" class="w8" { "Image" }
                    th scope="col" class="full" { (axis(window)) span class="vh" { "Over time" } }
                    th scope="col" class="w6" { "Now" }
                } }
                tbody { @for image in &view.standing.images {
                    @let bars = bars(&view.ran, &image.name, now);
                    tr {
                        th scope="row" { (visible(&image.name)) ", ran" }
                        td class="full" { (lane(window, &bars, &format!("the digests of {} that ran over {length}", visible(&image.name)))) }
                        td { (link_or(image.runs.as_ref().map(|runs| &runs.digest), "nothing yet")) }
                    }
                    @if let Some(heads) = image.tag.and_then(|tag| view.heads.get(&tag)) {
                        tr {
                            th scope="row" { a href={ "/i/" (image.image) } { (visible(&image.name)) ", head" } }
                            td class="full" { (sampled(window, heads, room, &format!("the heads of {} over {length}", visible(&image.image)))) }
                            td { (link_or(image.head.as_ref().map(|(digest, _)| digest), "deleted")) }
                        }
                    }
                } }
            }
        }
    }
}

/// Returns the stretches in which an image had one digest, newest first.
fn bars(ran: &[Ran], name: &str, now: OffsetDateTime) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut until = now;
    for set in ran {
        let image = set.images.get(name);
        match (bars.last_mut(), image) {
            (Some(last), Some(image))
                if last.digest.as_ref() == Some(&image.digest) && last.from == until =>
            {
                last.from = set.from;
                last.revision =
                    Some(image.revision).filter(|number| last.revision == Some(*number));
            }
            (_, Some(image)) => bars.push(Bar {
                from: set.from,
                until,
                digest: Some(image.digest.clone()),
                revision: Some(image.revision).filter(|number| *number > 0),
                version: None,
            }),
            (_, None) => {}
        }
        until = set.from;
    }
    bars
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tagtrail_proto::Digest;
    use time::Duration;

    use super::*;

    #[test]
    fn equal_sets_that_follow_one_another_are_one_stretch() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(9);
        let digest = |content: u8| Digest::sha256_of(&[content]);
        let ran = |day: i64, content: u8| {
            let image = json!({
                "image": "registry.example.com/shop/web:latest", "revision": content, "digest": digest(content),
                "pinned": format!("registry.example.com/shop/web@{}", digest(content)),
            });
            Ran {
                from: OffsetDateTime::UNIX_EPOCH + Duration::days(day),
                images: BTreeMap::from([(
                    "web".to_owned(),
                    serde_json::from_value(image).unwrap(),
                )]),
            }
        };
        let sets = [ran(7, 1), ran(5, 2), ran(4, 2), ran(1, 1)];
        let bars = bars(&sets, "web", now);
        let days = bars.iter().map(|bar| (bar.until - bar.from).whole_days());
        assert_eq!(days.collect::<Vec<_>>(), [2, 3, 3]);
        assert_eq!(bars[1].digest, Some(digest(2)));
        assert!(super::bars(&sets, "worker", now).is_empty());
    }
}
