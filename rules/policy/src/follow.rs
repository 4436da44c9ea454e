//! The set that a trigger takes over from triggers before it in a chain.
//!
//! The newest set counts that succeeded upstream, not by a rollback, and stayed current there for
//! the time `soak`. An upstream rollback revokes the set that it left: the set is offered no
//! longer. The trigger never goes back by itself, so it keeps a revoked set that it has.

mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_proto::{Digest, RolloutImage};
use time::OffsetDateTime;

pub use settings::FollowSettings;

/// Which sets a trigger takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The names of the upstream triggers.
    pub upstream: Vec<String>,
    /// True if a set must have lasted at all of them; otherwise one is enough.
    pub all: bool,
    /// The time for which a set must have been current.
    pub soak: Duration,
}

/// A rollout of an upstream trigger that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// Number of the rollout.
    pub number: u64,
    /// The images, by their names in the trigger.
    pub images: BTreeMap<String, RolloutImage>,
    /// Time of the success.
    pub at: OffsetDateTime,
    /// True if a person ordered an earlier set again.
    pub rollback: bool,
}

/// The answer of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The set to have. `None`: no set has lasted, or the one that has is older than the set of the
    /// trigger.
    pub set: Option<FollowedSet>,
    /// A newer set that has not lasted long enough yet.
    pub waits: Option<Waits>,
    /// The upstream triggers whose rollbacks left the trigger's own set, if so many did that the
    /// set would not be taken over any more.
    pub revoked_by: Vec<String>,
}

/// A set that has lasted upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedSet {
    /// The images, by their names in the trigger.
    pub images: BTreeMap<String, RolloutImage>,
    /// The upstream rollouts of the set: trigger and number.
    pub from: BTreeMap<String, u64>,
    /// The time at which the set had lasted long enough.
    pub lasted_at: OffsetDateTime,
}

/// A set that has not lasted long enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Name of the upstream trigger.
    pub upstream: String,
    /// Number of its rollout.
    pub number: u64,
    /// The images, by their names in the trigger.
    pub images: BTreeMap<String, RolloutImage>,
    /// The time of the success.
    pub since: OffsetDateTime,
    /// The time at which the set has lasted, unless another one replaces it.
    pub opens_at: OffsetDateTime,
}

/// The identity of a set: names and digests.
type Key<'a> = Vec<(&'a str, &'a Digest)>;

/// A time in which a set was current upstream without a break.
struct Run<'a> {
    key: Key<'a>,
    images: &'a BTreeMap<String, RolloutImage>,
    number: u64,
    at: OffsetDateTime,
    opens_at: OffsetDateTime,
    lasted: bool,
    /// True if a rollback left the set.
    left: bool,
    /// True if another set replaced this one before it had lasted.
    over: bool,
}

impl Run<'_> {
    fn counts(&self) -> bool {
        !self.left && !self.over
    }
}

