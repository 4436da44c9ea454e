//! The rule of history once more, by brute force: from all facts, as they were recorded, to every revision. It shares no code with
//! the indexer.

use std::collections::{BTreeMap, BTreeSet};

/// A row of `push`.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// `None`: about the whole repository.
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
    pub(crate) delete: bool,
    /// Microseconds since 1970.
    pub(crate) occurred: i64,
    pub(crate) effective: i64,
    pub(crate) received: i64,
}

/// A row of `revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) number: i64,
    pub(crate) at: i64,
    pub(crate) digest: Option<String>,
    pub(crate) kind: String,
}

/// Every revision of every tag, from the facts in the order in which they were recorded.
pub(crate) fn revisions(facts: &[Fact]) -> BTreeMap<(String, String, String), Vec<Revision>> {
    let tags: BTreeSet<_> = facts
        .iter()
        .filter_map(|fact| Some((&fact.registry, &fact.repository, fact.tag.as_ref()?)))
        .collect();
    tags.into_iter()
        .map(|(registry, repository, tag)| {
            let concerned: Vec<&Fact> = facts
                .iter()
                .filter(|fact| &fact.registry == registry && &fact.repository == repository)
                .filter(|fact| fact.tag.as_ref().is_none_or(|of| of == tag))
                .collect();
            let key = (registry.clone(), repository.clone(), tag.clone());
            (key, number(&concerned))
        })
        .filter(|(_, revisions)| !revisions.is_empty())
        .collect()
}

/// What a tag is after all facts up to an instant, in the order of the rule.
fn state(ordered: &[&Fact], instant: i64) -> Option<String> {
    let mut state = None;
    for fact in ordered.iter().take_while(|fact| fact.effective <= instant) {
        state = match (&fact.tag, fact.delete, &fact.digest) {
            (Some(_), false, digest) => digest.clone(),
            (None, _, Some(digest)) => state.filter(|had| had != digest),
            (Some(_), true, _) | (None, _, None) => None,
        };
    }
    state
}

fn number(arrived: &[&Fact]) -> Vec<Revision> {
    let mut revisions: Vec<Revision> = Vec::new();
    for count in 1..=arrived.len() {
        let mut ordered = arrived[..count].to_vec();
        ordered.sort_by_key(|fact| (fact.effective, fact.received, fact.digest.clone()));
        let instants: BTreeSet<i64> = ordered.iter().map(|fact| fact.effective).collect();
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
            revisions.push(Revision {
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
pub(crate) fn in_force(revisions: &[Revision], instant: i64) -> Option<&Revision> {
    revisions
        .iter()
        .filter(|revision| revision.at <= instant)
        .max_by_key(|revision| (revision.at, revision.number))
}
