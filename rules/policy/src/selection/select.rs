//! The selection: one of the tags of a repository, given their present heads and the tag that was
//! selected last.
//!
//! Automation never selects a lower tag by itself. Only a person does, by a change of the rule
//! ([`Last::rule_changed`]), or in advance by `on_removed = "fall-back"`.

use std::borrow::Cow;
use std::time::Duration;

use tagtrail_proto::Tag;
use time::OffsetDateTime;

use super::key::Key;
use super::order::Order;
use super::outcome::{Change, Fault, Kept, Last, Outcome, PassedOver, Selection, TagHead};
use super::reason::Reason;
use super::rule::{Fit, Rule};
use super::spec::{OnMoved, OnRemoved};

/// A compiled policy.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) rule: Rule,
    pub(super) min_age: Duration,
    pub(super) metadata_wait: Duration,
    pub(super) on_removed: OnRemoved,
    pub(super) on_moved: OnMoved,
}

/// A tag that the rule takes.
struct Candidate<'a> {
    head: &'a TagHead,
    key: Key,
    hindrance: Option<Reason>,
}

/// The best of several candidates.
enum Best<'c, 'a> {
    Found(&'c Candidate<'a>),
    Wait(&'a Tag, OffsetDateTime),
    Nothing,
}

impl Policy {
    /// Returns the rule.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Returns the time for which a head must have lasted.
    #[must_use]
    pub fn min_age(&self) -> Duration {
        self.min_age
    }

    /// Returns true if the tag, were it the best one, would be selected now, or waited for. Then no
    /// lower tag matters.
    #[must_use]
    pub fn is_conclusive(&self, head: &TagHead, now: OffsetDateTime) -> bool {
        let live = head.digest.is_some() && !head.tombstone;
        live && matches!(
            self.hindrance(head, now),
            None | Some(Reason::Unread { until: Some(_) })
        )
    }

