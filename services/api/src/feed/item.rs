//! The events of the feed, as they are read from Postgres.

use sqlx::PgConnection;
use tagtrail_condition::changes::{self, Changed, Changes, Which};
use tagtrail_history::recorded::{self, OrdinalRange};
use tagtrail_postgres::row;
use tagtrail_proto::{ConditionChange, Event, Held, Image, Revision, Rollout};

use super::place::{EventKind, Range, Series};

/// An event for followers.
#[derive(Debug)]
pub(crate) struct Item {
    pub(super) series: Series,
    pub(super) ordinal: u64,
    /// The ordinal of the event before, or an ordinal between the two: ordinals of changes have
    /// gaps.
    pub(super) before: u64,
    pub(crate) about: About,
    /// The `CloudEvent` on the bus, as JSON.
    pub(crate) event: String,
}

/// The object of an event, for the filters of followers.
#[derive(Debug)]
pub(crate) enum About {
    /// The image of a revision.
    Image(Image),
    /// A rollout.
    Rollout {
        /// Name of the trigger.
        trigger: String,
        images: Vec<Image>,
    },
    /// Name or pattern of the triggers of a hold.
    Hold(String),
    /// Name of a trigger.
    Trigger(String),
}

impl Item {
    pub(crate) fn kind(&self) -> EventKind {
        self.series.kind()
    }

    fn of_revision(partition: u16, ordinal: u64, revision: Revision) -> Item {
        Item {
            series: Series::Revisions(partition),
            ordinal,
            before: ordinal.saturating_sub(1),
            about: About::Image(revision.image()),
            event: text(&revision.event()),
        }
    }
}

fn text<T: serde::Serialize>(event: &Event<T>) -> String {
    // Serialising fails only for maps with keys other than strings; an event has none.
    serde_json::to_string(event).unwrap_or_default()
}

/// Reads the next revisions of these ranges.
pub(super) async fn revisions(
    db: &mut PgConnection,
    ranges: &[Range],
) -> Result<Vec<Item>, sqlx::Error> {
    let of_partition = |range: &Range| match range.series {
        Series::Revisions(partition) => Some(OrdinalRange {
            partition,
            after: range.after,
            until: range.until,
        }),
        Series::Changes(_) => None,
    };
    let ranges: Vec<OrdinalRange> = ranges.iter().filter_map(of_partition).collect();
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let found = recorded::revisions(db, &ranges).await?;
    let item = |(partition, found): (u16, recorded::Recorded)| {
        Item::of_revision(partition, found.ordinal, found.event)
    };
    Ok(found.into_iter().map(item).collect())
}

/// A change as it was read.
pub(super) struct Read {
    pub(super) ordinal: i64,
    /// `None`: a later version wrote the change, in a form that this version can't read.
    pub(super) item: Option<Item>,
}

/// Reads the next changes of a table with ordinals above `after`, up to `until`.
pub(super) async fn changes(
    db: &mut PgConnection,
    table: Changes,
    after: i64,
    until: i64,
) -> Result<Vec<Read>, sqlx::Error> {
    let which = Which::Between(after, until);
    Ok(match table {
        Changes::Rollouts => {
            let of = |one: Rollout| About::Rollout {
                trigger: one.trigger.clone(),
                images: one.images.values().map(|one| one.image.clone()).collect(),
            };
            let event = |one: Rollout, ordinal, at| text(&one.changed(ordinal, at));
            read(table, after, changes::rollouts(db, which).await?, of, event)
        }
        Changes::Holds => {
            let of = |one: Held| About::Hold(one.triggers);
            let event = |one: Held, _, at| text(&one.event(at));
            read(table, after, changes::holds(db, which).await?, of, event)
        }
        Changes::Conditions => {
            let of = |one: ConditionChange| About::Trigger(one.trigger);
            let event = |one: ConditionChange, _, at| text(&one.event(at));
            let found = changes::conditions(db, which).await?;
            read(table, after, found, of, event)
        }
    })
}

fn read<T: Clone>(
    table: Changes,
    after: i64,
    found: Vec<Changed<T>>,
    about: impl Fn(T) -> About,
    event: impl Fn(T, i64, time::OffsetDateTime) -> String,
) -> Vec<Read> {
    let mut before = after;
    let item = |one: Changed<T>| {
        let ordinal = one.ordinal;
        let object = match one.object {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(
                    ordinal,
                    "the live feed leaves out a change of {table:?} that this version can't read: {error}"
                );
                return Read {
                    ordinal,
                    item: None,
                };
            }
        };
        let item = Item {
            series: Series::Changes(table),
            ordinal: row::unsigned(ordinal),
            before: row::unsigned(before),
            about: about(object.clone()),
            event: event(object, ordinal, one.changed_at),
        };
        before = ordinal;
        Read {
            ordinal,
            item: Some(item),
        }
    };
    found.into_iter().map(item).collect()
}
