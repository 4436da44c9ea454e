//! The reasons for which an image with a policy does not stand for its best tag.

use tagtrail_proto::{Reason, ReasonCode, Tag};

use super::{PolicyImage, TagRow};
use crate::agree::{Agree, Side};
use crate::selection::{self, Fault, Kept, Outcome, PassedOver, Selection, TagHead};

/// The most tags that a reason names.
const NAMED: usize = 3;

/// Returns the reason for which an image with a policy does not stand for the best tag.
pub(super) fn of_choice(
    image: &PolicyImage,
    tags: &[TagHead],
    selected: Option<&TagRow>,
    selection: &Selection<'_>,
) -> Option<Reason> {
    let mut reason = match &selection.outcome {
        Outcome::Nothing => too_young(selection.passed_over.iter())
            .unwrap_or_else(|| no_candidate(&selection.passed_over)),
        Outcome::Wait { tag, until } => {
            let mut reason = Reason::new(
                ReasonCode::MetadataWait,
                format!("the manifest of {tag}, the best tag, is being read"),
            );
            let head = tags.iter().find(|head| head.tag == **tag);
            reason.since = head.map(|head| head.recorded_at);
            reason.opens_at = Some(*until);
            reason
        }
        Outcome::Keep(Kept::Removed { next }) => removed(image, selected, *next)?,
        Outcome::Hold(fault) => {
            let tag = &image.selection.as_ref()?.tag;
            let why = match fault {
                Fault::Removed => format!("the selected tag {tag} is gone"),
                Fault::Moved => format!("the selected tag {tag} has another digest"),
            };
            let mut reason =
                Reason::new(ReasonCode::Fault, format!("{why}, so nothing is selected"));
            reason.since = selected.map(|row| row.recorded_at);
            reason
        }
        // A better tag, or the new digest of the same one, may be too young.
        Outcome::Select { .. } | Outcome::Keep(_) => {
            let key = match &selection.outcome {
                Outcome::Select { key, .. } => key,
                _ => &image.selection.as_ref()?.key,
            };
            let rule = image.watched.policy.rule();
            let above = |one: &&PassedOver<'_>| {
                let head = tags.iter().find(|head| head.tag == *one.tag);
                let other = head.and_then(|head| rule.key(&head.tag, head.times).ok());
                other.is_some_and(|other| other >= *key)
            };
            too_young(selection.passed_over.iter().filter(above))?
        }
    };
    let (registry, repository) = (&image.watched.registry, &image.watched.repository);
    reason.image = Some(format!("{registry}/{repository}"));
    Some(reason)
}

fn too_young<'p>(mut passed_over: impl Iterator<Item = &'p PassedOver<'p>>) -> Option<Reason> {
    passed_over.find_map(|one| match &one.reason {
        selection::Reason::TooYoung { since, opens_at } => {
            let why = format!("{} has its digest for less than `min_age`", one.tag);
            let mut reason = Reason::new(ReasonCode::MinAge, why);
            reason.since = Some(*since);
            reason.opens_at = Some(*opens_at);
            Some(reason)
        }
        _ => None,
    })
}

fn no_candidate(passed_over: &[PassedOver<'_>]) -> Reason {
    let tags = passed_over.iter().take(NAMED);
    let tags: Vec<String> = tags
        .map(|one| format!("{}: {}", one.tag, one.reason))
        .collect();
    let why = match tags.is_empty() {
        true => "no tag of the repository passes the policy".to_owned(),
        false => format!("no tag can be selected ({})", tags.join("; ")),
    };
    Reason::new(ReasonCode::NoCandidate, why)
}

fn removed(image: &PolicyImage, selected: Option<&TagRow>, next: Option<&Tag>) -> Option<Reason> {
    let kept = image.selection.as_ref()?;
    let next = next.map_or(String::new(), |next| {
        format!("; the next best tag is {next}")
    });
    let why = format!(
        "the selected tag {} is gone; {} stays{next}",
        kept.tag, kept.digest
    );
    let mut reason = Reason::new(ReasonCode::Removed, why);
    reason.since = selected.map(|row| row.recorded_at);
    Some(reason)
}

/// Returns the reason for which the images of a trigger are not those of the newest build of each.
pub(super) fn apart<'s>(
    agree: Agree,
    value: Option<&str>,
    sides: impl Iterator<Item = (&'s str, &'s Side<'s>)>,
) -> Option<Reason> {
    let newest: Vec<(&str, Option<&str>)> = sides
        .map(|(name, side)| {
            let best = side.tags.first();
            (name, best.and_then(|tag| agree.value(tag)))
        })
        .collect();
    if value.is_some() && newest.iter().all(|(_, newest)| *newest == value) {
        return None;
    }
    let word = match agree {
        Agree::Tag => "tag",
        Agree::Commit => "commit",
    };
    let newest: Vec<String> = newest
        .iter()
        .map(|(name, newest)| format!("{name} {}", newest.unwrap_or("-")))
        .collect();
    let newest = newest.join(", ");
    let why = match value {
        None => format!("no {word} is common to all images (newest: {newest})"),
        Some(value) => {
            format!("the newest {word} that all images have is {value} (newest: {newest})")
        }
    };
    Some(Reason::new(ReasonCode::NoAgreement, why))
}
