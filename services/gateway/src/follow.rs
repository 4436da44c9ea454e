//! Follows the files: sources come, change and go without a restart.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use tagtrail_config::Follower;
use tagtrail_daemon::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Settings, Source, Sources};
use crate::receive;
use crate::shared::Shared;

/// The tasks of the sources: keys of tokens, and subscriptions.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    /// By the name of a source: the source, and the token that ends its tasks.
    stops: HashMap<String, (Arc<Source>, CancellationToken)>,
}

/// Runs the tasks of the sources, and follows the files until shutdown.
pub(crate) async fn follow(
    shared: Arc<Shared>,
    mut files: Follower,
    ctx: Context,
) -> anyhow::Result<()> {
    let mut running = Running::default();
    let mut hosts = files.file().hosts();
    running.adapt(&shared, &shared.sources(), &ctx);
    loop {
        let file = tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            file = files.changed() => file,
            Some(ended) = running.tasks.join_next() => {
                if let Err(panic) = ended {
                    anyhow::bail!("a task of a source panicked: {panic}");
                }
                continue;
            }
        };
        if file.hosts() != hosts {
            hosts = file.hosts();
            tracing::warn!("pages.hosts has changed: restart the gateway and the api");
        }
        let settings = Settings::read(&file, Some(&shared.sources()));
        ctx.metrics
            .config_errors("gateway", file.mistakes(&settings.broken));
        let sources = Arc::new(settings.sources);
        shared.pulls.set_registries(settings.registries);
        shared.metrics.sources(&sources);
        running.adapt(&shared, &sources, &ctx);
        tracing::info!(sources = sources.good.len(), "read the changed files again");
        *shared
            .sources
            .write()
            .unwrap_or_else(PoisonError::into_inner) = sources;
    }
    while running.tasks.join_next().await.is_some() {}
    Ok(())
}

impl Running {
    /// Ends the tasks of sources that have changed or gone, and starts those of new ones.
    fn adapt(&mut self, shared: &Arc<Shared>, sources: &Sources, ctx: &Context) {
        self.stops.retain(|name, (source, stop)| {
            let now = sources.good.get(name);
            let stays = now.is_some_and(|now| Arc::ptr_eq(now, source));
            if !stays {
                stop.cancel();
            }
            stays
        });
        for (name, source) in &sources.good {
            if self.stops.contains_key(name) {
                continue;
            }
            let stop = ctx.shutdown.child_token();
            if let Some(keys) = source.credentials.keys().cloned() {
                let stop = stop.clone();
                self.tasks.spawn(async move { keys.keep(&stop).await });
            }
            if let Some(nats) = source.rules.options.nats.clone() {
                let ctx = Context {
                    shutdown: stop.clone(),
                    ..ctx.clone()
                };
                let listening =
                    receive::nats::listen(Arc::clone(shared), Arc::clone(source), nats, ctx);
                self.tasks.spawn(listening);
            }
            self.stops.insert(name.clone(), (Arc::clone(source), stop));
        }
    }
}
