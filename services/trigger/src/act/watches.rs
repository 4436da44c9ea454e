//! Begins the watches of targets, at the start and after each change of the settings. A watch ends
//! with its target, which the settings hold as long as the trigger's entry stays the same.

use crate::shared::Shared;

/// Begins the watches of all targets until shutdown.
pub(crate) async fn watches(shared: Shared) -> anyhow::Result<()> {
    let mut settings = shared.settings.clone();
    loop {
        let now = settings.borrow_and_update().clone();
        for (trigger, target) in now.targets.iter() {
            target.follow(trigger, &shared.news);
        }
        // Targets that the settings no longer have must end.
        drop(now);
        tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            changed = settings.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
