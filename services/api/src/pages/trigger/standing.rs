//! A trigger beside the heads of its images: the state that its page shows, and that a person acts
//! on.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use serde_json::json;
use sqlx::PgConnection;
use tagtrail_condition::{HoldKind, Resumption};
use tagtrail_proto::{Condition, Digest, Image, Name, RolloutImage};
use time::OffsetDateTime;

use crate::pages::part::digest::{link, link_or};
use crate::pages::part::form;
use crate::pages::part::icon::icon_for;
use crate::pages::part::image;
use crate::pages::part::kind::{Tone, badge, state};
use crate::pages::part::standing::{Difference, differences, words};
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::span;
use crate::store::heads::{self, Head};
use crate::store::triggers::{self, Trigger, TriggerState};

/// A trigger, and where its images stand.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Row id.
    pub(crate) id: i32,
    pub(crate) trigger: Trigger,
    pub(crate) images: Vec<Watched>,
}

/// An image of a trigger.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Name in the trigger.
    pub(crate) name: String,
    /// The tag, or the repository of a policy.
    pub(crate) image: String,
    /// The image that runs: of the newest rollout that succeeded.
    pub(crate) runs: Option<RolloutImage>,
    /// The digest that the trigger stands for now, and the number of its revision.
    pub(crate) head: Option<(Digest, u64)>,
    /// The row id of the tag; none for a policy, and before its first push.
    pub(crate) tag: Option<i64>,
    /// The time from which on the tag has a revision.
    pub(crate) first: Option<OffsetDateTime>,
    /// Number of revisions between the two; 0 if they are of different tags.
    behind: u64,
    /// Time since which the head is another one.
    since: Option<OffsetDateTime>,
}

impl Watched {
    /// Whether the head is another digest than the one that runs.
    pub(crate) fn differs(&self) -> bool {
        let runs = self.runs.as_ref().map(|runs| &runs.digest);
        let head = self.head.as_ref().map(|(digest, _)| digest);
        head.is_some() && runs != head
    }

    /// Draws the line of the image in a list: the digest that runs, and the head where it differs.
    pub(crate) fn line(&self, now: OffsetDateTime) -> Markup {
        let runs = self.runs.as_ref().map(|runs| &runs.digest);
        html! {
            li {
                span class="q" { (visible(&self.name)) }
                (self.image_link())
                (link_or(runs, "nothing yet"))
                @match &self.head {
                    Some((head, _)) if self.differs() => span class="ev" {
                        (icon_for("moved", "but head is")) (link(head))
                        @if let Some(text) = self.distance(now) { (badge(Tone::Warning, "warn", &text)) }
                    },
                    Some(_) => (state(Tone::Good, "ok", "is head")),
                    None => span class="none" { "no head" },
                }
            }
        }
    }

    /// Returns a link to the tag that runs, or to the image as the trigger names it.
    pub(crate) fn image_link(&self) -> Markup {
        let runs = self.runs.as_ref().map(|runs| runs.image.clone());
        let named = self.image.parse::<Image>().ok().filter(|_| self.is_tag());
        match named.or(runs) {
            Some(one) => image::short_link(&one),
            None => html! { a class="im" href={ "/i/" (self.image) } { (visible(&self.image)) } },
        }
    }

    /// Whether the trigger names a tag, and not a repository.
    fn is_tag(&self) -> bool {
        let last = self.image.rsplit('/').next();
        last.is_some_and(|last| last.contains(':'))
    }

    /// Returns how far the running image is behind its head.
    fn distance(&self, now: OffsetDateTime) -> Option<String> {
        let since = self.since.map(|since| span(now - since));
        match (self.behind, since) {
            (0, since) => since,
            (behind, Some(since)) => Some(format!("{} behind, {since}", number(behind))),
            (behind, None) => Some(format!("{} behind", number(behind))),
        }
    }
}

