//! State that all tasks of the resolver share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_bus::Bus;
use tagtrail_bus::consume::ReadError;
use tagtrail_bus::jobs::Jobs;
use tagtrail_config::{Broken, File, Table, Written};
use tagtrail_daemon::Health;
use tagtrail_proto::Registry;
use tagtrail_registry::RegistryClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Pace;
use crate::metrics::Metrics;
use crate::postponed::{Postponed, Work};
use crate::store::Heads;

/// The clients of the configured registries.
pub(crate) type Clients = HashMap<Registry, Arc<RegistryClient>>;

/// The configured registries, as they are now.
#[derive(Debug)]
pub(crate) struct Registries(watch::Sender<Arc<Clients>>);

impl Registries {
    pub(crate) fn new(clients: Clients) -> Registries {
        Registries(watch::Sender::new(Arc::new(clients)))
    }

    /// Returns the registries.
    pub(crate) fn all(&self) -> Arc<Clients> {
        Arc::clone(&self.0.borrow())
    }

    /// Returns the client of a registry.
    pub(crate) fn get(&self, name: &Registry) -> Option<Arc<RegistryClient>> {
        self.0.borrow().get(name).cloned()
    }

    /// Returns whether the registry can be asked.
    pub(crate) fn contains_key(&self, name: &Registry) -> bool {
        self.0.borrow().contains_key(name)
    }

    /// Returns whether no registry can be asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Waits until a registry can be asked.
    pub(crate) async fn some(&self) {
        // The sender lives as long as this value.
        let _ = self.0.subscribe().wait_for(|all| !all.is_empty()).await;
    }

    pub(crate) fn set(&self, clients: Clients) {
        self.0.send_replace(Arc::new(clients));
    }
}

/// The registries of the files, and their entries as written.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    pub(crate) clients: Clients,
    written: HashMap<Registry, Written>,
    /// The broken entries.
    pub(crate) broken: Vec<Broken>,
}

/// Builds the client of each registry in the file. A client whose entry is the same stays, with its
/// memory of failures. A broken registry can't be asked; if it was good before, it stays as it was.
pub(crate) fn registries(file: &File, before: Option<&Configured>) -> Configured {
    let mut broken: Vec<Broken> = file.broken_of(Table::Registry).cloned().collect();
    let (mut clients, mut written) = (Clients::new(), HashMap::new());
    let known = |name: &Registry| before?.clients.get(name).cloned();
    for access in &file.registry {
        let name = access.name.get_ref();
        let entry = file.written(Table::Registry, name.as_ref());
        let same = entry.is_some() && before.and_then(|before| before.written.get(name)) == entry;
        let client = match known(name).filter(|_| same) {
            Some(client) => Ok(client),
            None => RegistryClient::new(file, access).map(Arc::new),
        };
        match client {
            Ok(client) => {
                clients.insert(name.clone(), client);
                written.extend(entry.map(|entry| (name.clone(), entry.clone())));
            }
            Err(problem) => {
                clients.extend(known(name).map(|client| (name.clone(), client)));
                broken.push(Broken::new(Table::Registry, name.as_ref(), problem));
            }
        }
    }
    for one in &broken {
        let Some(name) = one.name.as_deref() else {
            continue;
        };
        let client = RegistryClient::broken(name, &one.problem);
        if let (Ok(name), Some(client)) = (name.parse(), client) {
            clients.entry(name).or_insert_with(|| Arc::new(client));
        }
    }
    Configured {
        clients,
        written,
        broken,
    }
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
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) bus: Bus,
    pub(crate) registries: Arc<Registries>,
    pub(crate) heads: Arc<Heads>,
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
