//! Evaluates the gates of recorded rollouts, and of those that a plan will record.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use tagtrail_policy::begin::{Facts, Verdict, evaluate};
use tagtrail_proto::{CauseReason, ClosedGate, RolloutImage};
use time::OffsetDateTime;

use crate::store::gates::{self as store, Change, Live};
use crate::store::orders::Standing;
use crate::store::planning::Plan;

/// A trigger whose gates are evaluated.
pub(super) struct Round<'a> {
    pub(super) name: &'a str,
    pub(super) id: i32,
    /// While paused nothing begins, and the gates stay as they are.
    pub(super) paused: bool,
    pub(super) now: OffsetDateTime,
    pub(super) standing: Standing,
}

/// The closed gates of a trigger after an evaluation.
pub(super) struct Evaluated<'a> {
    pub(super) name: &'a str,
    pub(super) now: OffsetDateTime,
    pub(super) gates: Vec<ClosedGate>,
    /// The time of the next evaluation.
    pub(super) again: Option<OffsetDateTime>,
}

/// A rollout in question.
enum Subject<'r> {
    /// The place in the new rollouts of the plan.
    New(usize),
    Live(&'r Live),
}

/// Evaluates the gates: the new rollouts of the plan get their verdicts, and the plan gets the
/// verdicts about recorded rollouts that differ from the recorded ones.
pub(super) async fn gate<'a>(
    db: &mut PgConnection,
    plan: &mut Plan,
    rounds: &[Round<'a>],
) -> Result<Vec<Evaluated<'a>>, sqlx::Error> {
    let mut subjects = Vec::new();
    for round in rounds.iter().filter(|round| !round.paused) {
        let new = plan.new_rollouts.iter();
        let new = new.enumerate().find(|(_, new)| new.trigger == round.id);
        // The new rollout supersedes those that have not begun.
        let live = round.standing.live.iter();
        let live = live.filter(|live| new.is_none() || live.attempts > 0);
        subjects.extend(live.map(|live| (round, Subject::Live(live))));
        subjects.extend(
            new.filter(|(_, new)| new.cause.reason != CauseReason::Adopted)
                .map(|(place, _)| (round, Subject::New(place))),
        );
    }
    let known = known(db, plan, &subjects).await?;
    let mut evaluated: BTreeMap<&str, Evaluated<'a>> = BTreeMap::new();
    for (place, (round, subject)) in subjects.iter().enumerate() {
        let (none, order) = (Vec::new(), round.standing.order.as_ref());
        let (images, begun, skip) = match subject {
            Subject::Live(live) => (&live.images, live.attempts > 0, &live.skip),
            Subject::New(place) => {
                let skip = order.map_or(&none, |order| &order.skip);
                (&plan.new_rollouts[*place].images, false, skip)
            }
        };
        let facts = Facts {
            now: round.now,
            images,
            begun,
            ordered: is_ordered(plan, subject),
            skip,
            known: known.get(&place).copied().unwrap_or(false),
            holds: &round.standing.holds,
        };
        let before = match subject {
            Subject::Live(live) => live.gates(),
            Subject::New(_) => Vec::new(),
        };
        let verdict = evaluate(&facts, &before);
        // Of a trigger with two live rollouts the newer one is shown.
        let shown = evaluated.entry(round.name).or_insert(Evaluated {
            name: round.name,
            now: round.now,
            gates: Vec::new(),
            again: None,
        });
        shown.gates.clone_from(&verdict.gates);
        shown.again = shown.again.into_iter().chain(verdict.again).min();
        match subject {
            Subject::New(place) => plan.new_rollouts[*place].verdict = verdict,
            Subject::Live(live) if differs(live, &before, &verdict) => {
                plan.gates.push(Change {
                    trigger: round.id,
                    name: round.name.to_owned(),
                    rollout: live.id,
                    verdict,
                });
            }
            Subject::Live(_) => {}
        }
    }
    for round in rounds {
        evaluated.entry(round.name).or_insert(Evaluated {
            name: round.name,
            now: round.now,
            gates: Vec::new(),
            again: None,
        });
    }
    Ok(evaluated.into_values().collect())
}

fn is_ordered(plan: &Plan, subject: &Subject<'_>) -> bool {
    match subject {
        Subject::Live(live) => live.ordered,
        Subject::New(place) => plan.new_rollouts[*place].order.is_some(),
    }
}

/// Returns whether the images of ordered rollouts have succeeded before, by the places of the
/// subjects. Only a closed gate makes a difference, so mostly nothing is read.
async fn known(
    db: &mut PgConnection,
    plan: &Plan,
    subjects: &[(&Round<'_>, Subject<'_>)],
) -> Result<BTreeMap<usize, bool>, sqlx::Error> {
    let asked: Vec<(usize, i32, &BTreeMap<String, RolloutImage>)> = subjects
        .iter()
        .enumerate()
        .filter(|(_, (round, subject))| {
            is_ordered(plan, subject) && !round.standing.holds.is_empty()
        })
        .map(|(place, (round, subject))| {
            let images = match subject {
                Subject::Live(live) => &live.images,
                Subject::New(new) => &plan.new_rollouts[*new].images,
            };
            (place, round.id, images)
        })
        .collect();
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sets: Vec<_> = asked.iter().map(|(_, id, images)| (*id, *images)).collect();
    let known = store::known(db, &sets).await?;
    Ok(asked.iter().map(|(place, ..)| *place).zip(known).collect())
}

fn differs(live: &Live, before: &[ClosedGate], verdict: &Verdict) -> bool {
    let state = match live.attempts {
        0 => verdict.state,
        _ => live.state,
    };
    let recorded = (live.state, before, live.opens_at, live.closes_at);
    recorded != (state, &verdict.gates, verdict.opens_at, verdict.closes_at)
}
