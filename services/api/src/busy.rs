//! The changes of the last day, kept for a few seconds: reading them takes much longer than the
//! rest of the home page, which many people may open at once.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_history::activity::{self, Busy};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Time for which they are kept.
const KEPT: Duration = Duration::from_secs(10);
/// Repositories in the list.
const MOST: i64 = 6;

/// The changes as they were read, and the time of the reading.
type Read = (Instant, Arc<Busy>);

/// The changes of the last day as they were read last. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecentlyBusy(Arc<Mutex<Option<Read>>>);

impl RecentlyBusy {
    /// Returns the changes of the last day. Of requests at the same time one reads them, and the
    /// others wait for it.
    pub(crate) async fn get(
        &self,
        db: &mut PgConnection,
        now: OffsetDateTime,
    ) -> Result<Arc<Busy>, sqlx::Error> {
        let mut kept = self.0.lock().await;
        if let Some((read_at, busy)) = &*kept
            && read_at.elapsed() < KEPT
        {
            return Ok(Arc::clone(busy));
        }
        let busy = Arc::new(activity::busy(db, now, MOST).await?);
        *kept = Some((Instant::now(), Arc::clone(&busy)));
        Ok(busy)
    }
}
