//! The tables of tags.

use maud::{Markup, html};
use tagtrail_history::lanes::Sample;
use tagtrail_history::tags::{KnownTag, Sharing};
use tagtrail_proto::Tag;
use time::OffsetDateTime;

use crate::pages::part::commit::built_from;
use crate::pages::part::digest::{link, link_or, short};
use crate::pages::part::image;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::lane::{Window, axis};
use crate::pages::part::sampled::{room, sampled};
use crate::pages::part::text::{counted, number, visible};
use crate::pages::part::when::{Form, ago, since, time, zone};

/// Other tags of the same digest that are named, and the most letters of their names together.
const NAMED: usize = 2;
const LETTERS: usize = 40;

/// Facts about the tags of a page.
#[derive(Debug)]
pub(super) struct About {
    pub(super) window: Window,
    pub(super) sharing: Vec<Sharing>,
}

impl About {
    pub(super) fn of(window: Window) -> About {
        About {
            window,
            sharing: Vec::new(),
        }
    }

    /// Returns the other tags that have the digest now: some by name, and how many more.
    fn also<'a>(&'a self, tag: &'a KnownTag) -> (Vec<&'a Tag>, u64) {
        let mut shared = self.sharing.iter();
        let shared = shared.find(|one| Some(&one.digest) == tag.digest.as_ref());
        let Some(shared) = shared else {
            return (Vec::new(), 0);
        };
        let others = shared.tags.iter().filter(|name| **name != tag.image.tag);
        let mut room = LETTERS;
        let fits = |name: &'a Tag| {
            room = room.checked_sub(name.as_ref().len())?;
            Some(name)
        };
        let named: Vec<&Tag> = others.take(NAMED).map_while(fits).collect();
        let more = shared.count.saturating_sub(named.len() as u64 + 1);
        (named, more)
    }
}

fn lane(tag: &KnownTag) -> &[Sample] {
    tag.lane.as_deref().unwrap_or_default()
}

fn also(about: &About, tag: &KnownTag) -> Markup {
    let (named, more) = about.also(tag);
    html! {
        @if !named.is_empty() || more > 0 {
            span class="q" {
                "also " (named.iter().map(|name| name.as_ref()).collect::<Vec<_>>().join(", "))
                @if !named.is_empty() && more > 0 { " +" (number(more)) }
                @if named.is_empty() { (counted(more, "tag", "tags")) }
            }
        }
    }
}

fn name(tag: &KnownTag) -> Markup {
    html! { th scope="row" { a class="im" href=(image::address(&tag.image)) { (tag.image.tag) } } }
}

/// Draws the tags, each with its lane.
pub(super) fn moving(
    tags: &[KnownTag],
    about: &About,
    at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Markup {
    let room = room(tags.iter().map(lane));
    html! {
        p class="key" {
            span { "One colour is one digest, in every row and on every page." }
            span { "Marks below a lane: changes in that step; darker is more." }
            span { "Dashed: deleted." }
        }
        table class="lanes st fix" {
            thead { tr {
                th scope="col" class="w15" { "Tag" }
                th scope="col" class="w6" { @if at.is_some() { "Then" } @else { "Now" } }
                th scope="col" class="full" { (axis(about.window)) span class="vh" { "Over time" } }
                th scope="col" class="r w4" { "Changes" }
                th scope="col" class="w6" { "Last" }
                th scope="col" class="w15" { "By" }
            } }
            tbody {
                @for tag in tags {
                    tr {
                        (name(tag))
                        td { (link_or(tag.digest.as_ref(), "deleted")) }
                        td class="full" { (sampled(about.window, lane(tag), room, &sentence(tag, about))) }
                        td class="r n" data-l="changes" { (number(tag.revisions)) }
                        td class="nw s" {
                            @match at {
                                Some(_) => { (time(tag.occurred_at.0, Form::Short)) },
                                None => { (ago(tag.occurred_at.0, now)) },
                            }
                        }
                        td class="s" {
                            span class="ev" {
                                @if let Some(actor) = &tag.actor { (visible(actor)) }
                                (also(about, tag))
                                @if tag.moved_after_release { (badge(Tone::Bad, "warn", "moved after release")) }
                                @if tag.digest.is_none() { (badge(Tone::Bad, "deleted", "deleted")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn sentence(tag: &KnownTag, about: &About) -> String {
    let samples = lane(tag);
    let mut seen: Vec<_> = samples
        .iter()
        .filter_map(|sample| sample.digest.as_ref())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    let now = match &tag.digest {
        Some(digest) => short(digest),
        None => "deleted".to_owned(),
    };
    format!(
        "{}: {} seen, at the end {now}",
        about.window.length(),
        counted(seen.len() as u64, "digest", "different digests"),
    )
}

/// Draws the tags that were written once.
pub(super) fn once(tags: &[KnownTag], about: &About, now: OffsetDateTime) -> Markup {
    html! {
        table class="st" {
            thead { tr {
                th scope="col" { "Tag" }
                th scope="col" { "Digest" }
                th scope="col" { "Written (" (zone()) ")" }
                th scope="col" { "By" }
                th scope="col" { "Commit" }
                th scope="col" { "Also" }
            } }
            tbody {
                @for tag in tags {
                    tr {
                        (name(tag))
                        td { @match &tag.digest { Some(digest) => { (link(digest)) }, None => span class="none" { "deleted" } } }
                        td class="nw" { (since(tag.occurred_at.0, now)) }
                        td class="s" { @if let Some(actor) = &tag.actor { (visible(actor)) } }
                        td data-l=[tag.commit.as_ref().map(|_| "commit")] { (built_from(None, tag.commit.as_deref(), tag.source_code.as_deref())) }
                        td class="s q" { (also(about, tag)) }
                    }
                }
            }
        }
    }
}
