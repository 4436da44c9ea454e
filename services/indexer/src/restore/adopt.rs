//! Taking into the store what was published and what it has forgotten; see [`crate::restore::unrecorded`].

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection};
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Image, Revision, TimeSource};

use crate::error::Error;
use crate::record::apply::Partition;
use crate::record::tag_ids::TagIds;
use crate::store;
use crate::store::tags::NewHead;
use tagtrail_timeline::Numbered;

impl Partition {
    /// Takes what was published of images into the store, as the facts that it tells of: each had or lost a digest at a time. Gives
    /// the number of revisions.
    pub(crate) async fn adopt(
        &mut self,
        db: &mut PgConnection,
        published: BTreeMap<Image, Vec<Revision>>,
    ) -> Result<u64, Error> {
        // Those of the batch that failed were made in its transaction.
        self.tag_ids = TagIds::default();
        let images: BTreeSet<Image> = published.keys().cloned().collect();
        let mut tx = db.begin().await?;
        let mut to =
            store::position::advance(&mut tx, self.number, &self.progress, self.progress, true)
                .await?;
        let recorded_at = to.recorded_at()?;
        let ids = store::tags::tag_ids(&mut tx, &images).await?;
        let tags: Vec<i64> = ids.values().copied().collect();
        let heads = store::tags::lock_tags(&mut tx, &tags, &BTreeSet::new()).await?;
        let (mut revisions, mut new_heads) = (Vec::new(), Vec::new());
        for (image, tag_id) in &ids {
            let (Some(published), Some(head)) = (published.get(image), heads.get(tag_id)) else {
                return Err(Error::Inconsistent("a forgotten tag has no row"));
            };
            let published: Vec<&Revision> = published.iter().collect();
            let push_ids =
                store::pushes::add_published(&mut tx, *tag_id, &published, recorded_at).await?;
            let known = |number: u64| {
                number <= head.issued || published.iter().any(|other| other.revision == number)
            };
            let mut new = NewHead {
                tag_id: *tag_id,
                issued: head.issued,
                head: head.head.clone(),
                latest_at: None,
            };
            for (revision, push_id) in published.iter().zip(push_ids) {
                to.recorded += 1;
                let mut event = (*revision).clone();
                event.recorded_at = recorded_at;
                // The stream holds a hundred of a tag: what came before may be lost for good, a head among it.
                if !known(event.head.revision) {
                    event.head.revision = event.revision;
                }
                let numbered = Numbered {
                    at: event.occurred_at,
                    number: event.revision,
                    digest: event.digest.clone(),
                };
                new.issued = new.issued.max(event.revision);
                new.latest_at = new.latest_at.max(Some(event.occurred_at));
                if new
                    .head
                    .as_ref()
                    .is_none_or(|head| (head.at, head.number) < (numbered.at, numbered.number))
                {
                    new.head = Some(numbered);
                }
                revisions.push(Recorded {
                    tag_id: *tag_id,
                    ordinal: to.recorded,
                    push_id,
                    previous_at: None,
                    head_at: event.occurred_at,
                    time_source: TimeSource::Event,
                    event,
                });
            }
            new_heads.push(new);
        }
        let rows: Vec<&Recorded> = revisions.iter().collect();
        store::revisions::add_revisions(&mut tx, self.number, &rows, &new_heads).await?;
        tx.commit().await?;
        self.progress = to;
        for image in &images {
            self.ahead.0.remove(image);
        }
        Ok(revisions.len() as u64)
    }
}