    /// Selects a tag. `heads` has each tag of the repository at most once, in any order; tags below
    /// the last selection and below the best hundred may be left out, but not the selected one.
    #[must_use]
    pub fn select<'a>(
        &self,
        heads: &'a [TagHead],
        last: Option<&Last>,
        now: OffsetDateTime,
    ) -> Selection<'a> {
        let rule = match last {
            Some(last) if self.rule.is_relative() && !last.rule_changed => {
                Cow::Owned(self.rule.after(&last.tag))
            }
            _ => Cow::Borrowed(&self.rule),
        };
        let (candidates, mut passed_over) = self.rank(&rule, heads, now);
        let outcome = self.outcome(&rule, heads, &candidates, last);
        let is_doubtful =
            |one: &Candidate<'_>| matches!(one.hindrance, Some(Reason::SharedCreated(_)));
        let preferred = candidates
            .iter()
            .find(|one| one.hindrance.is_none() || is_doubtful(one));
        let preferred = preferred.map(|one| &one.head.tag);
        let mut better: Vec<PassedOver<'a>> = candidates
            .iter()
            .filter_map(|candidate| passed(candidate, &outcome, preferred, last))
            .collect();
        better.append(&mut passed_over);
        Selection {
            again: again(&candidates, &outcome, last),
            outcome,
            passed_over: better,
        }
    }

    /// Returns the candidates, the best one first, and the other tags with their reasons.
    fn rank<'a>(
        &self,
        rule: &Rule,
        heads: &'a [TagHead],
        now: OffsetDateTime,
    ) -> (Vec<Candidate<'a>>, Vec<PassedOver<'a>>) {
        let (mut candidates, mut others) = (Vec::new(), Vec::new());
        for head in heads {
            let live = match head.digest {
                None => Err(Reason::Deleted),
                Some(_) if head.tombstone => Err(Reason::Tombstone),
                Some(_) => Ok(()),
            };
            match live.and_then(|()| rule.key(&head.tag, head.times)) {
                Ok(key) => candidates.push(Candidate {
                    head,
                    key,
                    hindrance: self.hindrance(head, now),
                }),
                Err(reason) => others.push(PassedOver {
                    tag: &head.tag,
                    reason,
                }),
            }
        }
        candidates.sort_unstable_by(|a, b| b.key.cmp(&a.key));
        others.sort_unstable_by_key(|other| other.tag);
        if matches!(rule.order, Order::Created) {
            mark_shared(&mut candidates);
        }
        (candidates, others)
    }

    /// Returns the reason for which a candidate cannot be selected now.
    fn hindrance(&self, head: &TagHead, now: OffsetDateTime) -> Option<Reason> {
        if let Fit::Misfit(reason) = &head.fit {
            return Some(reason.clone());
        }
        let (since, opens_at) = (head.recorded_at, head.recorded_at + self.min_age);
        if opens_at > now && !self.min_age.is_zero() {
            return Some(Reason::TooYoung { since, opens_at });
        }
        match head.fit {
            Fit::Fits | Fit::Misfit(_) => None,
            Fit::Unread => {
                let until = since + self.metadata_wait;
                let until = (until > now).then_some(until);
                Some(Reason::Unread { until })
            }
        }
    }

    fn outcome<'a>(
        &self,
        rule: &Rule,
        heads: &'a [TagHead],
        candidates: &[Candidate<'a>],
        last: Option<&Last>,
    ) -> Outcome<'a> {
        let in_force = last.filter(|last| !last.rule_changed || stays(candidates, last));
        let Some(last) = in_force else {
            return match best(candidates, |_| true) {
                Best::Found(found) => found.selected(match last {
                    None => Change::First,
                    Some(last) => Change::Configuration {
                        downgrade: is_downgrade(rule, heads, last, found),
                    },
                }),
                Best::Wait(tag, until) => Outcome::Wait { tag, until },
                Best::Nothing => Outcome::Nothing,
            };
        };
        let head = heads.iter().find(|head| head.tag == last.tag);
        match head
            .filter(|head| !head.tombstone)
            .and_then(|head| head.digest.as_ref())
        {
            None => self.removed(candidates, last),
            Some(digest) if *digest == last.digest => {
                let floor = floor(candidates, last);
                higher(candidates, last, floor, Kept::Best)
            }
            Some(_) => self.moved(candidates, last),
        }
    }

    /// Returns whether a change of the selected tag holds the trigger.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.on_removed == OnRemoved::Hold || self.on_moved == OnMoved::Hold
    }

    fn removed<'a>(&self, candidates: &[Candidate<'a>], last: &Last) -> Outcome<'a> {
        if self.on_removed == OnRemoved::Hold && !last.released {
            return Outcome::Hold(Fault::Removed);
        }
        let falls_back = self.on_removed == OnRemoved::FallBack;
        let eligible = |one: &Candidate<'a>| falls_back || one.key > last.key;
        match best(candidates, eligible) {
            Best::Found(higher) if higher.key > last.key => higher.selected(Change::Higher),
            Best::Found(lower) => lower.selected(Change::FallBack),
            Best::Wait(tag, until) => Outcome::Wait { tag, until },
            Best::Nothing => {
                let next = candidates.iter().find(|one| one.hindrance.is_none());
                let next = next.map(|next| &next.head.tag);
                Outcome::Keep(Kept::Removed { next })
            }
        }
    }

    fn moved<'a>(&self, candidates: &[Candidate<'a>], last: &Last) -> Outcome<'a> {
        match self.on_moved {
            OnMoved::Hold if !last.released => return Outcome::Hold(Fault::Moved),
            OnMoved::Keep => {
                // The digest that stays has the key of its own time, if both keys are of one rule.
                let floor = match last.rule_changed {
                    true => floor(candidates, last),
                    false => &last.key,
                };
                return higher(candidates, last, floor, Kept::Moved);
            }
            OnMoved::Follow | OnMoved::Hold => {}
        }
        let floor = floor(candidates, last);
        let eligible = |one: &Candidate<'a>| one.head.tag == last.tag || one.key > *floor;
        match best(candidates, eligible) {
            Best::Found(same) if same.head.tag == last.tag => same.selected(Change::Moved),
            Best::Found(other) => other.selected(rise(last)),
            Best::Wait(tag, until) => Outcome::Wait { tag, until },
            Best::Nothing => Outcome::Keep(Kept::Moved),
        }
    }
}

impl<'a> Candidate<'a> {
    fn selected(&self, change: Change) -> Outcome<'a> {
        Outcome::Select {
            head: self.head,
            key: self.key.clone(),
            change,
        }
    }
}

/// Returns the best of the eligible candidates that can be selected, unless a better one is waited
/// for or shares its time of the build with another.
fn best<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    eligible: impl Fn(&Candidate<'a>) -> bool,
) -> Best<'c, 'a> {
    for candidate in candidates.iter().filter(|candidate| eligible(candidate)) {
        match candidate.hindrance {
            None => return Best::Found(candidate),
            Some(Reason::SharedCreated(_)) => return Best::Nothing,
            Some(Reason::Unread { until: Some(until) }) => {
                return Best::Wait(&candidate.head.tag, until);
            }
            Some(_) => {}
        }
    }
    Best::Nothing
}

/// Returns whether a changed rule still takes the selected tag. Its age does not matter: a person
/// who adds `min_age` does not ask for a lower tag.
fn stays(candidates: &[Candidate<'_>], last: &Last) -> bool {
    let selected = candidates.iter().find(|one| one.head.tag == last.tag);
    selected.is_some_and(|one| matches!(one.hindrance, None | Some(Reason::TooYoung { .. })))
}

/// Selects the best candidate above `floor`, or keeps the last selection.
fn higher<'a>(
    candidates: &[Candidate<'a>],
    last: &Last,
    floor: &Key,
    kept: Kept<'a>,
) -> Outcome<'a> {
    match best(candidates, |one| {
        one.head.tag != last.tag && one.key > *floor
    }) {
        Best::Found(higher) => higher.selected(rise(last)),
        Best::Wait(tag, until) => Outcome::Wait { tag, until },
        Best::Nothing => Outcome::Keep(kept),
    }
}

