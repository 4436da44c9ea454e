//! The candidates of policies: which tags may be selected, of repositories with any number of tags.
//!
//! Postgres holds the best tags of each policy, with this invariant: every tag that the rule
//! accepts and whose key is at least the policy's `floor` is a candidate. News of a tag adds it.
//! After a start, and whenever news may have been lost, each repository is read as a whole, page by
//! page between other plans. Only the planner writes candidates.

mod best;
mod reading;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::PgConnection;
use tagtrail_failpoint::FailPoint;
use tagtrail_policy::agree::Agree;
use tagtrail_policy::choice::{Chosen, PolicyImage};
use tagtrail_policy::selection::{Key, Rule, Times};
use tagtrail_policy::watched::WatchedPolicy;
use tagtrail_proto::{Image, Registry, Repository, Tag};
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};

use self::reading::Reading;
use crate::config::TriggerSpec;
use crate::store::candidates as store;
use crate::store::candidates::{NewCandidate, NewPolicy};
use crate::store::selections::{NewSelection, selections};

/// Candidates above the room of a policy that may wait for a trim.
const SLACK: usize = 100;
/// The most tags whose manifest is looked for, and for how long. Later ones are found in rotation.
const MOST_UNREAD: usize = 1000;
const UNREAD: Duration = Duration::from_secs(5 * 60);
/// The name of a trigger and of an image in it.
pub(super) type ImageName = (String, String);

/// A policy whose candidates are kept.
#[derive(Debug)]
struct Kept {
    registry: Registry,
    repository: Repository,
    rule: Rule,
    floor: Option<Vec<u8>>,
    room: i32,
    /// Candidates added since the last trim, with the room.
    count: usize,
    /// The time at which the whole repository must be read.
    due: Option<Instant>,
    /// The earliest time of another reading that a decision asks for.
    rests_until: Instant,
    /// True if no candidate was added since the repository was read last.
    fresh: bool,
    /// True if a decision asks for the reading.
    wanted: bool,
    /// The time at which the repository was last read.
    filled_at: Option<OffsetDateTime>,
}

/// The policies of all triggers.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    images: BTreeMap<ImageName, PolicyImage>,
    policies: BTreeMap<i32, Kept>,
    /// The value that all images of a trigger must share, by trigger.
    agree: BTreeMap<String, Agree>,
    /// Tags whose manifest is not read yet, of policies that order by the time of the build, with
    /// the time until which they are looked at.
    unread: BTreeMap<(i32, Tag), Instant>,
    /// The repositories that are being read.
    readings: BTreeMap<(Registry, Repository), Reading>,
    rotation: Option<Instant>,
    /// The last policy in rotation.
    last: i32,
}

/// News about the tags of policies.
#[derive(Debug, Default)]
pub(super) struct PolicyNews<'a> {
    /// The tags to add to candidates.
    add: Vec<NewCandidate<'a>>,
    /// The policies over times, each with a tag whose times must be read.
    timed: Vec<(i32, Cow<'a, Tag>)>,
    /// The policies whose selection may change.
    affected: BTreeSet<i32>,
}

