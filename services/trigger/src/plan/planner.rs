//! The planner turns heads into rollouts. One instance plans; the others stand by.
//!
//! Planning is level-triggered: after any wake-up, the planner compares the present heads with the
//! last rollout of each trigger. Messages of REVISIONS only wake the planner early.

mod configured;
mod decisions;
mod numbers;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_bus::Bus;
use tagtrail_config::Watched;
use tagtrail_daemon::{Retry, chain, until};
use tagtrail_failpoint::FailPoint;
use tagtrail_postgres::{Lock, check_writable, keep_plans, within};
use tagtrail_proto::{Position, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::TriggerSpec;
use crate::error::Error;
use crate::plan::adoption::Adoptions;
use crate::plan::candidates::Candidates;
use crate::plan::chain;
use crate::plan::conditions;
use crate::plan::news::{Affected, News, read_news};
use crate::plan::question::Questions;
use crate::shared::Shared;
use crate::store::chains as chain_store;
use crate::store::orders as order_store;
use crate::store::planning as store;
use crate::store::specs;
use crate::target::Targets;

use configured::{is_behind, report};

/// The interval at which the planner checks all triggers, in case a message was lost.
const PLAN_ALL_EVERY: Duration = Duration::from_secs(30);
/// The interval of queries for orders of people. The queries also keep the session alive.
const TICK: Duration = Duration::from_millis(500);
/// The pause before a process with older settings than another one looks again.
const BEHIND: Duration = Duration::from_secs(5);

/// Plans until shutdown.
pub(crate) async fn planner(shared: Shared, bus: Bus) -> anyhow::Result<()> {
    let mut retry = Retry::new("planning");
    let mut before = None;
    loop {
        let ended = session(&shared, &bus, &mut before).await;
        shared.metrics.ended_planning();
        let error = match ended {
            Ok(Ended::Shutdown) => return Ok(()),
            Ok(Ended::OtherSettings) => continue,
            Err(error) => error,
        };
        shared.health.set("postgres", Err(chain(&error)));
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
    }
}

/// The candidates at the end of a session, and the position of the last news in them.
type Before = Option<(Candidates, Position)>;

/// Plans in one session, from acquiring the lock to the first error. `before` is from the last
/// session, and changed to that of this one.
async fn session(shared: &Shared, bus: &Bus, before: &mut Before) -> Result<Ended, Error> {
    let Some(mut db) = shared.session_with(Lock::Plan).await? else {
        return Ok(Ended::Shutdown);
    };
    let mut changes = shared.settings.clone();
    let settings = Arc::clone(&changes.borrow_and_update());
    if is_behind(shared, &mut db, &settings).await? {
        // Another process, with newer settings, plans meanwhile.
        within(shared.session_timeout, db.close()).await?;
        shared.health.set("postgres", Ok(()));
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(Ended::Shutdown),
            _ = changes.changed() => {}
            () = tokio::time::sleep(BEHIND) => {}
        }
        return Ok(Ended::OtherSettings);
    }
    let configuring = specs::configure(&mut db, &settings);
    let configured = within(shared.session_timeout, configuring).await?;
    report(shared, &configured);
    shared.configured.notify_one();
    let position = within(shared.session_timeout, store::position(&mut db)).await?;
    let known = before.take().filter(|(_, seen)| has_seen(*seen, position));
    let continues = known.is_some();
    let known = known.map(|(candidates, _)| candidates);
    let loading = Candidates::load(&mut db, settings.triggers.values(), known);
    let candidates = within(shared.session_timeout, loading).await?;
    // The statements above look at all triggers, those of a round at a few.
    within(shared.session_timeout, keep_plans(&mut db, true)).await?;
    tracing::debug!("planning");
    let (sender, mut news) = mpsc::channel(1);
    let mut planner = Planner {
        shared,
        triggers: settings
            .triggers
            .iter()
            .map(|(name, trigger)| (name.as_str(), trigger))
            .collect(),
        targets: &settings.targets,
        asked: &settings.asked,
        db,
        bus,
        settling: BTreeMap::new(),
        candidates,
        questions: Questions::default(),
        adoptions: Adoptions::new(),
        numbers_compared: false,
        continues,
        seen: position,
        upstream: BTreeMap::new(),
    };
    let ended = tokio::select! {
        outcome = planner.run(&mut news) => outcome.map(|()| Ended::Shutdown),
        Ok(()) = changes.changed() => Ok(Ended::OtherSettings),
        never = read_news(bus, position, sender) => match never {},
        never = conditions::follow(shared) => match never {},
    };
    *before = planner.seen.map(|seen| (planner.candidates, seen));
    ended
}

