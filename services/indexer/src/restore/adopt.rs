//! Inserts unrecorded revisions into Postgres; see [`crate::restore::unrecorded`].

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Image, Revision};
use tagtrail_timeline::Entry;
use time::OffsetDateTime;

use crate::error::Error;
use crate::store;
use crate::store::position::Progress;
use crate::store::tags::{NewTagRow, TagRow};

/// Inserts revisions that REVISIONS has and Postgres lost, and for each the implied push (the tag
/// had, or lost, a digest at that time). Returns the number of revisions.
pub(crate) async fn adopt(
    tx: &mut PgConnection,
    partition: u16,
    progress: &mut Progress,
    published: &BTreeMap<Image, Vec<Revision>>,
) -> Result<u64, Error> {
    let images: BTreeSet<Image> = published.keys().cloned().collect();
    let mut to =
        store::position::advance_and_record(&mut *tx, partition, progress, *progress).await?;
    let recorded_at = to.recorded_at()?;
    let ids = store::tags::tag_ids(&mut *tx, &images).await?;
    let tags: Vec<i64> = ids.values().copied().collect();
    let heads = store::tags::heads(&mut *tx, &tags, &BTreeSet::new()).await?;
    let (mut revisions, mut new_heads) = (Vec::new(), Vec::new());
    for (image, tag_id) in &ids {
        let (Some(published), Some(head)) = (published.get(image), heads.get(tag_id)) else {
            return Err(Error::Inconsistent("a forgotten tag has no row"));
        };
        let rows: Vec<&Revision> = published.iter().collect();
        let push_ids = store::pushes::insert_implied(&mut *tx, *tag_id, &rows, recorded_at).await?;
        let mut new = NewTagRow {
            tag_id: *tag_id,
            issued: head.issued,
            head: head.head.clone(),
            latest_at: None,
        };
        for (revision, push_id) in published.iter().zip(push_ids) {
            to.recorded += 1;
            raise(&mut new, revision);
            revisions.push(Recorded {
                tag_id: *tag_id,
                ordinal: to.recorded,
                push_id,
                event: event(revision, published, head, recorded_at),
            });
        }
        new_heads.push(new);
    }
    let rows: Vec<&Recorded> = revisions.iter().collect();
    store::revisions::insert(tx, partition, &rows, &new_heads).await?;
    *progress = to;
    Ok(revisions.len() as u64)
}

/// Moves the row of a tag up to a revision.
fn raise(new: &mut NewTagRow, revision: &Revision) {
    new.issued = new.issued.max(revision.revision);
    new.latest_at = new.latest_at.max(Some(revision.occurred_at));
    let numbered = Entry {
        at: revision.occurred_at,
        number: revision.revision,
        digest: revision.digest.clone(),
    };
    if new
        .head
        .as_ref()
        .is_none_or(|head| (head.at, head.number) < (numbered.at, numbered.number))
    {
        new.head = Some(numbered);
    }
}

/// Returns the revision as this transaction records it.
fn event(
    revision: &Revision,
    published: &[Revision],
    head: &TagRow,
    recorded_at: OffsetDateTime,
) -> Revision {
    let mut event = revision.clone();
    event.recorded_at = recorded_at;
    let named = event.head.revision;
    // REVISIONS keeps the last hundred revisions of a tag, so the head that this revision names may
    // be lost for good.
    if named > head.issued && published.iter().all(|other| other.revision != named) {
        event.head.revision = event.revision;
    }
    event
}