impl Candidates {
    /// Reads the selections of the triggers and records their policies. Each policy is filled next,
    /// but for those of `before`: the candidates of a session since whose end nobody has planned.
    pub(super) async fn load<'t>(
        db: &mut PgConnection,
        triggers: impl Iterator<Item = &'t TriggerSpec>,
        before: Option<Candidates>,
    ) -> Result<Candidates, sqlx::Error> {
        let before = before.unwrap_or_default();
        let mut candidates = Candidates {
            policies: before.policies,
            unread: before.unread,
            readings: before.readings,
            rotation: before.rotation,
            last: before.last,
            ..Candidates::default()
        };
        let mut watched = BTreeMap::new();
        for trigger in triggers {
            if let Some(agree) = trigger.agree {
                candidates.agree.insert(trigger.name.clone(), agree);
            }
            for (name, image) in &trigger.images {
                if let Some(policy) = image.policy() {
                    let name = (trigger.name.clone(), name.clone());
                    watched.insert(name, Arc::clone(policy));
                }
            }
        }
        let mut selections = match watched.is_empty() {
            true => BTreeMap::new(),
            false => selections(db).await?,
        };
        for (name, watched) in watched {
            let selection = selections.remove(&name);
            let image = PolicyImage::new(watched, selection);
            candidates.images.insert(name, image);
        }
        candidates.register(db).await?;
        Ok(candidates)
    }

    /// Records the policies that are in use now, and removes those that are not.
    async fn register(&mut self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut rules: BTreeMap<Vec<u8>, (Arc<WatchedPolicy>, Rule)> = BTreeMap::new();
        for image in self.images.values() {
            let (fingerprint, rule) = image.present_rule();
            rules.insert(fingerprint, (Arc::clone(&image.watched), rule));
        }
        let new: Vec<NewPolicy<'_>> = rules
            .iter()
            .map(|(fingerprint, (watched, rule))| NewPolicy {
                fingerprint: fingerprint.clone(),
                registry: &watched.registry,
                repository: &watched.repository,
                rule: rule.canonical(),
            })
            .collect();
        let rows = store::register(db, &new).await?;
        let mut ids = BTreeMap::new();
        let mut policies = BTreeMap::new();
        for row in rows {
            let Some((watched, rule)) = rules.remove(&row.fingerprint) else {
                continue;
            };
            ids.insert(row.fingerprint, row.id);
            let known = self.policies.remove(&row.id);
            let mut kept = known.unwrap_or_else(|| Kept {
                registry: watched.registry.clone(),
                repository: watched.repository.clone(),
                rule,
                count: 0,
                due: Some(Instant::now()),
                rests_until: Instant::now(),
                fresh: false,
                wanted: false,
                filled_at: row.filled_at,
                floor: None,
                room: row.room,
            });
            // A plan that failed may have left another floor.
            kept.floor = row.floor;
            policies.insert(row.id, kept);
        }
        self.policies = policies;
        for image in self.images.values_mut() {
            let id = ids.get(&image.present_rule().0);
            image.policy = id.copied().unwrap_or_default();
        }
        Ok(())
    }

    /// Returns whether one of these triggers has an image with a policy.
    pub(super) fn concern(&self, triggers: &BTreeSet<&str>) -> bool {
        let mut names = self.images.keys();
        !self.images.is_empty() && names.any(|(trigger, _)| triggers.contains(trigger.as_str()))
    }

    /// Returns whether a policy of these triggers holds its trigger when the selected tag changes.
    pub(super) fn may_hold(&self, triggers: &[&str]) -> bool {
        let mut images = triggers.iter().flat_map(|trigger| self.of(trigger));
        images.any(|(_, image)| image.watched.policy.holds())
    }

    /// Notes which images of these triggers a person released after a fault.
    pub(super) fn release(&mut self, triggers: &[&str], released: &BTreeSet<ImageName>) {
        let of = |name: &ImageName| triggers.contains(&name.0.as_str());
        for (name, image) in self.images.iter_mut().filter(|(name, _)| of(name)) {
            image.released = released.contains(name);
        }
    }

    /// Returns the images of a trigger that have policies, by their names.
    pub(super) fn of<'s>(
        &'s self,
        trigger: &str,
    ) -> impl Iterator<Item = (&'s str, &'s PolicyImage)> {
        let trigger = trigger.to_owned();
        self.images
            .range((trigger.clone(), String::new())..)
            .take_while(move |((name, _), _)| *name == trigger)
            .map(|((_, name), image)| (name.as_str(), image))
    }

    /// Returns the value that all images of a trigger must share.
    pub(super) fn agree(&self, trigger: &str) -> Option<Agree> {
        let agree = self.agree.get(trigger).copied();
        agree.filter(|_| !FailPoint::TriggerAgree.skipped())
    }

    /// Returns whether the candidates of a policy are filled.
    pub(super) fn is_filled(&self, policy: i32) -> bool {
        let kept = self.policies.get(&policy);
        kept.is_some_and(|kept| kept.floor.is_some())
    }

    /// Returns the number of candidates that are kept of a policy.
    pub(super) fn room(&self, policy: i32) -> i64 {
        self.policies
            .get(&policy)
            .map_or(0, |kept| kept.room.into())
    }

    /// Returns the effect of news of these images on the policies.
    pub(super) fn news<'i>(&self, images: impl Iterator<Item = &'i Image>) -> PolicyNews<'i> {
        let mut news = PolicyNews::default();
        if self.policies.is_empty() {
            return news;
        }
        for (policy, tag) in self.unread.keys() {
            news.timed.push((*policy, Cow::Owned(tag.clone())));
            news.affected.insert(*policy);
        }
        for image in images {
            for (id, kept) in &self.policies {
                if kept.repository != image.repository || kept.registry != image.registry {
                    continue;
                }
                let Some(floor) = &kept.floor else { continue };
                if !kept.rule.is_over_names() {
                    news.timed.push((*id, Cow::Borrowed(&image.tag)));
                    news.affected.insert(*id);
                    continue;
                }
                let Ok(key) = kept.rule.key(&image.tag, NO_TIMES) else {
                    continue;
                };
                if key.as_bytes() >= floor.as_slice() {
                    news.affected.insert(*id);
                    news.add.push(NewCandidate {
                        policy: *id,
                        tag: Cow::Borrowed(&image.tag),
                        key,
                    });
                }
            }
            for one in self.images.values() {
                let is_selected = |selection: &Chosen| {
                    selection.tag == image.tag
                        && selection.repository == image.repository
                        && selection.registry == image.registry
                };
                if one.selection.as_ref().is_some_and(is_selected) {
                    news.affected.insert(one.policy);
                }
            }
        }
        news
    }

    /// Returns the triggers with one of these policies.
    pub(super) fn triggers_of<'s>(
        &'s self,
        policies: &'s BTreeSet<i32>,
    ) -> impl Iterator<Item = &'s str> {
        self.images
            .iter()
            .filter(|(_, image)| policies.contains(&image.policy))
            .map(|((trigger, _), _)| trigger.as_str())
    }

    /// Adds the tags of news to the candidates.
    pub(super) async fn add(
        &mut self,
        db: &mut PgConnection,
        news: &mut PolicyNews<'_>,
    ) -> Result<(), sqlx::Error> {
        if !news.timed.is_empty() {
            let now = Instant::now();
            self.unread.retain(|_, until| *until > now);
            let tags: Vec<(i32, &Tag)> = news
                .timed
                .iter()
                .map(|(policy, tag)| (*policy, tag.as_ref()))
                .collect();
            for found in store::times(db, &tags).await? {
                let (policy, tag) = (found.policy, found.tag.clone());
                let Some(kept) = self.policies.get(&policy) else {
                    continue;
                };
                if kept.rule.orders_by_build() {
                    if !found.read && self.unread.len() < MOST_UNREAD {
                        self.unread
                            .entry((policy, tag.clone()))
                            .or_insert(now + UNREAD);
                    } else {
                        self.unread.remove(&(policy, tag.clone()));
                        let of = (kept.registry.clone(), kept.repository.clone());
                        if let Some(reading) = self.readings.get_mut(&of) {
                            reading.touch(tag.clone());
                        }
                    }
                }
                let is_better = |key: &Key| {
                    let floor = kept.floor.as_deref();
                    floor.is_some_and(|floor| key.as_bytes() >= floor)
                };
                let key = kept.rule.key(&tag, found.times).ok().filter(is_better);
                let tag = Cow::Owned(tag);
                news.add
                    .extend(key.map(|key| NewCandidate { policy, tag, key }));
            }
        }
        if FailPoint::TriggerCandidate.skipped() {
            news.add.clear();
        }
        match news.add.is_empty() {
            true => Ok(()),
            false => store::add(db, &news.add).await,
        }
    }

    /// Follows up on a recorded plan: keeps the stored selections, and trims policies with too many
    /// candidates.
    pub(super) async fn recorded(
        &mut self,
        db: &mut PgConnection,
        news: &PolicyNews<'_>,
        stored: Vec<(ImageName, NewSelection)>,
    ) -> Result<(), sqlx::Error> {
        let mut relative = false;
        for (name, new) in stored {
            if let Some(image) = self.images.get_mut(&name) {
                relative |= image.watched.policy.rule().is_relative();
                image.selection = Some(new.selection);
            }
        }
        for one in &news.add {
            if let Some(kept) = self.policies.get_mut(&one.policy) {
                kept.count += 1;
                kept.fresh = false;
            }
        }
        let full = |kept: &Kept| kept.count > usize::try_from(kept.room).unwrap_or(0) + SLACK;
        let full: Vec<i32> = self
            .policies
            .iter()
            .filter(|(_, kept)| full(kept))
            .map(|(id, _)| *id)
            .collect();
        if !full.is_empty() {
            let floors = store::trim(db, &full).await?;
            for id in &full {
                if let Some(kept) = self.policies.get_mut(id) {
                    kept.count = usize::try_from(kept.room).unwrap_or(0);
                }
            }
            for (id, floor) in floors {
                if let Some(kept) = self.policies.get_mut(&id) {
                    kept.floor = Some(floor);
                }
            }
        }
        // The candidates of a relative rule are others after another selection.
        if relative {
            self.register(db).await?;
        }
        Ok(())
    }
}

impl PolicyNews<'_> {
    /// The policies whose selection may change.
    pub(super) fn affected(&self) -> &BTreeSet<i32> {
        &self.affected
    }
}

/// The times of a rule over names, which ignores them.
const NO_TIMES: Times = Times {
    pushed: time::OffsetDateTime::UNIX_EPOCH,
    created: None,
};