/// Returns whether all news up to `position` came up to `seen` too. Otherwise another process has
/// planned since.
fn has_seen(seen: Position, position: Option<Position>) -> bool {
    position.is_some_and(|position| {
        position.stream_created_ns == seen.stream_created_ns && position.sequence <= seen.sequence
    })
}

/// The end of a session without an error.
enum Ended {
    Shutdown,
    /// The files have changed.
    OtherSettings,
}

struct Planner<'a> {
    shared: &'a Shared,
    triggers: BTreeMap<&'a str, &'a TriggerSpec>,
    /// The targets of the triggers that can be rolled out.
    targets: &'a Targets,
    /// The registries that can be asked.
    asked: &'a BTreeSet<Registry>,
    db: PgConnection,
    bus: &'a Bus,
    /// True once the issued numbers are at least as high as the numbers in ROLLOUTS.
    numbers_compared: bool,
    candidates: Candidates,
    /// True if the candidates follow from all earlier news: until the stream is opened.
    continues: bool,
    /// The position of the last news.
    seen: Option<Position>,
    questions: Questions,
    /// The targets that are asked which images they run.
    adoptions: Adoptions,
    /// The newest success of each trigger that others follow, as of the last look.
    upstream: BTreeMap<String, i64>,
    /// Triggers with closed gates, and the time at which each is checked again.
    settling: BTreeMap<&'a str, Instant>,
}

impl<'a> Planner<'a> {
    async fn run(&mut self, news: &mut mpsc::Receiver<News>) -> Result<(), Error> {
        let timeout = self.shared.session_timeout;
        self.compare_numbers().await?;
        let mut every = tokio::time::interval(TICK.min(self.shared.ping_every()));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Runs during an outage of NATS too: the heads are in the database.
        let mut next_full_plan = Instant::now();
        loop {
            let settled = self.settling.values().min().copied();
            let read = self.candidates.read_at();
            let rotation = self.candidates.rotation();
            let mut traces = BTreeMap::new();
            let (due, position) = tokio::select! {
                () = self.shared.shutdown.cancelled() => return Ok(()),
                Some(News { images, position }) = news.recv() => {
                    let due = self.affected_by(&images);
                    self.seen = Some(position);
                    let before = std::mem::take(&mut self.continues);
                    match images {
                        Affected::Only(images) => traces = images,
                        Affected::All { continues } if continues && before => {}
                        Affected::All { .. } => self.candidates.fill_all(),
                    }
                    self.candidates.touch(traces.keys());
                    (due, Some(position))
                }
                () = until(settled) => (self.settled(), None),
                Some(trigger) = self.adoptions.answered() => {
                    (self.triggers_where(|one| one.name == trigger), None)
                }
                () = until(read) => match self.read_on().await? {
                    due if due.is_empty() => continue,
                    due => (due, None),
                },
                () = until(rotation) => {
                    self.candidates.rotate();
                    continue;
                }
                _ = every.tick() => {
                    // After a failover the heads can be read, and no rollout can be recorded.
                    within(timeout, check_writable(&mut self.db)).await?;
                    let mut ordered = self.ordered().await?;
                    ordered.extend(self.behind_news().await?);
                    self.shared.health.set("postgres", Ok(()));
                    let all = Instant::now() >= next_full_plan;
                    if all {
                        next_full_plan = Instant::now() + PLAN_ALL_EVERY;
                        self.compare_numbers().await?;
                    }
                    (self.triggers_where(|trigger| all || ordered.contains(&trigger.name)), None)
                }
            };
            within(timeout, self.plan(&due, position, &traces)).await?;
        }
    }

