//! The rule of history: what a tag meant when, and which changes get a number. Pure; no I/O, no clock.
//!
//! A **fact** is what a registry said about a time. Facts are ordered by `(at, received, digest)`; `at` is the effective
//! time: the sender's, but never more than [`MAX_AHEAD`] after the stream received it. The **timeline** of a tag is the fold
//! of its own facts and its repository's in that order. **Revisions** number its changes: after each fact, every instant at
//! which the timeline differs from what the revisions so far say gets the next number. A revision never changes: a later
//! fact about an earlier time adds revisions, it edits none.
//!
//! # Why a few neighbours are enough
//! A fact changes the timeline only from its own instant up to the next fact that sets the tag's state whatever it was
//! before (a push or delete of the tag, a delete of the repository: [`Effect::fixes_state`]). Only deletes of a digest depend on
//! the state before them. So [`TagState`] need not hold a tag's whole history, only what stands around the incoming facts:
//! the revision in force just before, and all facts and revisions from there through the instant of the next settling fact.

use std::collections::HashMap;

use tagtrail_proto::{Digest, Kind};
use time::{Duration, OffsetDateTime};

/// How far the sender's clock may be ahead of the stream's before it is disbelieved.
pub const MAX_AHEAD: Duration = Duration::seconds(60);

/// The time at which a fact takes effect, in microseconds, as Postgres keeps them.
pub fn effective(occurred: OffsetDateTime, received: OffsetDateTime) -> OffsetDateTime {
    occurred.min(received + MAX_AHEAD)
}

/// What a fact says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The tag had this digest.
    Push(Digest),
    /// The tag was deleted.
    Delete,
    /// This digest was deleted with every tag that had it. A fact of the repository.
    DeleteDigest(Digest),
    /// The repository was deleted. A fact of the repository.
    DeleteRepository,
}

impl Effect {
    /// Whether the state after it is the same whatever was before it.
    fn fixes_state(&self) -> bool {
        !matches!(self, Effect::DeleteDigest(_))
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Effect::Push(digest) | Effect::DeleteDigest(digest) => Some(digest),
            Effect::Delete | Effect::DeleteRepository => None,
        }
    }
}

/// One fact about a tag: its own, or one of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// When it takes effect.
    pub at: OffsetDateTime,
    /// When it was first received.
    pub received: OffsetDateTime,
    /// What it says.
    pub effect: Effect,
    /// Row of `push`: for the caller, never compared.
    pub push_id: i64,
}

impl Fact {
    /// The order of facts. The last member makes it total: of two facts that agree in all else either may come first.
    fn order(&self) -> (OffsetDateTime, OffsetDateTime, Option<&Digest>, &Effect) {
        (self.at, self.received, self.effect.digest(), &self.effect)
    }
}

/// A revision as the rule needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Effective time.
    pub at: OffsetDateTime,
    /// Its number.
    pub number: u64,
    /// The digest from then on; `None`: deleted.
    pub digest: Option<Digest>,
}

impl Entry {
    fn order(&self) -> (OffsetDateTime, u64) {
        (self.at, self.number)
    }
}

/// A change that got a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRevision {
    /// The revision.
    pub revision: Entry,
    /// How it differs from the one before it in time.
    pub kind: Kind,
    /// The revision in force just before it, when it was recorded.
    pub previous: Option<Entry>,
    /// The head when it was recorded: itself, unless it is late.
    pub head: Entry,
    /// The fact that gave the tag this state.
    pub push_id: i64,
}

/// What is known of one tag around the incoming facts.
#[derive(Debug, Clone, Default)]
pub struct TagState {
    /// Greatest number issued.
    pub issued: u64,
    /// The revision in force at the end of the timeline.
    pub head: Option<Entry>,
    /// Revisions, in the order of `(at, number)`.
    revisions: Vec<Entry>,
    /// Facts, in their order.
    facts: Vec<Fact>,
    /// When the tag first had a digest, for those that may come again.
    first_had: HashMap<Digest, OffsetDateTime>,
}