/// Decides which set a trigger has to have. `successes` are those of each upstream trigger, in any
/// order, and `last` the images of the trigger's last rollout.
#[must_use]
pub fn followed(
    follow: &Follow,
    successes: &BTreeMap<String, Vec<Success>>,
    last: Option<&BTreeMap<String, RolloutImage>>,
    now: OffsetDateTime,
) -> Followed {
    let runs: Vec<(&str, Vec<Run<'_>>)> = follow
        .upstream
        .iter()
        .map(|name| {
            let of = successes.get(name).map(Vec::as_slice);
            (
                name.as_str(),
                runs(of.unwrap_or_default(), follow.soak, now),
            )
        })
        .collect();
    // The place of the trigger's own set, also if it is revoked meanwhile.
    let own_key = last.map(key);
    let own = own_key.clone().and_then(|own| {
        let all = runs.iter().flat_map(|(_, runs)| runs);
        all.filter(|run| run.key == own).map(|run| run.at).max()
    });
    let is_newer = |at: OffsetDateTime| own.is_none_or(|own| at >= own);
    let good = |run: &&Run<'_>| run.counts() && is_newer(run.at);

    let mut best: Option<(OffsetDateTime, FollowedSet)> = None;
    for run in runs.iter().flat_map(|(_, runs)| runs).filter(good) {
        let same = runs.iter().map(|(name, runs)| {
            let lasted = |one: &&Run<'_>| one.lasted && one.counts() && one.key == run.key;
            (*name, runs.iter().rev().find(lasted))
        });
        let same: Vec<(&str, Option<&Run<'_>>)> = same.collect();
        let found = same.iter().filter_map(|(name, run)| Some((*name, (*run)?)));
        let found: Vec<(&str, &Run<'_>)> = found.collect();
        if found.is_empty() || follow.all && found.len() < same.len() {
            continue;
        }
        let newest = found.iter().map(|(_, run)| run.at).max().unwrap_or(run.at);
        // One upstream trigger is enough for `any`, and the last one counts for `all`.
        let opened = found.iter().map(|(_, run)| run.opens_at);
        let lasted_at = if follow.all {
            opened.max()
        } else {
            opened.min()
        };
        if best.as_ref().is_none_or(|(at, _)| *at < newest) {
            let from = found
                .iter()
                .map(|(name, run)| ((*name).to_owned(), run.number));
            let set = FollowedSet {
                images: run.images.clone(),
                from: from.collect(),
                lasted_at: lasted_at.unwrap_or(now),
            };
            best = Some((newest, set));
        }
    }
    let after = best.as_ref().map(|(at, _)| *at);
    let waits = runs.iter().filter_map(|(name, runs)| {
        let run = runs.last()?;
        let newer = after.is_none_or(|at| run.at > at);
        (good(&run) && !run.lasted && newer).then(|| Waits {
            upstream: (*name).to_owned(),
            number: run.number,
            images: run.images.clone(),
            since: run.at,
            opens_at: run.opens_at,
        })
    });
    let (mut with_own, mut revoked_by) = (0, Vec::new());
    for (name, runs) in &runs {
        let newest = runs
            .iter()
            .rev()
            .find(|run| Some(&run.key) == own_key.as_ref());
        with_own += usize::from(newest.is_some());
        if newest.is_some_and(|run| run.left) {
            revoked_by.push((*name).to_owned());
        }
    }
    if !follow.all && revoked_by.len() < with_own {
        revoked_by.clear();
    }
    Followed {
        revoked_by,
        waits: waits.min_by_key(|waits| waits.opens_at),
        set: best.map(|(_, set)| set),
    }
}

/// Returns the times in which each set was current, in order. Those of a rollback are left out.
fn runs(successes: &[Success], soak: Duration, now: OffsetDateTime) -> Vec<Run<'_>> {
    let mut ordered: Vec<&Success> = successes.iter().collect();
    ordered.sort_by_key(|success| success.number);
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut current: Option<Key<'_>> = None;
    for (place, success) in ordered.iter().enumerate() {
        let next = ordered.get(place + 1);
        let key = key(&success.images);
        let until = next.map_or(now, |next| next.at);
        if success.rollback {
            // The set that the rollback leaves is revoked.
            if let Some(left) = current.filter(|left| *left != key) {
                let of_it = runs.iter_mut().filter(|run| run.key == left);
                of_it.for_each(|run| run.left = true);
            }
            current = Some(key);
            continue;
        }
        let goes_on = current.as_ref() == Some(&key);
        match runs.last_mut().filter(|run| goes_on && run.key == key) {
            // Deployed again: the set has been current all the time.
            Some(run) => {
                run.number = success.number;
                run.lasted |= until - run.at >= soak;
            }
            None => runs.push(Run {
                key: key.clone(),
                images: &success.images,
                number: success.number,
                at: success.at,
                opens_at: success.at + soak,
                lasted: until - success.at >= soak,
                left: false,
                over: false,
            }),
        }
        current = Some(key);
    }
    // A run that is over without having lasted never will have.
    let last = runs.last().map(|run| run.at);
    let goes_on = |run: &Run<'_>| Some(run.at) == last && current.as_ref() == Some(&run.key);
    let over: Vec<bool> = runs
        .iter()
        .map(|run| !run.lasted && !goes_on(run))
        .collect();
    for (run, over) in runs.iter_mut().zip(over) {
        run.over = over;
    }
    runs
}

fn key(images: &BTreeMap<String, RolloutImage>) -> Key<'_> {
    let each = images.iter();
    each.map(|(name, image)| (name.as_str(), &image.digest))
        .collect()
}

#[cfg(test)]
mod tests;
