//! Follows the files: registries come, change and go without a restart.

use std::sync::Arc;

use tagtrail_config::{File, Follower};
use tagtrail_daemon::Metrics;
use tokio::sync::watch;

use crate::shared::{self, Configured, Shared};

/// Logs the broken registries that were not broken before.
pub(crate) fn report(now: &Configured, before: Option<&Configured>) {
    for one in &now.broken {
        if before.is_some_and(|before| before.broken.contains(one)) {
            continue;
        }
        let name = one.name.as_deref().unwrap_or("?");
        let was_good = name
            .parse()
            .is_ok_and(|name| before.is_some_and(|before| before.clients.contains_key(&name)));
        match was_good {
            true => tracing::error!(
                registry = name,
                "the settings of registry {name} before stay in force: {}",
                one.problem
            ),
            false => tracing::error!(
                registry = name,
                "registry {name} is broken, and is not asked: {}",
                one.problem
            ),
        }
    }
}

/// Follows the files until shutdown, and hands new registries to all tasks.
pub(crate) async fn follow(
    mut files: Follower,
    mut configured: Configured,
    news: watch::Sender<Arc<File>>,
    shared: Arc<Shared>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    loop {
        let file = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            file = files.changed() => file,
        };
        let now = shared::registries(&file, Some(&configured));
        report(&now, Some(&configured));
        metrics.config_errors("resolver", file.mistakes(&now.broken));
        for name in now.clients.keys() {
            shared.metrics.expect_registry(name.as_ref());
        }
        shared.postponed.expect(now.clients.keys());
        shared.registries.set(now.clients.clone());
        let registries = now.clients.len();
        configured = now;
        // Without a database nobody compares registries.
        news.send_replace(file);
        tracing::info!(registries, "read the changed files again");
    }
}
