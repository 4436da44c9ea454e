//! Evaluates the gates of recorded rollouts, and of those that a plan will record.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::begin::{Facts, Settings, Verdict, evaluate};
use tagtrail_proto::RolloutState::{Pending, Running, Watching};
use tagtrail_proto::{CauseReason, ClosedGate, RolloutImage};
use time::OffsetDateTime;

use crate::config::TriggerSpec;
use crate::store::gates::{self as store, Asked, Change, Live, OfSet};
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
    pub(super) settings: &'a Settings,
}

/// The closed gates of a trigger after an evaluation.
pub(super) struct Evaluated<'a> {
    pub(super) name: &'a str,
    pub(super) now: OffsetDateTime,
    /// Of several live rollouts, those of the newest one.
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

impl Subject<'_> {
    fn images<'s>(&'s self, plan: &'s Plan) -> &'s BTreeMap<String, RolloutImage> {
        match self {
            Subject::New(place) => &plan.new_rollouts[*place].images,
            Subject::Live(live) => &live.images,
        }
    }

    fn is_ordered(&self, plan: &Plan) -> bool {
        match self {
            Subject::New(place) => plan.new_rollouts[*place].order.is_some(),
            Subject::Live(live) => live.ordered,
        }
    }

    fn has_begun(&self) -> bool {
        matches!(self, Subject::Live(live) if live.attempts > 0)
    }
}

/// Evaluates the gates: the new rollouts of the plan get their verdicts, and the plan gets the
/// verdicts about recorded rollouts that differ from the recorded ones.
pub(super) async fn gate<'a>(
    db: &mut PgConnection,
    plan: &mut Plan,
    triggers: &BTreeMap<&str, &TriggerSpec>,
    rounds: &[Round<'a>],
) -> Result<Vec<Evaluated<'a>>, sqlx::Error> {
    let subjects: Vec<_> = rounds.iter().map(|round| subjects(plan, round)).collect();
    let mut facts = of_sets(db, plan, rounds, &subjects).await?.into_iter();
    let mut groups = Groups::read(db, triggers, rounds, &subjects).await?;
    let mut evaluated = Vec::with_capacity(rounds.len());
    for (round, subjects) in rounds.iter().zip(&subjects) {
        let (mut gates, mut again) = (Vec::new(), None);
        let live = &round.standing.live;
        let mut busy = live
            .iter()
            .any(|live| matches!(live.state, Running | Watching));
        for subject in subjects {
            let of_set = match is_asked(plan, round, subject) {
                true => facts.next().unwrap_or_default(),
                false => OfSet::default(),
            };
            let before = match subject {
                Subject::Live(live) => live.gates(),
                Subject::New(_) => Vec::new(),
            };
            let verdict = judge(plan, round, subject, &of_set, &before, &groups);
            busy |= !subject.has_begun() && verdict.state == Pending;
            again = again.into_iter().chain(verdict.again).min();
            gates.clone_from(&verdict.gates);
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
        groups.set(round, busy);
        evaluated.push(Evaluated {
            name: round.name,
            now: round.now,
            gates,
            again,
        });
    }
    Ok(evaluated)
}

/// Returns the rollouts of a trigger that need a verdict, the newest one last.
fn subjects<'r>(plan: &Plan, round: &'r Round<'_>) -> Vec<Subject<'r>> {
    if round.paused {
        return Vec::new();
    }
    let new = plan.new_rollouts.iter().enumerate();
    let new = new
        .filter(|(_, new)| new.trigger == round.id)
        .map(|(place, new)| (place, new.cause.reason == CauseReason::Adopted))
        .next();
    // A new rollout supersedes those that have not begun. Adopted images are not sent.
    let live = round.standing.live.iter();
    let live = live.filter(|live| new.is_none() || live.attempts > 0);
    let new = new.filter(|(_, adopted)| !adopted);
    live.map(Subject::Live)
        .chain(new.map(|(place, _)| Subject::New(place)))
        .collect()
}

fn judge(
    plan: &Plan,
    round: &Round<'_>,
    subject: &Subject<'_>,
    of_set: &OfSet,
    before: &[ClosedGate],
    groups: &Groups,
) -> Verdict {
    let order = round.standing.order.as_ref();
    let skip = match subject {
        Subject::Live(live) => live.skip.as_slice(),
        Subject::New(_) => order.map_or(&[][..], |order| &order.skip),
    };
    let settings = in_force(round.settings);
    let facts = Facts {
        now: round.now,
        images: subject.images(plan),
        begun: subject.has_begun(),
        ordered: subject.is_ordered(plan),
        skip,
        known: of_set.known,
        holds: match FailPoint::TriggerHold.skipped() {
            false => &round.standing.holds,
            true => &[],
        },
        settings: &settings,
        last_begun: round.standing.last_begun,
        busy: groups.busy(round),
        approvals: &of_set.approvals,
        rejected: (of_set.rejected.as_deref()).filter(|_| !FailPoint::TriggerRejection.skipped()),
    };
    evaluate(&facts, before)
}

