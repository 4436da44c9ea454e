//! The images of triggers that follow others, and the gate `upstream`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_condition::Wanted;
use tagtrail_config::Watched;
use tagtrail_policy::decide::{Decision, Selected};
use tagtrail_policy::follow::{Follow, Followed, Success, Waits, followed};
use tagtrail_policy::gates::{Head, ManifestState};
use tagtrail_proto::{Gate, Origin, Reason, ReasonCode, RolloutImage, Waiting};
use time::OffsetDateTime;

use crate::config::TriggerSpec;
use crate::store::chains as store;
use crate::store::orders::{Kind, Standing};
use crate::store::states::{TriggerState, View};

/// The sets of the triggers that others follow, of one round.
#[derive(Debug, Default)]
pub(super) struct Chains {
    successes: BTreeMap<String, Vec<Success>>,
}

/// The set that a trigger takes over.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    follow: &'a Follow,
    found: Followed,
    /// The images as the decision sees them: as if the trigger had watched them itself.
    pub(super) images: BTreeMap<String, Watched>,
    pub(super) selected: BTreeMap<String, Selected>,
    /// The gate that keeps a newer set away.
    waiting: Option<Waiting>,
}

/// Returns the names of all triggers that some of these follow.
pub(super) fn upstream<'a>(triggers: impl Iterator<Item = &'a TriggerSpec>) -> BTreeSet<&'a str> {
    let follows = triggers.filter_map(|trigger| trigger.gates.follow.as_ref());
    let names = follows.flat_map(|follow| &follow.upstream);
    names.map(String::as_str).collect()
}

impl Chains {
    /// Reads the sets of the triggers that these follow: all in one statement, or none.
    pub(super) async fn read<'a>(
        db: &mut PgConnection,
        triggers: impl Iterator<Item = &'a TriggerSpec>,
    ) -> Result<Chains, sqlx::Error> {
        let names: Vec<&str> = upstream(triggers).into_iter().collect();
        Ok(match names.is_empty() {
            true => Chains::default(),
            false => Chains {
                successes: store::successes(db, &names).await?,
            },
        })
    }

    /// Returns the set that a trigger takes over; `None` for a trigger with images of its own.
    pub(super) fn of<'a>(
        &self,
        trigger: &'a TriggerSpec,
        state: &TriggerState,
        standing: &Standing,
        now: OffsetDateTime,
    ) -> Option<Chain<'a>> {
        let follow = trigger.gates.follow.as_ref()?;
        let found = followed(follow, &self.successes, state.last.as_ref(), now);
        let skips = standing.order.as_ref().is_some_and(|order| {
            let skipped = || {
                order
                    .skip
                    .iter()
                    .any(|word| word == Gate::Upstream.as_str())
            };
            order.kind == Kind::Rollout && order.images.is_none() && skipped()
        });
        let newer = found.waits.as_ref().filter(|_| skips);
        let (set, at) = match (newer, &found.set) {
            (Some(waits), _) => (Some(&waits.images), waits.since),
            (None, Some(set)) => (Some(&set.images), set.lasted_at),
            (None, None) => (None, now),
        };
        let (mut images, mut selected) = (BTreeMap::new(), BTreeMap::new());
        for (name, image) in set.into_iter().flatten() {
            images.insert(name.clone(), Watched::Tag(image.image.clone()));
            selected.insert(
                name.clone(),
                Selected::tag(image.image.clone(), head(image, at)),
            );
        }
        let waits = found.waits.as_ref().filter(|_| newer.is_none());
        Some(Chain {
            waiting: waits.and_then(|waits| waiting(waits, follow, state.last.as_ref())),
            follow,
            images,
            selected,
            found,
        })
    }
}

impl Chain<'_> {
    /// Adds the gate of a newer set to a decision.
    pub(super) fn add_gate(&self, decision: Decision) -> Decision {
        let Some(closed) = &self.waiting else {
            return decision;
        };
        match (decision, closed.opens_at) {
            (Decision::Nothing { mut waiting }, Some(again)) => {
                waiting.push(closed.clone());
                Decision::Wait { again, waiting }
            }
            (Decision::Wait { again, mut waiting }, opens_at) => {
                waiting.push(closed.clone());
                let again = opens_at.map_or(again, |opens_at| opens_at.min(again));
                Decision::Wait { again, waiting }
            }
            (decision, _) => decision,
        }
    }

    /// Returns the time at which a newer set will have lasted.
    pub(super) fn opens_at(&self) -> Option<OffsetDateTime> {
        self.found.waits.as_ref().map(|waits| waits.opens_at)
    }

    /// Returns the reason for which a rollout of the trigger's last set must not begin any more.
    pub(super) fn revoked(&self) -> Option<String> {
        let by = self.found.revoked_by.first()?;
        Some(format!("{by} was rolled back from these images"))
    }

    /// Returns the text of an answer to an order that finds no set.
    pub(super) fn nothing(&self, name: &str) -> String {
        format!(
            "nothing is rolled out: {}; `tagtrail status {name}` shows more",
            self.why()
        )
    }

    /// Completes the view of a trigger without a set to take over.
    pub(super) fn complete(&self, view: &mut View, state: &TriggerState, now: OffsetDateTime) {
        if self.found.set.is_some() || view.wanted != Wanted::Nothing {
            return;
        }
        // The trigger keeps the set that it has.
        if state.last.is_some() {
            view.wanted = Wanted::Last;
            return;
        }
        if self.waiting.is_none() {
            let mut reason = Reason::new(ReasonCode::Upstream, self.why());
            let before = state.view.reasons.iter().find(|one| one.is_like(&reason));
            reason.since = before.and_then(|before| before.since).or(Some(now));
            let cure = "a rollout must succeed there, by itself and not by a person's choice of an earlier set";
            reason.cure = Some(cure.to_owned());
            view.reasons.push(reason);
        }
    }

    fn why(&self) -> String {
        let names = self.follow.upstream.join(", ");
        let soak = match self.follow.soak {
            Duration::ZERO => String::new(),
            soak => format!(" and stayed for {soak:?}"),
        };
        match (self.follow.upstream.len(), self.follow.all) {
            (1, _) => format!("no set of {names} that counts has succeeded{soak}"),
            (_, true) => format!("no set has succeeded{soak} at all of {names}"),
            (_, false) => format!("no set has succeeded{soak} at any of {names}"),
        }
    }
}

fn waiting(
    waits: &Waits,
    follow: &Follow,
    last: Option<&BTreeMap<String, RolloutImage>>,
) -> Option<Waiting> {
    let before = |name: &String| last.and_then(|last| last.get(name)).map(|one| &one.digest);
    let mut images = waits.images.iter();
    let changed = images.find(|(name, image)| before(name) != Some(&image.digest));
    // A set that the trigger has already waits for nothing.
    let (_, image) = changed?;
    let Waits {
        upstream, number, ..
    } = waits;
    let soak = follow.soak;
    Some(Waiting {
        gate: Gate::Upstream,
        registry: image.image.registry.clone(),
        image: image.image.clone(),
        why: format!(
            "rollout {number} of {upstream} has succeeded, and has not stayed for {soak:?} yet"
        ),
        since: waits.since,
        opens_at: Some(waits.opens_at),
    })
}

/// Returns the image as a head that no gate about heads holds: it ran upstream.
fn head(image: &RolloutImage, at: OffsetDateTime) -> Head {
    Head {
        revision: image.revision,
        digest: Some(image.digest.clone()),
        origin: Origin::Event,
        own_time: true,
        held_before: false,
        confirmed_at: None,
        manifest: ManifestState::Read,
        recorded_at: at,
    }
}
