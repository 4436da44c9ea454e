//! Takes a partition over: publishes recorded but unpublished revisions, before any new revision.

use sqlx::PgConnection;
use tagtrail_bus::fence::{Fence, Known};
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::{self, OrdinalRange, Recorded};
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::recheck;
use crate::record::publish::{self, OutgoingRevision};
use crate::shared::Shared;
use crate::store;
use crate::store::position::Progress;

/// Publishes the revisions that were recorded and not published, except those that REVISIONS
/// already has.
pub(crate) async fn catch_up(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    fence: &Fence,
    progress: &mut Progress,
) -> Result<(), Error> {
    if FailPoint::IndexerTakeOver.skipped() {
        return Ok(());
    }
    let mut published = truly_published(shared, number, db, progress.published).await?;
    while published < progress.recorded {
        let page = recorded_in(shared, number, db, published, progress.recorded).await?;
        let Some(last) = page.last().map(|new| new.ordinal) else {
            return Err(Error::Inconsistent(
                "revisions are missing between two ordinals",
            ));
        };
        let missing: Vec<OutgoingRevision> = shared
            .while_pinging(db, publish::missing(&shared.bus, page))
            .await?
            .into_iter()
            .map(OutgoingRevision::again)
            .collect();
        if !missing.is_empty() {
            tracing::info!(
                partition = number,
                revisions = missing.len(),
                "publishing revisions that were recorded but not published"
            );
        }
        let (sender, mut receiver) = mpsc::channel(1);
        // The channel has room for one batch, so this does not wait.
        sender
            .send(missing)
            .await
            .map_err(|_| Error::Ended("publisher"))?;
        drop(sender);
        let nobody = watch::Sender::new(0);
        let publishing = publish::publish(fence, &mut receiver, &nobody, &shared.metrics);
        shared.while_pinging(db, publishing).await?;
        FailPoint::IndexerCaughtUp.pass();
        published = last;
        let known = progress.known;
        note_published(shared, number, db, progress, published, known).await?;
    }
    recheck::ask_again(shared, number, db, progress).await
}

/// Records the ordinal up to which REVISIONS has acknowledged, and the known place in it. Both may
/// decrease: REVISIONS may have lost its last messages.
pub(crate) async fn note_published(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    progress: &mut Progress,
    published: u64,
    known: Option<Known>,
) -> Result<(), Error> {
    let to = Progress {
        published,
        known,
        ..*progress
    };
    let advancing = store::position::advance(db, number, progress, to);
    *progress = shared.within(advancing).await?;
    FailPoint::IndexerNoted.pass();
    Ok(())
}

/// Returns the revisions of a partition after one ordinal and up to another, at most a page.
async fn recorded_in(
    shared: &Shared,
    partition: u16,
    db: &mut PgConnection,
    after: u64,
    until: u64,
) -> Result<Vec<Recorded>, Error> {
    let range = OrdinalRange {
        partition,
        after,
        until,
    };
    let found = shared.within(recorded::revisions(db, &[range])).await?;
    Ok(found.into_iter().map(|(_, revision)| revision).collect())
}

/// Returns an ordinal up to which REVISIONS certainly has all revisions. REVISIONS may have lost
/// acknowledged messages at the end of the stream (nats-server does not sync each message to disk),
/// or somebody may have recreated the stream. Revisions are published nearly in the order of their
/// ordinals, so the missing revisions are the last ones, and bisection finds the first of them. A
/// lost acknowledgement may have changed the order within [`publish::WINDOW`], so the result lies
/// that far before.
async fn truly_published(
    shared: &Shared,
    number: u16,
    db: &mut PgConnection,
    published: u64,
) -> Result<u64, Error> {
    if FailPoint::IndexerFind.skipped() {
        return Ok(published);
    }
    let (mut there, mut gone) = (0, published + 1);
    let mut probe = published;
    while there + 1 < gone {
        let one = recorded_in(shared, number, db, probe - 1, probe).await?;
        let missing = shared
            .while_pinging(db, publish::missing(&shared.bus, one))
            .await?;
        if missing.is_empty() {
            there = probe;
        } else {
            gone = probe;
        }
        probe = there + (gone - there) / 2;
    }
    if there < published {
        shared.metrics.forgotten.inc_by(published - there);
        tracing::error!(
            partition = number,
            lost = published - there,
            "REVISIONS lost revisions that it had acknowledged; publishing them again from Postgres"
        );
    }
    Ok(there.saturating_sub(publish::WINDOW as u64))
}
