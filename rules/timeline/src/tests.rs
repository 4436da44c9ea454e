//! Tests of the rule against an oracle without shortcuts, which keeps every fact and folds all of
//! them anew each time.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

fn second(n: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::seconds(n)
}

fn digest(n: u8) -> Digest {
    Digest::sha256_of(&[n])
}

/// A report of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    occurred: i64,
    effect: Effect,
}

/// All facts and all revisions of a tag.
#[derive(Debug, Default)]
struct Oracle {
    facts: Vec<(Report, Fact)>,
    revisions: Vec<(Entry, usize)>,
}

impl Oracle {
    /// The state at the end of instant `at`, over the first `known` facts.
    fn timeline(&self, at: OffsetDateTime, known: usize) -> Option<Digest> {
        let mut facts: Vec<&Fact> = self
            .facts
            .iter()
            .take(known)
            .map(|(_, fact)| fact)
            .filter(|fact| fact.at <= at)
            .collect();
        facts.sort_by_key(|fact| {
            (
                fact.at,
                fact.received,
                fact.effect.digest().cloned(),
                fact.effect.clone(),
            )
        });
        facts
            .into_iter()
            .fold(None, |state, fact| match &fact.effect {
                Effect::Push(digest) => Some(digest.clone()),
                Effect::Delete | Effect::DeleteRepository => None,
                Effect::DeleteDigest(digest) if state.as_ref() == Some(digest) => None,
                Effect::DeleteDigest(_) => state,
            })
    }

    /// The revision in force at the instant `at`, among those recorded with the first `known`
    /// facts.
    fn in_force(&self, at: OffsetDateTime, known: usize) -> Option<&Entry> {
        self.revisions
            .iter()
            .filter(|(revision, by)| revision.at <= at && *by <= known)
            .map(|(revision, _)| revision)
            .max_by_key(|revision| revision.order())
    }

    fn instants(&self) -> BTreeSet<OffsetDateTime> {
        self.facts.iter().map(|(_, fact)| fact.at).collect()
    }

    /// Records a fact. Returns the new revisions, or `None` for a repeated report.
    fn record(&mut self, report: &Report, fact: &Fact) -> Option<Vec<Entry>> {
        if self.facts.iter().any(|(known, _)| known == report) {
            return None;
        }
        self.facts.push((report.clone(), fact.clone()));
        let known = self.facts.len();
        let mut numbered = Vec::new();
        for at in self.instants() {
            let should = self.timeline(at, known);
            if self
                .in_force(at, known)
                .and_then(|revision| revision.digest.clone())
                != should
            {
                let revision = Entry {
                    at,
                    number: self.revisions.len() as u64 + 1,
                    digest: should,
                };
                self.revisions.push((revision.clone(), known));
                numbered.push(revision);
            }
        }
        Some(numbered)
    }

    /// The state that a store would load for facts at these instants: only the neighbours that
    /// [`TagState`] needs.
    fn around(&self, incoming: &[OffsetDateTime]) -> TagState {
        let facts = || self.facts.iter().map(|(_, fact)| fact);
        let revisions = || self.revisions.iter().map(|(revision, _)| revision);
        let head = revisions().max_by_key(|revision| revision.order()).cloned();
        let mut first_had = HashMap::new();
        for revision in revisions() {
            if let Some(digest) = &revision.digest {
                let first = first_had.entry(digest.clone()).or_insert(revision.at);
                *first = revision.at.min(*first);
            }
        }
        let latest = facts().map(|fact| fact.at).max();
        let (mut near_facts, mut near_revisions) = (Vec::new(), Vec::new());
        for at in incoming
            .iter()
            .copied()
            .filter(|at| latest.is_some_and(|latest| *at <= latest))
        {
            let settled = facts()
                .filter(|fact| fact.at > at && fact.effect.fixes_state())
                .map(|fact| fact.at)
                .min();
            let near = |instant: OffsetDateTime| {
                at <= instant && settled.is_none_or(|settled| instant <= settled)
            };
            near_facts.extend(facts().filter(|fact| near(fact.at)).cloned());
            near_revisions.extend(revisions().filter(|revision| near(revision.at)).cloned());
            near_revisions.extend(
                revisions()
                    .filter(|revision| revision.at < at)
                    .max_by_key(|revision| revision.order())
                    .cloned(),
            );
        }
        TagState::new(
            self.revisions.len() as u64,
            head,
            near_revisions,
            near_facts,
            first_had,
        )
    }
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        8 => (0..4_u8).prop_map(|n| Effect::Push(digest(n))),
        2 => Just(Effect::Delete),
        3 => (0..4_u8).prop_map(|n| Effect::DeleteDigest(digest(n))),
        1 => Just(Effect::DeleteRepository),
    ]
}

