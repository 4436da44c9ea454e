//! The heads of tags in history: an answer of a registry takes effect after the head that the
//! question was about.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::{DbArgs, row, within};
use tagtrail_proto::{Digest, Image};
use time::OffsetDateTime;
use tokio::sync::Mutex;

/// Time of silence after which Postgres ends the session. The next question opens another one.
const SILENCE: Duration = Duration::from_secs(300);
/// Bound of one statement.
const LIMIT: Duration = Duration::from_secs(5);

/// The head of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The digest; `None`: deleted.
    pub(crate) digest: Option<Digest>,
    /// The effective time.
    pub(crate) at: OffsetDateTime,
}

/// Reads heads with a session of its own.
#[derive(Debug)]
pub(crate) struct Heads {
    /// `None`: the resolver runs without a database, and knows no head.
    db: Option<DbArgs>,
    session: Mutex<Option<PgConnection>>,
}

impl Heads {
    pub(crate) fn new(db: Option<DbArgs>) -> Heads {
        Heads {
            db,
            session: Mutex::new(None),
        }
    }

    /// Returns whether there is a database.
    pub(crate) fn are_known(&self) -> bool {
        self.db.is_some()
    }

    /// Returns the heads of images. Images without history are left out.
    pub(crate) async fn of(&self, images: &[Image]) -> Result<HashMap<Image, Head>, sqlx::Error> {
        let Some(db) = &self.db else {
            return Ok(HashMap::new());
        };
        let mut kept = self.session.lock().await;
        if let Some(mut session) = kept.take()
            && let Ok(found) = within(LIMIT, heads(&mut session, images)).await
        {
            *kept = Some(session);
            return Ok(found);
        }
        // There was no session yet, or Postgres has ended it.
        let mut session = within(LIMIT, db.session("resolver", SILENCE)).await?;
        let found = within(LIMIT, heads(&mut session, images)).await?;
        *kept = Some(session);
        Ok(found)
    }
}

/// Returns the heads of images. Images without history are left out.
pub(crate) async fn heads(
    db: &mut PgConnection,
    images: &[Image],
) -> Result<HashMap<Image, Head>, sqlx::Error> {
    fn each<'a>(images: &'a [Image], of: impl Fn(&'a Image) -> &'a str) -> Vec<&'a str> {
        images.iter().map(of).collect()
    }
    let rows = sqlx::query(
        "select w.place, t.head_digest, t.head_at
         from unnest($1::text[], $2::text[], $3::text[]) with ordinality as w (registry, repository, tag, place)
         join repository r on r.registry = w.registry and r.name = w.repository
         join tag t on t.repository_id = r.id and t.name = w.tag and t.head is not null",
    )
    .bind(each(images, |image| image.registry.as_ref()))
    .bind(each(images, |image| image.repository.as_ref()))
    .bind(each(images, |image| image.tag.as_ref()))
    .fetch_all(db)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let place = row::unsigned(row.try_get("place")?);
        let image = usize::try_from(place)
            .ok()
            .and_then(|place| images.get(place.checked_sub(1)?));
        if let Some(image) = image {
            let head = Head {
                digest: row::digest(row.try_get("head_digest")?)?,
                at: row.try_get("head_at")?,
            };
            found.insert(image.clone(), head);
        }
    }
    Ok(found)
}