    /// Carries out the orders to retry and to cancel, and returns the names of resumed triggers and
    /// of those with other orders.
    async fn ordered(&mut self) -> Result<BTreeSet<String>, Error> {
        let timeout = self.shared.session_timeout;
        if !within(timeout, store::is_asked(&mut self.db)).await? {
            return Ok(BTreeSet::new());
        }
        let ordered = within(timeout, store::ordered(&mut self.db)).await?;
        let retries = ordered.iter().filter(|trigger| trigger.retry);
        let retries: Vec<i32> = retries.map(|trigger| trigger.id).collect();
        if !retries.is_empty() {
            within(timeout, store::retry(&mut self.db, &retries)).await?;
            let retries = ordered.iter().filter(|trigger| trigger.retry);
            let retries = retries.map(|trigger| (trigger.id, trigger.name.clone()));
            self.shared.queue(retries);
            self.shared.entries_recorded.notify_one();
        }
        let cancelled = within(timeout, order_store::cancel(&mut self.db)).await?;
        let was_cancelled = !cancelled.is_empty();
        if was_cancelled {
            self.shared.queue(cancelled.into_iter());
            self.shared.entries_recorded.notify_one();
        }
        if !retries.is_empty() || was_cancelled {
            FailPoint::TriggerOrdered.pass();
        }
        within(timeout, order_store::renumber(&mut self.db)).await?;
        let mut due = within(timeout, order_store::due(&mut self.db)).await?;
        let resuming = ordered.into_iter().filter(|trigger| trigger.resuming);
        due.extend(resuming.map(|trigger| trigger.name));
        Ok(due)
    }

    /// Returns the names of the triggers that follow one with a new success.
    async fn behind_news(&mut self) -> Result<BTreeSet<String>, Error> {
        let names: Vec<&str> = chain::upstream(self.triggers.values().copied())
            .into_iter()
            .collect();
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let reading = chain_store::newest(&mut self.db, &names);
        let newest = within(self.shared.session_timeout, reading).await?;
        let before = std::mem::replace(&mut self.upstream, newest);
        let is_new = |name: &String| self.upstream.get(name) != before.get(name);
        let follows = |trigger: &&&TriggerSpec| {
            let follow = trigger.gates.follow.as_ref();
            follow.is_some_and(|follow| follow.upstream.iter().any(is_new))
        };
        let behind = self.triggers.values().filter(follows);
        Ok(behind.map(|trigger| trigger.name.clone()).collect())
    }

    /// Reads a page of a repository for policies, and returns the triggers whose policies have
    /// other candidates.
    async fn read_on(&mut self) -> Result<BTreeSet<&'a str>, Error> {
        let reading = self.candidates.read_on(&mut self.db);
        let replaced = within(self.shared.session_timeout, reading).await?;
        for one in &replaced {
            self.shared.metrics.policy_repaired(one.missed);
        }
        let policies = replaced.into_iter().map(|one| one.policy).collect();
        Ok(self.triggers_with(&policies))
    }

    fn triggers_with(&self, policies: &BTreeSet<i32>) -> BTreeSet<&'a str> {
        let names = self.candidates.triggers_of(policies);
        let names = names.filter_map(|name| self.triggers.get_key_value(name));
        names.map(|(name, _)| *name).collect()
    }

    fn triggers_where(&self, wanted: impl Fn(&TriggerSpec) -> bool) -> BTreeSet<&'a str> {
        self.triggers
            .iter()
            .filter(|(_, trigger)| wanted(trigger))
            .map(|(name, _)| *name)
            .collect()
    }

    fn affected_by(&self, news: &Affected) -> BTreeSet<&'a str> {
        self.triggers_where(|trigger| match news {
            Affected::All { .. } => true,
            Affected::Only(images) => trigger
                .images
                .values()
                .filter_map(Watched::tag)
                .any(|image| images.contains_key(image)),
        })
    }

    fn settled(&self) -> BTreeSet<&'a str> {
        let now = Instant::now();
        self.settling
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| *name)
            .collect()
    }
}