/// Batches of reports in the order of arrival, some sent twice. Their times collide often; some are
/// far in the future.
fn batches() -> impl Strategy<Value = Vec<Vec<(Report, i64)>>> {
    let report = (prop_oneof![6 => 0..30_i64, 1 => 80..400_i64], effect())
        .prop_map(|(occurred, effect)| Report { occurred, effect });
    let arrival = (any::<prop::sample::Index>(), 0..3_i64);
    (
        prop::collection::vec(report, 1..12),
        prop::collection::vec(arrival, 1..30),
        prop::collection::vec(1..6_usize, 1..30),
    )
        .prop_map(|(reports, arrivals, sizes)| {
            let mut received = 0;
            let mut arrivals = arrivals.into_iter().map(|(which, later)| {
                received += later * 10;
                (which.get(&reports).clone(), received)
            });
            let mut batches: Vec<Vec<_>> = sizes
                .into_iter()
                .map(|size| arrivals.by_ref().take(size).collect())
                .collect();
            batches.push(arrivals.collect());
            batches
        })
}

fn fact(report: &Report, received: i64, push_id: i64) -> Fact {
    Fact {
        at: effective(
            second(report.occurred),
            second(received),
            TimeSource::Event,
            Origin::Event,
        ),
        received: second(received),
        effect: report.effect.clone(),
        push_id,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn neighbours_decide_as_the_whole_history_does(batches in batches()) {
        let mut oracle = Oracle::default();
        for batch in batches {
            let facts: Vec<(Report, Fact)> = batch.iter().enumerate().map(|(n, (report, received))| (report.clone(), fact(report, *received, n as i64))).collect();
            let mut known = oracle.around(&facts.iter().map(|(_, fact)| fact.at).collect::<Vec<_>>());
            for (report, fact) in facts {
                let before = oracle.revisions.len();
                let Some(expected) = oracle.record(&report, &fact) else { continue };
                let decided = known.record(fact);
                prop_assert_eq!(decided.iter().map(|new| new.revision.clone()).collect::<Vec<_>>(), expected);
                let head = oracle.in_force(second(10_000), oracle.facts.len());
                for (n, new) in decided.iter().enumerate() {
                    // `previous`, `kind` and `head` by brute force.
                    let older = || oracle.revisions.iter().take(before + n).map(|(revision, _)| revision).filter(|revision| revision.at <= new.revision.at);
                    let previous = older().max_by_key(|revision| revision.order());
                    prop_assert_eq!(new.previous.as_ref(), previous);
                    prop_assert_eq!(Some(&new.head), head);
                    let kind = match (previous, &new.revision.digest) {
                        (None, _) => Kind::Created,
                        (_, None) => Kind::Deleted,
                        (Some(previous), Some(_)) if previous.digest.is_none() => Kind::Recreated,
                        (_, Some(digest)) if older().any(|revision| revision.digest.as_ref() == Some(digest)) => Kind::Reverted,
                        _ => Kind::Moved,
                    };
                    prop_assert_eq!(new.kind, kind);
                }
                prop_assert_eq!(known.head.as_ref(), head);
            }
        }
        // The revisions agree with the facts about every time, as of every number of facts.
        for known in 0..=oracle.facts.len() {
            for at in oracle.instants() {
                for at in [at - Duration::MICROSECOND, at, at + Duration::MICROSECOND] {
                    prop_assert_eq!(oracle.in_force(at, known).and_then(|revision| revision.digest.clone()), oracle.timeline(at, known));
                }
            }
        }
        for (n, (revision, _)) in oracle.revisions.iter().enumerate() {
            prop_assert_eq!(revision.number, n as u64 + 1, "numbers have no gap");
        }
    }

    #[test]
    fn order_and_repeats_of_arrival_do_not_matter(
        (first, second_order, repeats) in prop::collection::vec(effect(), 1..14).prop_flat_map(|effects| {
            let facts: Vec<Report> = effects.into_iter().enumerate().map(|(n, effect)| Report { occurred: n as i64, effect }).collect();
            (Just(facts.clone()).prop_shuffle(), Just(facts.clone()).prop_shuffle(), subsequence(facts.clone(), 0..=facts.len()))
        })
    ) {
        let tell = |arrivals: Vec<Report>| {
            let mut oracle = Oracle::default();
            for (n, report) in arrivals.iter().enumerate() {
                // All reports arrive later than their times, so that no time is cut.
                let fact = fact(report, 1000 + n as i64, 0);
                let mut known = oracle.around(&[fact.at]);
                if oracle.record(report, &fact).is_some() {
                    known.record(fact);
                }
            }
            (0..20).map(|at| oracle.in_force(second(at), usize::MAX).and_then(|revision| revision.digest.clone())).collect::<Vec<_>>()
        };
        let once = tell(first);
        let again: Vec<Report> = second_order.iter().chain(&repeats).cloned().collect();
        prop_assert_eq!(&once, &tell(again));
    }
}

fn tell(facts: &[(i64, Effect)]) -> Vec<(u64, i64, &'static str, bool)> {
    let mut known = TagState::default();
    let mut told = Vec::new();
    for (n, (at, effect)) in facts.iter().enumerate() {
        let report = Report {
            occurred: *at,
            effect: effect.clone(),
        };
        for new in known.record(fact(&report, 1000 + n as i64, 0)) {
            let late = new.head.number != new.revision.number;
            told.push((
                new.revision.number,
                (new.revision.at - second(0)).whole_seconds(),
                new.kind.as_str(),
                late,
            ));
        }
    }
    told
}

#[test]
fn a_late_push_and_the_state_after_it_get_numbers() {
    let (a, b) = (Effect::Push(digest(1)), Effect::Push(digest(2)));
    assert_eq!(
        tell(&[(1, a.clone()), (3, a), (2, b)]),
        [
            (1, 1, "created", false),
            (2, 2, "moved", true),
            (3, 3, "reverted", false)
        ]
    );
}

#[test]
fn a_repeated_push_of_the_same_digest_gets_no_number() {
    let a = Effect::Push(digest(1));
    assert_eq!(
        tell(&[(1, a.clone()), (5, a.clone()), (3, a)]),
        [(1, 1, "created", false)]
    );
}

#[test]
fn a_digest_delete_counts_only_if_the_tag_had_that_digest() {
    let (a, b) = (digest(1), digest(2));
    let facts = [
        (1, Effect::Push(a.clone())),
        (2, Effect::DeleteDigest(b)),
        (3, Effect::DeleteDigest(a.clone())),
        (4, Effect::Push(a)),
    ];
    assert_eq!(
        tell(&facts),
        [
            (1, 1, "created", false),
            (2, 3, "deleted", false),
            (3, 4, "recreated", false)
        ]
    );
}

#[test]
fn a_delete_of_a_tag_never_seen_gets_no_number() {
    assert_eq!(
        tell(&[(1, Effect::Delete), (2, Effect::DeleteRepository)]),
        []
    );
}

#[test]
fn a_time_far_ahead_counts_as_the_time_of_receipt() {
    let event = |occurred, received, source| {
        let at = effective(second(occurred), second(received), source, Origin::Event);
        (at - second(0)).whole_seconds()
    };
    assert_eq!(event(71, 10, TimeSource::Event), 10);
    assert_eq!(event(70, 10, TimeSource::Event), 70);
    assert_eq!(event(3, 10, TimeSource::Event), 3);
    // A gateway's clock may be ahead of the stream's.
    assert_eq!(event(15, 10, TimeSource::Received), 10);
    assert_eq!(event(3, 10, TimeSource::Received), 3);
}

#[test]
fn an_answer_may_be_ahead_of_the_stream_as_its_head_is() {
    for origin in [Origin::Resolved, Origin::Reconciled, Origin::Imported] {
        let answer = |occurred| {
            let at = effective(second(occurred), second(10), TimeSource::Received, origin);
            (at - second(0)).whole_seconds()
        };
        assert_eq!(answer(60), 60);
        assert_eq!(answer(500), 70);
    }
}
