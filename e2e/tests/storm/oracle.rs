//! A second implementation of the rule of history, by brute force: computes every revision from all
//! recorded pushes. Shares no code with the indexer.

use std::collections::{BTreeMap, BTreeSet};

/// A row of the table `push`.
#[derive(Debug, Clone)]
pub(crate) struct RecordedPush {
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// `None` for a delete by digest, or of a repository.
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
    pub(crate) delete: bool,
    /// Microseconds since 1970.
    pub(crate) occurred: i64,
    pub(crate) effective: i64,
    pub(crate) received: i64,
    /// The registry's answer to a question, not an event.
    pub(crate) answer: bool,
    /// The time is from the event.
    pub(crate) timed: bool,
}

/// A row of the table `revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordedRevision {
    pub(crate) number: i64,
    pub(crate) at: i64,
    pub(crate) digest: Option<String>,
    pub(crate) kind: String,
}

/// Computes every revision of every tag, from the pushes in the order of their recording.
pub(crate) fn revisions(
    pushes: &[RecordedPush],
) -> BTreeMap<(String, String, String), Vec<RecordedRevision>> {
    let tags: BTreeSet<_> = pushes
        .iter()
        .filter_map(|push| Some((&push.registry, &push.repository, push.tag.as_ref()?)))
        .collect();
    tags.into_iter()
        .map(|(registry, repository, tag)| {
            let of_tag: Vec<&RecordedPush> = pushes
                .iter()
                .filter(|push| &push.registry == registry && &push.repository == repository)
                .filter(|push| push.tag.as_ref().is_none_or(|of| of == tag))
                .collect();
            let key = (registry.clone(), repository.clone(), tag.clone());
            (key, number(&of_tag))
        })
        .filter(|(_, revisions)| !revisions.is_empty())
        .collect()
}

/// The digest of a tag at an instant, from the tag's pushes in the order of the rule. `None`:
/// deleted.
fn state(ordered: &[&RecordedPush], instant: i64) -> Option<String> {
    let mut state = None;
    for push in ordered.iter().take_while(|push| push.effective <= instant) {
        state = match (&push.tag, push.delete, &push.digest) {
            (Some(_), false, digest) => digest.clone(),
            (_, _, Some(digest)) => state.filter(|had| had != digest),
            (_, _, None) => None,
        };
    }
    state
}

/// Numbers the revisions of a tag: recomputes the whole history after each push.
fn number(arrived: &[&RecordedPush]) -> Vec<RecordedRevision> {
    let mut revisions: Vec<RecordedRevision> = Vec::new();
    for count in 1..=arrived.len() {
        let mut ordered = arrived[..count].to_vec();
        ordered.sort_by_key(|push| (push.effective, push.received, push.digest.clone()));
        let instants: BTreeSet<i64> = ordered.iter().map(|push| push.effective).collect();
        for instant in instants {
            let now = state(&ordered, instant);
            let before = in_force(&revisions, instant).cloned();
            if before.as_ref().and_then(|before| before.digest.clone()) == now {
                continue;
            }
            let had = |digest: &String| {
                revisions
                    .iter()
                    .any(|old| old.digest.as_ref() == Some(digest) && old.at <= instant)
            };
            let kind = match (&before, &now) {
                (None, _) => "created",
                (Some(_), None) => "deleted",
                (Some(before), Some(_)) if before.digest.is_none() => "recreated",
                (Some(_), Some(digest)) if had(digest) => "reverted",
                (Some(_), Some(_)) => "moved",
            };
            revisions.push(RecordedRevision {
                number: i64::try_from(revisions.len()).unwrap() + 1,
                at: instant,
                digest: now,
                kind: kind.to_owned(),
            });
        }
    }
    revisions
}

/// The revision in force at an instant.
pub(crate) fn in_force(revisions: &[RecordedRevision], instant: i64) -> Option<&RecordedRevision> {
    revisions
        .iter()
        .filter(|revision| revision.at <= instant)
        .max_by_key(|revision| (revision.at, revision.number))
}