impl TagState {
    /// What is known of a tag with these revisions and facts around the incoming ones, in any order, repeats allowed.
    /// `first_had` gives the first effective time of each digest that may be pushed again, if the tag ever had it.
    pub fn new(
        issued: u64,
        head: Option<Entry>,
        revisions: Vec<Entry>,
        facts: Vec<Fact>,
        first_had: HashMap<Digest, OffsetDateTime>,
    ) -> TagState {
        let mut known = TagState {
            issued,
            head,
            revisions,
            facts,
            first_had,
        };
        known.revisions.extend(known.head.clone());
        known.revisions.sort_by_key(Entry::order);
        known.revisions.dedup();
        known.facts.sort_by(|a, b| a.order().cmp(&b.order()));
        known.facts.dedup();
        known
    }

    /// Takes in a fact that is not known yet, and numbers the changes that it makes, in the order of their time.
    pub fn record(&mut self, fact: Fact) -> Vec<NewRevision> {
        let instant = fact.at;
        let place = self
            .facts
            .partition_point(|known| known.order() <= fact.order());
        self.facts.insert(place, fact);
        let mut decided = Vec::new();
        // From the state just before the instant, fold on to the end of the first instant at which the state is settled again.
        let mut state = self
            .in_force_before(instant)
            .and_then(|revision| revision.digest.clone());
        let mut given_by = None;
        let mut next = self.facts.partition_point(|known| known.at < instant);
        while let Some(now) = self.facts.get(next).map(|fact| fact.at) {
            let mut settled = false;
            while let Some(fact) = self.facts.get(next).filter(|fact| fact.at == now) {
                settled |= fact.effect.fixes_state();
                let after = fold(state.as_ref(), &fact.effect);
                if after != state || given_by.is_none() {
                    given_by = Some(fact.push_id);
                }
                state = after;
                next += 1;
            }
            if let Some(push_id) = given_by {
                decided.extend(self.number(now, state.as_ref(), push_id));
            }
            if settled && now > instant {
                break;
            }
        }
        // Which of them is the head shows only when all are numbered.
        let head = self.head.clone();
        for new in &mut decided {
            if let Some(head) = &head {
                new.head = head.clone();
            }
        }
        decided
    }

    /// The next number for this instant, if the revisions so far say otherwise than `state`.
    fn number(
        &mut self,
        at: OffsetDateTime,
        state: Option<&Digest>,
        push_id: i64,
    ) -> Option<NewRevision> {
        let place = self.revisions.partition_point(|revision| revision.at <= at);
        let previous = place
            .checked_sub(1)
            .map(|before| self.revisions[before].clone());
        let said = previous
            .as_ref()
            .and_then(|revision| revision.digest.as_ref());
        if said == state {
            return None;
        }
        self.issued += 1;
        let revision = Entry {
            at,
            number: self.issued,
            digest: state.cloned(),
        };
        let kind = match (&previous, state) {
            (None, _) => Kind::Created,
            (Some(_), None) => Kind::Deleted,
            (Some(Entry { digest: None, .. }), Some(_)) => Kind::Recreated,
            (Some(_), Some(digest))
                if self.first_had.get(digest).is_some_and(|first| *first <= at) =>
            {
                Kind::Reverted
            }
            (Some(_), Some(_)) => Kind::Moved,
        };
        if let Some(digest) = state {
            let first = self.first_had.entry(digest.clone()).or_insert(at);
            *first = at.min(*first);
        }
        self.revisions.insert(place, revision.clone());
        if self
            .head
            .as_ref()
            .is_none_or(|head| head.order() < revision.order())
        {
            self.head = Some(revision.clone());
        }
        Some(NewRevision {
            head: revision.clone(),
            revision,
            kind,
            previous,
            push_id,
        })
    }

    fn in_force_before(&self, instant: OffsetDateTime) -> Option<&Entry> {
        let place = self
            .revisions
            .partition_point(|revision| revision.at < instant);
        place
            .checked_sub(1)
            .and_then(|before| self.revisions.get(before))
    }
}

/// The state after a fact.
fn fold(state: Option<&Digest>, effect: &Effect) -> Option<Digest> {
    match effect {
        Effect::Push(digest) => Some(digest.clone()),
        Effect::Delete | Effect::DeleteRepository => None,
        Effect::DeleteDigest(digest) => state.filter(|had| *had != digest).cloned(),
    }
}

#[cfg(test)]
mod tests;