impl Standing {
    /// Reads a configured trigger by its name.
    pub(crate) async fn read(
        db: &mut PgConnection,
        name: &Name,
    ) -> Result<Option<Standing>, sqlx::Error> {
        let found = triggers::on_page(db, Some(name)).await?;
        Ok(Standing::beside_heads(db, found).await?.pop())
    }

    /// Reads the heads of these triggers, in one statement.
    pub(crate) async fn beside_heads(
        db: &mut PgConnection,
        found: Vec<(i32, Trigger)>,
    ) -> Result<Vec<Standing>, sqlx::Error> {
        let mut watched = Vec::new();
        for (_, trigger) in &found {
            for (name, image) in &trigger.images {
                watched.push((image.as_str(), run_of(trigger, name, image)));
            }
        }
        let heads = heads::of(db, &watched).await?;
        let standing = |(id, trigger): (i32, Trigger)| Standing {
            id,
            images: images(&trigger, &heads),
            trigger,
        };
        Ok(found.into_iter().map(standing).collect())
    }

    /// Returns the changes that start if the present heads are rolled out.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        let differing = self.images.iter().filter(|one| one.differs());
        let difference = |one: &Watched| Difference {
            name: one.name.clone(),
            from: one.runs.as_ref().map(|runs| runs.digest.clone()),
            to: one.head.as_ref().map(|(head, _)| head.clone()),
        };
        differing.map(difference).collect()
    }

    /// Returns the changes to the pinned set that start if the wanted set is rolled out. `None`: no
    /// pin is in force.
    pub(crate) fn pinned(&self) -> Option<Vec<Difference>> {
        let mut holds = self.trigger.holds.iter();
        let pin = holds.find(|hold| hold.kind == HoldKind::Pin)?;
        let images = pin.images.iter().flatten();
        let difference = images.map(|(name, digest)| {
            let runs = self.images.iter().find(|one| one.name == *name);
            let runs = runs.and_then(|one| one.runs.as_ref());
            Difference {
                name: name.clone(),
                from: runs.map(|runs| runs.digest.clone()),
                to: digest.parse().ok(),
            }
        });
        Some(difference.filter(|one| one.from != one.to).collect())
    }

    /// Returns the effect of ending a pause.
    pub(crate) fn resumption(&self) -> Resumption {
        let trigger = &self.trigger;
        let last = trigger.last.as_ref();
        let differs = trigger.wants_other(last.map(|last| &last.images));
        Resumption::of(differs, last, !trigger.holds.is_empty())
    }

    /// Draws the effect of ending a pause as a sentence, with the changes that start.
    pub(crate) fn after_resume(&self) -> Markup {
        let effect = self.resumption();
        let changes = self.differences();
        html! {
            "Resuming " (effect)
            @if !changes.is_empty() && !matches!(effect, Resumption::Held | Resumption::Nothing) { ": " (differences(&changes)) }
            "."
        }
    }

    /// Returns the number of revisions by which the image that is furthest behind is behind.
    pub(crate) fn behind(&self) -> u64 {
        self.images.iter().map(|one| one.behind).max().unwrap_or(0)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.trigger.state == TriggerState::Paused
    }

    /// Whether a pin or a fault is in force, which `release` ends.
    pub(crate) fn is_held(&self) -> bool {
        let mut holds = self.trigger.holds.iter();
        holds.any(|hold| hold.kind != HoldKind::Freeze)
    }

    /// Returns the identity of the state that a person sees before an act: the pause, the holds and
    /// the settings; the rollouts and the heads unless the act only pauses, which starts nothing.
    pub(crate) fn seen(&self, act: &str) -> String {
        let trigger = &self.trigger;
        let holds: Vec<u64> = trigger.holds.iter().map(|hold| hold.id).collect();
        let paused = trigger.paused_at.map(OffsetDateTime::unix_timestamp_nanos);
        let calm = json!([
            "trigger",
            trigger.name,
            trigger.state,
            paused.map(|at| at.to_string()),
            trigger.generation,
            holds,
        ]);
        if act == "pause" {
            return form::seen(&calm);
        }
        let digest = |one: &Watched| {
            let runs = one.runs.as_ref().map(|runs| runs.digest.to_string());
            let head = one.head.as_ref().map(|(digest, _)| digest.to_string());
            json!([one.name, runs, head])
        };
        let images: Vec<_> = self.images.iter().map(digest).collect();
        let last = trigger.last.as_ref();
        let last = last.map(|last| json!([last.id, last.state.as_str()]));
        let current = trigger.current.as_ref().map(|current| &current.id);
        form::seen(&json!([calm, images, current, last]))
    }
}

