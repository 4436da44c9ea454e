//! The stream from which a partition is read, and the move to the next one.
//!
//! A stream that gave the partition up takes no more of its pushes. Such a stream is read to its
//! end, then the stream that has taken the pushes since.

use std::time::Duration;

use sqlx::PgConnection;
use tagtrail_bus::consume::{Position, Reader};
use tagtrail_bus::topology::Stream;
use tagtrail_proto::Subject;

use crate::error::Error;
use crate::shared::Shared;
use crate::store::position::{self, Progress};

/// Interval at which a reader looks for the end of a stream.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Returns the stream that takes the pushes of a partition, if that is not the one that is read.
pub(crate) async fn next(
    shared: &Shared,
    number: u16,
    source: Stream,
) -> Result<Option<Stream>, Error> {
    let is_other = |owner: &Stream| *owner != source;
    if shared
        .bus
        .layout()
        .owner(number)
        .is_none_or(|owner| !is_other(&owner))
    {
        return Ok(None);
    }
    // Another instance may have seen a later move, and have moved on already.
    let present = shared.bus.present_layout().await?;
    Ok(present.owner(number).filter(is_other))
}

/// Returns whether the stream takes no more pushes of the partition, and is read to its end.
pub(crate) async fn is_read(shared: &Shared, number: u16, reader: &Reader) -> Result<bool, Error> {
    let source = reader.stream();
    if next(shared, number, source).await?.is_none() {
        return Ok(false);
    }
    // The layout is older than the answer, so the answer is final.
    let filter = Subject::all_pushes(number);
    let last = shared.bus.last_sequence(source, &filter).await?;
    Ok(last.is_none_or(|last| last <= reader.position().sequence))
}

/// Goes on with the first message of another stream.
pub(crate) async fn move_on(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    progress: &mut Progress,
    next: Stream,
) -> Result<(), Error> {
    tracing::info!(
        partition = number,
        from = progress.source.name(),
        to = next.name(),
        "read a stream of pushes to its end; reading the next one"
    );
    let moved = Progress {
        source: next,
        position: Position::default(),
        ..*progress
    };
    let advancing = position::advance(db, number, progress, moved);
    *progress = shared.within(advancing).await?;
    Ok(())
}
