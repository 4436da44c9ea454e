//! The keeper looks after attempts while they run: it stores the output so far, ends attempts whose
//! rollout was cancelled, and ends those that this process must not go on with because it has lost
//! its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tagtrail_daemon::Retry;
use tagtrail_postgres::within;
use tokio::time::Instant;

use super::attempt::Stop;
use super::takeover::Takeover;
use crate::error::Error;
use crate::shared::Shared;
use crate::store::attempts::{self as store, Key};

/// The interval of looks.
const EVERY: Duration = Duration::from_secs(1);
/// The time without a lock after which attempts at targets that take a repeated attempt without
/// harm are dropped. Other processes take them over 10 s after the lock was freed.
const DROP: Duration = Duration::from_secs(8);
/// The time by which commands are ended before others may take them over.
const EARLIER: Duration = Duration::from_secs(5);

/// Looks after attempts until all have ended after a stop request.
pub(crate) async fn keeper(shared: Shared) -> anyhow::Result<()> {
    let mut keeper = Keeper::default();
    let mut retry = Retry::new("looking after attempts");
    loop {
        keeper.end_those_without_a_lock(&shared);
        let looked = within(shared.session_timeout, keeper.look(&shared)).await;
        let again = match looked {
            Ok(()) => shared.pause(EVERY).await,
            Err(error) => {
                shared.connections.forget_idle();
                let pause = retry.failed(&error).min(EVERY);
                shared.pause(pause).await
            }
        };
        if !again {
            return Ok(());
        }
    }
}

#[derive(Debug, Default)]
struct Keeper {
    /// The output that is stored, by attempt: only a change is written.
    stored: BTreeMap<Key, String>,
    /// Attempts in the name of this process that no task makes, and since when: the answer to their
    /// begin was lost.
    orphans: BTreeMap<Key, Instant>,
    takeover: Takeover,
}

impl Keeper {
    /// Ends attempts after too long a time without the lock: another process may repeat them.
    fn end_those_without_a_lock(&self, shared: &Shared) {
        // No second process may use the data folder of `tagtrail up`.
        if shared.alone {
            return;
        }
        let silence = shared
            .instance
            .silence()
            .saturating_sub(shared.session_timeout);
        let commands = shared.takeover.saturating_sub(EARLIER);
        for watched in shared.in_flight.locked().values_mut() {
            let limit = match watched.kind {
                "command" => commands,
                _ => DROP,
            };
            if silence > limit {
                watched.end(Stop::Lost);
            }
        }
    }

    async fn look(&mut self, shared: &Shared) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut stored = BTreeMap::new();
        for (key, watched) in shared.in_flight.locked().iter() {
            let said = watched.said.text();
            if self.stored.get(key).is_none_or(|before| *before != said) && !said.is_empty() {
                changed.push((key.clone(), said.clone()));
            }
            stored.insert(key.clone(), said);
        }
        let owner = &shared.instance.owner;
        let mut db = shared.connections.lend(shared.session_timeout).await?;
        let asked = Instant::now();
        let running = store::look(&mut db, owner, &changed).await?;
        self.stored = stored;
        let unknown = end_unwanted(shared, &running, asked);
        self.orphans.retain(|key, _| unknown.contains(key));
        for key in unknown {
            self.orphans.entry(key).or_insert(asked);
        }
        // The task of an attempt starts when the answer to its begin arrives, or never.
        let late = shared.session_timeout * 2;
        let lost: Vec<Key> = (self.orphans.iter())
            .filter(|(_, since)| since.elapsed() > late)
            .map(|(key, _)| key.clone())
            .collect();
        if !lost.is_empty() {
            let error = "cut off: the answer of Postgres to the begin was lost";
            store::interrupt(&mut db, owner.instance, &lost, error).await?;
            shared.work_recorded.notify_one();
        }
        self.takeover.look(shared, &mut db).await?;
        db.keep();
        Ok(())
    }
}

/// Ends attempts whose rollout was cancelled, and those that another process has taken over.
/// Returns the attempts that no task of this process makes.
fn end_unwanted(shared: &Shared, running: &[store::Running], asked: Instant) -> BTreeSet<Key> {
    let mut in_flight = shared.in_flight.locked();
    let mut unknown = BTreeSet::new();
    for one in running {
        match in_flight.get_mut(&one.key) {
            Some(watched) if !one.wanted => watched.end(Stop::Cancelled),
            Some(_) => {}
            None => drop(unknown.insert(one.key.clone())),
        }
    }
    let running: BTreeSet<&Key> = running.iter().map(|one| &one.key).collect();
    for (key, watched) in in_flight.iter_mut() {
        if watched.begun < asked && !running.contains(key) {
            watched.end(Stop::Lost);
        }
    }
    unknown
}