/// Returns the change to a tag above the selected one.
fn rise(last: &Last) -> Change {
    if last.rule_changed {
        Change::Configuration { downgrade: false }
    } else {
        Change::Higher
    }
}

/// Returns the key that a tag must exceed to take the place of the selected one. With `newest`, the
/// present key of the selected tag may be another than it was.
fn floor<'c>(candidates: &'c [Candidate<'_>], last: &'c Last) -> &'c Key {
    let present = candidates.iter().find(|one| one.head.tag == last.tag);
    match present.map(|one| &one.key) {
        // Keys of different rules cannot be compared.
        Some(present) if last.rule_changed || *present > last.key => present,
        _ => &last.key,
    }
}

/// Marks the candidates that share their time of the build with a candidate of another digest.
/// Candidates that cannot be selected anyway do not count.
fn mark_shared(candidates: &mut [Candidate<'_>]) {
    for run in candidates.chunk_by_mut(|a, b| a.head.times.created == b.head.times.created) {
        let mut able = run.iter().filter(|one| one.hindrance.is_none());
        let Some(first) = able.next().map(|one| one.head) else {
            continue;
        };
        let Some(other) = able
            .map(|one| one.head)
            .find(|head| head.digest != first.digest)
        else {
            continue;
        };
        for one in run.iter_mut().filter(|one| one.hindrance.is_none()) {
            let twin = if one.head.digest == first.digest {
                other
            } else {
                first
            };
            one.hindrance = Some(Reason::SharedCreated(twin.tag.clone()));
        }
    }
}

/// Returns whether a candidate is below the last selection in the order of the present rule.
fn is_downgrade(rule: &Rule, heads: &[TagHead], last: &Last, chosen: &Candidate<'_>) -> bool {
    let times = heads
        .iter()
        .find(|head| head.tag == last.tag)
        .map(|head| head.times);
    let times = times.or(rule.is_over_names().then_some(chosen.head.times));
    let before = times.and_then(|times| rule.key_beyond_filters(&last.tag, times));
    before.is_some_and(|before| before > chosen.key)
}

/// Returns the reason for which a candidate is not selected, or none for the selected one.
/// `preferred`: the best candidate by the rule alone.
fn passed<'a>(
    candidate: &Candidate<'a>,
    outcome: &Outcome<'a>,
    preferred: Option<&Tag>,
    last: Option<&Last>,
) -> Option<PassedOver<'a>> {
    let tag = &candidate.head.tag;
    let reason = match (outcome, &candidate.hindrance) {
        (Outcome::Select { head, .. }, _) if head.tag == *tag => return None,
        (_, Some(hindrance)) => hindrance.clone(),
        (Outcome::Select { head, .. }, None) => Reason::Lower(head.tag.clone()),
        (Outcome::Wait { tag, .. }, None) => Reason::Waiting((*tag).clone()),
        (Outcome::Hold(_), None) => Reason::Held,
        (Outcome::Keep(kept), None) => match (kept, last?) {
            (_, last) if last.tag == *tag => return None,
            (Kept::Removed { .. }, last) => Reason::BelowSelection(last.tag.clone()),
            (_, last) if candidate.key < last.key => Reason::Lower(last.tag.clone()),
            _ => Reason::Lower(preferred?.clone()),
        },
        (Outcome::Nothing, None) => Reason::Lower(preferred?.clone()),
    };
    Some(PassedOver { tag, reason })
}

/// Returns the first time at which a candidate that is better than the result can be selected, or
/// is no longer waited for.
fn again(
    candidates: &[Candidate<'_>],
    outcome: &Outcome<'_>,
    last: Option<&Last>,
) -> Option<OffsetDateTime> {
    let floor = match (outcome, last) {
        (Outcome::Select { key, .. }, _) => Some(key),
        (Outcome::Keep(Kept::Best | Kept::Moved), Some(last)) if !last.rule_changed => {
            Some(&last.key)
        }
        _ => None,
    };
    let is_last = |tag: &Tag| last.is_some_and(|last| last.tag == *tag);
    let better = candidates
        .iter()
        .filter(|one| is_last(&one.head.tag) || floor.is_none_or(|floor| one.key > *floor));
    let times = better.filter_map(|one| match one.hindrance {
        Some(Reason::TooYoung { opens_at, .. }) => Some(opens_at),
        Some(Reason::Unread { until }) => until,
        _ => None,
    });
    times.min()
}
