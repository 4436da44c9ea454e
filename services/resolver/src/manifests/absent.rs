//! Manifests that a registry does not have: each is read again a few times, and then the registry
//! is asked for the tag.

use std::time::Duration;

use tagtrail_bus::publish::PublishError;
use tagtrail_proto::{Pinned, Push, Revision, Subject};
use time::OffsetDateTime;

use super::{ManifestReader, ReadOutcome};
use crate::answer::publish;

/// The age of a revision up to which a trigger may wait for its manifest.
const NEW: time::Duration = time::Duration::minutes(10);

impl ManifestReader {
    /// Decides on the next step if the registry does not have a manifest. Replicas lag, and some
    /// clients delete an image just after its push.
    pub(super) async fn absent(
        &self,
        pinned: &Pinned,
        attempt: u32,
        new: bool,
    ) -> (ReadOutcome, Duration) {
        let pauses = self.shared.pace.absent;
        let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let next = pauses.get(place);
        if new {
            self.missing.record(pinned, next.is_none()).await;
        }
        let Some(pause) = next else {
            self.metrics.count("given_up");
            tracing::warn!(digest = %pinned.digest, "gave up reading the manifest of {pinned}: the registry does not have it; `tagtrail republish` of its image starts new attempts");
            return (ReadOutcome::Missing, self.shared.pause(attempt));
        };
        tracing::info!(digest = %pinned.digest, delivery.attempt = attempt, "the registry does not have the manifest of {pinned} (yet); reading it again in {pause:.0?}");
        (ReadOutcome::Again, *pause)
    }

    /// Queues the question whether a tag still has the digest of a revision without a manifest. An
    /// old revision changes no tag, so nothing is asked about it.
    pub(super) async fn ask_for_tag(&self, revision: &Revision) -> Result<(), PublishError> {
        if !is_new(revision) {
            return Ok(());
        }
        let (image, at) = (revision.image(), revision.occurred_at);
        let question = Push::recheck(&image, revision.revision, at, &revision.source);
        let subject = Subject::of_push(&question, self.shared.bus.partitions());
        publish(&self.shared.bus, &subject, question, None).await
    }
}

/// Returns true if a trigger may wait for the manifest of this revision.
pub(super) fn is_new(revision: &Revision) -> bool {
    !revision.late && OffsetDateTime::now_utc() - revision.recorded_at < NEW
}
