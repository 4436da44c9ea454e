//! State that all tasks of the resolver share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::consume::ReadError;
use tagtrail_bus::jobs::Jobs;
use tagtrail_config::{Broken, File, Table};
use tagtrail_daemon::Health;
use tagtrail_proto::Registry;
use tagtrail_registry::RegistryClient;
use tokio_util::sync::CancellationToken;

use crate::config::Pace;
use crate::metrics::Metrics;
use crate::postponed::{Postponed, Work};
use crate::store::Heads;

/// The configured registries.
pub(crate) type Registries = HashMap<Registry, RegistryClient>;

/// Builds the client of each registry in the file. A broken one can't be asked, and is returned.
pub(crate) fn registries(file: &File) -> (Registries, Vec<Broken>) {
    let mut broken: Vec<Broken> = file.broken_of(Table::Registry).cloned().collect();
    let mut clients = Registries::new();
    for access in &file.registry {
        let name = access.name.get_ref();
        match RegistryClient::new(file, access) {
            Ok(client) => drop(clients.insert(name.clone(), client)),
            Err(problem) => broken.push(Broken::new(Table::Registry, name.as_ref(), problem)),
        }
    }
    for one in &broken {
        let Some(name) = one.name.as_deref() else {
            continue;
        };
        let client = RegistryClient::broken(name, &one.problem);
        if let (Ok(name), Some(client)) = (name.parse(), client) {
            clients.entry(name).or_insert(client);
        }
    }
    (clients, broken)
}

/// Returns the reason for not being ready if a consumer is nearly full of messages without an ack.
fn is_full(unacked: usize) -> Option<String> {
    const MOST: usize = Jobs::AT_ONCE;
    (unacked > MOST / 10 * 8).then(|| {
        format!(
            "{unacked} messages wait for an ack, and NATS delivers no others beyond {MOST}: a registry is away, slow or refuses (`tagtrail doctor` names it). With DATABASE_URL, the tasks of such a registry wait in Postgres and hold up no other registry"
        )
    })
}

/// The state of all tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) registries: Arc<Registries>,
    pub(crate) heads: Heads,
    /// Tasks that wait for their registry.
    pub(crate) postponed: Postponed,
    pub(crate) pace: Pace,
    /// Time after which NATS redelivers the unacknowledged messages of an instance.
    pub(crate) ack_wait: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
    pub(crate) health: Health,
}

impl Shared {
    /// Returns the pause after an attempt. The pause doubles with every attempt.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1).min(30));
        self.pace.first.saturating_mul(factor).min(self.pace.last)
    }

    /// Checks the consumer of a part, and shows how near its bound is.
    pub(crate) async fn check(
        &self,
        jobs: &Jobs,
        work: Work,
        part: &'static str,
    ) -> Result<(), ReadError> {
        let unacked = jobs.check().await?;
        self.metrics.unacked(work, unacked);
        self.health.set(part, is_full(unacked).map_or(Ok(()), Err));
        Ok(())
    }

    /// Records for readiness that the jobs of this part can't be read. The part `nats` reports a
    /// lost connection.
    pub(crate) fn cannot_read(&self, part: &'static str, error: &ReadError) {
        if !matches!(error, ReadError::Reconnected) {
            self.health.set(part, Err(error.to_string()));
        }
    }

    /// Sleeps for `time`, or until a stop is requested.
    pub(crate) async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}