/// Returns the place of a trigger in lists: those first that need a person.
pub(crate) fn rank(trigger: &Trigger) -> (bool, u8) {
    let condition = match trigger.condition {
        Condition::Broken => 0,
        Condition::Failing => 1,
        Condition::Paused => 2,
        Condition::Held => 3,
        Condition::Waiting => 4,
        Condition::RollingOut => 5,
        Condition::Settled => 6,
        Condition::Removed => 7,
    };
    (!trigger.is_behind(), condition)
}

/// The number of the revision that runs, if it is one of the tag that the trigger names.
fn run_of(trigger: &Trigger, name: &str, image: &str) -> u64 {
    let runs = trigger.current.as_ref();
    let runs = runs.and_then(|current| current.images.get(name));
    let same = runs.filter(|runs| runs.image.to_string() == image);
    same.map_or(0, |runs| runs.revision)
}

fn images(trigger: &Trigger, heads: &BTreeMap<(String, u64), Head>) -> Vec<Watched> {
    let current = trigger.current.as_ref().map(|current| &current.images);
    let wanted = trigger.wanted.as_ref();
    let names: BTreeSet<&String> = trigger
        .images
        .keys()
        .chain(wanted.into_iter().flat_map(BTreeMap::keys))
        .chain(current.into_iter().flat_map(BTreeMap::keys))
        .collect();
    let watched = |name: &String| {
        let runs = current.and_then(|images| images.get(name));
        let wanted = wanted.and_then(|images| images.get(name));
        let image = trigger.images.get(name);
        let run = image.map_or(0, |image| run_of(trigger, name, image));
        let head = image.and_then(|image| heads.get(&(image.clone(), run)));
        // The head of the tag is newer than the planner's last look.
        let target = match head {
            Some(head) => head.digest.clone().map(|digest| (digest, head.revision)),
            None => wanted.map(|wanted| (wanted.digest.clone(), wanted.revision)),
        };
        let differs = match (&target, runs) {
            (Some((digest, _)), Some(runs)) => *digest != runs.digest,
            _ => false,
        };
        let image = image.cloned().or(runs.map(|runs| runs.image.to_string()));
        Watched {
            name: name.clone(),
            image: image.unwrap_or_default(),
            runs: runs.cloned(),
            behind: head
                .filter(|_| differs && run > 0)
                .map_or(0, |head| head.revision.saturating_sub(run)),
            since: head.filter(|_| differs).and_then(|head| head.behind_since),
            head: target,
            tag: head.map(|head| head.tag),
            first: head.map(|head| head.first),
        }
    };
    names.into_iter().map(watched).collect()
}

/// Draws the sentence that says why a trigger stands as it does: its pause, or its first reason.
pub(crate) fn why(trigger: &Trigger, now: OffsetDateTime) -> Markup {
    html! {
        @if trigger.state == TriggerState::Paused {
            "paused"
            @if let Some(by) = &trigger.paused_by { " by " (visible(by)) }
            @if let Some(at) = trigger.paused_at { " " span class="nw" { (span(now - at)) " ago" } }
            @if let Some(reason) = &trigger.paused_reason { ": “" (visible(reason)) "”" }
        } @else if let Some(reason) = trigger.reasons.first() {
            (words(reason.code.as_str())) ": " (visible(&reason.why))
        }
    }
}