/// Returns the settings without those whose gate a test leaves out.
fn in_force(settings: &Settings) -> Cow<'_, Settings> {
    let mut settings = Cow::Borrowed(settings);
    if FailPoint::TriggerWindow.skipped() {
        settings.to_mut().window = None;
    }
    if FailPoint::TriggerGap.skipped() {
        settings.to_mut().gap = None;
    }
    if FailPoint::TriggerGroup.skipped() {
        settings.to_mut().group = None;
    }
    if FailPoint::TriggerApproval.skipped() {
        settings.to_mut().approvals = None;
    }
    settings
}

/// Returns whether the facts about the images of a rollout matter. Mostly they do not.
fn is_asked(plan: &Plan, round: &Round<'_>, subject: &Subject<'_>) -> bool {
    let Settings {
        window, approvals, ..
    } = round.settings;
    // An order for known images passes these gates.
    let passable = !round.standing.holds.is_empty() || window.is_some() || approvals.is_some();
    approvals.is_some() && !subject.has_begun() || passable && subject.is_ordered(plan)
}

async fn of_sets(
    db: &mut PgConnection,
    plan: &Plan,
    rounds: &[Round<'_>],
    subjects: &[Vec<Subject<'_>>],
) -> Result<Vec<OfSet>, sqlx::Error> {
    let mut asked = Vec::new();
    for (round, subjects) in rounds.iter().zip(subjects) {
        let subjects = subjects.iter();
        let of_round = subjects.filter(|subject| is_asked(plan, round, subject));
        asked.extend(of_round.map(|subject| Asked {
            trigger: round.id,
            images: subject.images(plan),
            rollout: match subject {
                Subject::Live(live) => Some(live.id),
                Subject::New(_) => None,
            },
        }));
    }
    match asked.is_empty() {
        true => Ok(Vec::new()),
        false => store::of_sets(db, &asked).await,
    }
}

/// The triggers of each group that are rolled out.
struct Groups(BTreeMap<String, BTreeSet<String>>);

impl Groups {
    async fn read(
        db: &mut PgConnection,
        triggers: &BTreeMap<&str, &TriggerSpec>,
        rounds: &[Round<'_>],
        subjects: &[Vec<Subject<'_>>],
    ) -> Result<Groups, sqlx::Error> {
        let rounds = rounds.iter().zip(subjects);
        let wanted: BTreeSet<&String> = rounds
            .filter(|(_, subjects)| !subjects.is_empty())
            .filter_map(|(round, _)| round.settings.group.as_ref())
            .collect();
        if wanted.is_empty() {
            return Ok(Groups(BTreeMap::new()));
        }
        let group = |name: &&str| {
            let group = triggers.get(*name)?.gates.group.as_ref()?;
            wanted.contains(group).then_some(group)
        };
        let names: Vec<&str> = triggers.keys().copied().collect();
        let members: Vec<&str> = names
            .into_iter()
            .filter(|name| group(name).is_some())
            .collect();
        let mut groups = Groups(BTreeMap::new());
        for name in store::busy(db, &members).await? {
            if let Some(group) = group(&name.as_str()) {
                groups.0.entry(group.clone()).or_default().insert(name);
            }
        }
        Ok(groups)
    }

    /// Returns another trigger of the group that is rolled out.
    fn busy(&self, round: &Round<'_>) -> Option<&str> {
        let mut busy = self.0.get(round.settings.group.as_ref()?)?.iter();
        busy.find(|name| *name != round.name).map(String::as_str)
    }

    fn set(&mut self, round: &Round<'_>, busy: bool) {
        let Some(group) = &round.settings.group else {
            return;
        };
        let group = self.0.entry(group.clone()).or_default();
        match busy {
            true => group.insert(round.name.to_owned()),
            false => group.remove(round.name),
        };
    }
}

fn differs(live: &Live, before: &[ClosedGate], verdict: &Verdict) -> bool {
    let state = match live.attempts {
        0 => verdict.state,
        _ => live.state,
    };
    let recorded = (live.state, before, live.opens_at, live.closes_at);
    recorded != (state, &verdict.gates, verdict.opens_at, verdict.closes_at)
}
