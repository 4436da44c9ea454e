//! The facts that the choice of an image depends on.

use std::time::Duration;

use time::OffsetDateTime;

use super::{PolicyImage, TagRow};
use crate::agree::{Agree, AgreeingTag, Side};
use crate::selection::{Last, TagHead};

/// The time for which commits of images are looked for. Later ones are found by the usual looks at
/// all triggers.
const COMMIT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The bounds of the pause before the next look at a manifest that is being read.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The facts that the choice of an image depends on.
#[derive(Debug)]
pub struct Facts<'f> {
    /// The best candidates.
    pub(super) rows: Vec<&'f TagRow>,
    /// The best candidates and the selected tag.
    pub(super) tags: Vec<AgreeingTag>,
    /// The tag that was selected last.
    pub(super) selected: Option<&'f TagRow>,
    pub(super) last: Option<Last>,
}

impl Facts<'_> {
    pub(super) fn tags(&self) -> Vec<TagHead> {
        self.tags.iter().map(|tag| tag.head.clone()).collect()
    }

    pub(super) fn side<'s>(&'s self, image: &'s PolicyImage) -> Side<'s> {
        Side {
            policy: &image.watched.policy,
            tags: &self.tags,
            last: self.last.as_ref(),
        }
    }

    /// Returns the time of the next look at the commits of images whose manifest is being read.
    pub(super) fn look_for_manifests(
        &self,
        agree: Agree,
        now: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        let rows = self.rows.iter().filter(|row| !row.read);
        let newest = rows.map(|row| row.recorded_at).max();
        let newest = newest.filter(|since| agree == Agree::Commit && *since + COMMIT_WAIT > now);
        newest.map(|since| next_look(since, now))
    }
}

/// Returns the time of the next look at a manifest that is being read since this time.
pub(super) fn next_look(since: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    let waited = Duration::try_from(now - since).unwrap_or_default();
    now + (waited / 4).clamp(PAUSES.0, PAUSES.1)
}
