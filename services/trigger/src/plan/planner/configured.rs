//! The configuration of a session: its effects on earlier triggers, and processes with newer files.

use sqlx::PgConnection;
use tagtrail_postgres::within;

use crate::error::Error;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::generations;
use crate::store::specs;

/// Logs the effects of the configuration on earlier triggers.
pub(super) fn report(shared: &Shared, configured: &specs::Configured) {
    for specs::Renamed { old, new, told } in &configured.renamed {
        let why = match told {
            true => "as `renamed_from` says",
            false => "since the entries are equal but for the name",
        };
        tracing::info!(
            trigger = new,
            old,
            "trigger {old} is {new} now, {why}: rollouts, numbers, holds and pause go on"
        );
    }
    for specs::NotRenamed { trigger, old, why } in &configured.not_renamed {
        tracing::warn!(
            trigger,
            old,
            "`renamed_from` of {trigger} has no effect: {old} {why}"
        );
    }
    for specs::Removed {
        trigger,
        number,
        why,
    } in &configured.removed
    {
        tracing::info!(
            trigger,
            number,
            "cancelled rollout {number} of {trigger}: {why}"
        );
    }
    if !configured.removed.is_empty() {
        shared.entries_recorded.notify_one();
    }
}

/// Returns whether the files of this process are older than the settings that another process has
/// recorded a moment ago, as during the replacement of processes. Such a process must not plan: it
/// would put the old settings in force, until the next one puts the new ones in force again.
pub(super) async fn is_behind(
    shared: &Shared,
    db: &mut PgConnection,
    settings: &Settings,
) -> Result<bool, Error> {
    // A single process is behind nobody.
    if shared.alone {
        return Ok(false);
    }
    let replaced = generations::replaced(db, settings, shared.replaced.0);
    let mut replaced = within(shared.session_timeout, replaced).await?;
    // After a change back, the newer settings were its own.
    replaced.retain(|(name, hash)| !settings.had(name, *hash));
    let Some((trigger, _)) = replaced.first() else {
        return Ok(false);
    };
    let count = replaced.len();
    tracing::warn!(
        trigger,
        count,
        "another process has newer settings of {trigger} (triggers in all: {count}), so this one does not plan; if these files are right, they count in {} s",
        shared.replaced.0.as_secs()
    );
    Ok(true)
}
