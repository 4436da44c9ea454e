//! Reports in the log how a backlog of pushes is drained.

use std::time::Duration;

use tagtrail_daemon::Progress;

use crate::shared::Shared;

/// Fewer waiting pushes are no backlog.
const BACKLOG: u64 = 1000;
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Reports until a stop is requested.
pub(crate) async fn report(shared: Shared) -> anyhow::Result<()> {
    let mut backlog = Backlog::default();
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        let (applied, waiting) = shared.metrics.backlog();
        backlog.look(applied, waiting);
    }
}

/// The pushes that wait in the partitions of this instance.
#[derive(Debug, Default)]
struct Backlog {
    progress: Option<Progress>,
    /// Pushes that were applied before the backlog was seen.
    before: u64,
}

impl Backlog {
    /// `applied`: the pushes applied since the start.
    fn look(&mut self, applied: u64, waiting: u64) {
        if waiting >= BACKLOG {
            let progress = self.progress.get_or_insert_with(|| {
                self.before = applied;
                Progress::of_service("draining the backlog", "pushes")
            });
            let done = applied - self.before;
            progress.set(done, done + waiting);
        } else if let Some(progress) = self.progress.take()
            && progress.is_visible()
        {
            let pushes = applied - self.before;
            tracing::info!(pushes, "the backlog of {pushes} pushes is drained");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_counts_from_its_beginning_to_its_end() {
        let mut backlog = Backlog::default();
        backlog.look(5_000, 999);
        assert!(backlog.progress.is_none());
        backlog.look(6_000, 2_500);
        backlog.look(7_000, 4_000);
        let progress = backlog.progress.as_ref().unwrap();
        assert_eq!(progress.state(), (1_000, 5_000));
        backlog.look(12_000, 10);
        assert!(backlog.progress.is_none());
        backlog.look(20_000, 1_000);
        assert_eq!(backlog.progress.as_ref().unwrap().state(), (0, 1_000));
    }
}
