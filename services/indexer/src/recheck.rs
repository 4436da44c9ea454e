//! Re-checks: questions to a registry about a tag whose order of pushes is doubtful. The rule is
//! [`tagtrail_timeline::is_doubtful`].
//!
//! The question is about the present. The answer is a new push; the revisions stay as they are.
//! Recording never waits for a re-check. A lost one is found in Postgres: by the next holder of the
//! partition, and by the sweeper.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use sqlx::PgConnection;
use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{PARTITIONS, Push, Registry, Subject, partition_of};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::shared::Shared;
use crate::store;
use crate::store::position::Progress;

/// Most batches whose re-checks wait for the bus.
pub(crate) const WAITING: usize = 16;

/// The registries that can be asked.
/// As they are now: all clones follow the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedRegistries(Option<Arc<RwLock<HashSet<Registry>>>>);

impl AskedRegistries {
    /// The registries of `tagtrail.toml`. `None`: the indexer has no such file, so every registry
    /// may be one; the resolver drops questions about the others.
    pub(crate) fn new(configured: Option<HashSet<Registry>>) -> AskedRegistries {
        AskedRegistries(configured.map(|names| Arc::new(RwLock::new(names))))
    }

    /// Returns whether the registry can be asked.
    pub(crate) fn contains(&self, registry: &Registry) -> bool {
        self.read().is_none_or(|asked| asked.contains(registry))
    }

    /// Returns whether no registry can be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.read().is_some_and(|asked| asked.is_empty())
    }

    /// Returns the registries, if they are known.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        let asked = self.read()?;
        Some(asked.iter().map(ToString::to_string).collect())
    }

    /// Takes the registries of a changed file.
    pub(crate) fn set(&self, names: HashSet<Registry>) {
        if let Some(asked) = &self.0 {
            *asked.write().unwrap_or_else(PoisonError::into_inner) = names;
        }
    }

    fn read(&self) -> Option<RwLockReadGuard<'_, HashSet<Registry>>> {
        let asked = self.0.as_ref()?;
        Some(asked.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Queues the re-checks of each batch until the sender is dropped. Logs a failure, and goes on:
/// re-checks must not hold up revisions.
pub(crate) async fn ask_all(
    bus: &Bus,
    incoming: &mut mpsc::Receiver<Vec<Push>>,
) -> Result<(), Error> {
    while let Some(questions) = incoming.recv().await {
        try_to_ask(bus, &questions).await;
    }
    Ok(())
}

async fn try_to_ask(bus: &Bus, questions: &[Push]) {
    if let Err(error) = ask(bus, questions).await {
        tracing::warn!(
            questions = questions.len(),
            "re-checks could not be queued; the sweeper asks again: {error}"
        );
    }
}

/// Queues re-checks: sends all, then waits for the acknowledgements.
pub(crate) async fn ask(bus: &Bus, questions: &[Push]) -> Result<(), PublishError> {
    if FailPoint::IndexerRecheck.skipped() {
        return Ok(());
    }
    let mut sent = Vec::with_capacity(questions.len());
    for question in questions {
        let subject = Subject::of_push(question, PARTITIONS);
        let message = Message::of(&subject, &question.clone().event())?;
        sent.push(bus.send(message).await?);
    }
    for acknowledgement in sent {
        acknowledgement.acknowledged().await?;
    }
    Ok(())
}

/// Queues the re-checks again that the last holder of a partition may have lost: those of pushes
/// shortly before its end.
pub(crate) async fn ask_again(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    progress: &Progress,
) -> Result<(), Error> {
    let Some(recorded_at) = progress.recorded_at.filter(|_| !shared.asked.is_empty()) else {
        return Ok(());
    };
    let finding = store::doubts::shortly_before(db, recorded_at, &shared.asked);
    let mut questions = shared.within(finding).await?;
    let partitions = shared.bus.partitions();
    questions.retain(|push| partition_of(&push.registry, &push.repository, partitions) == number);
    let asking = async {
        try_to_ask(&shared.bus, &questions).await;
        Ok::<_, Error>(())
    };
    shared.while_pinging(db, asking).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_every_registry_may_be_asked() {
        let (one, two): (Registry, Registry) = (
            "one.example.com".parse().unwrap(),
            "two.example.com".parse().unwrap(),
        );
        assert!(AskedRegistries::new(None).contains(&one));
        let asked = AskedRegistries::new(Some(HashSet::from([one.clone()])));
        assert!(asked.contains(&one) && !asked.contains(&two));
        assert!(!AskedRegistries::new(Some(HashSet::new())).contains(&one));
    }
}
