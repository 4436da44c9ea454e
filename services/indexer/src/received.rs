//! A push from PUSHES, checked, with times in the precision of Postgres.

use tagtrail_bus::consume::Delivery;
use tagtrail_proto::{
    Action, Digest, Event, Image, Origin, Push, Registry, Repository, Scope, Tag, TimeSource,
    TraceContext, partition_of,
};
use tagtrail_timeline::{Effect, effective};
use time::OffsetDateTime;

/// The fields of a push that the rule of history does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) origin: Origin,
    pub(crate) time_source: TimeSource,
    pub(crate) source: String,
    pub(crate) actor: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) size: Option<u64>,
}

/// The owner of a push, as a row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Tag(i64),
    Repository(i64),
}

impl Owner {
    /// Returns the row id of the tag, if a tag owns it.
    pub(crate) fn tag(self) -> Option<i64> {
        match self {
            Owner::Tag(id) => Some(id),
            Owner::Repository(_) => None,
        }
    }

    /// Returns the row id of the repository, if the repository owns it.
    pub(crate) fn repository(self) -> Option<i64> {
        match self {
            Owner::Tag(_) => None,
            Owner::Repository(id) => Some(id),
        }
    }
}

/// A push as the stream delivered it.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedPush {
    pub(crate) registry: Registry,
    pub(crate) repository: Repository,
    /// `None`: the push is about the whole repository.
    pub(crate) tag: Option<Tag>,
    pub(crate) action: Action,
    pub(crate) digest: Option<Digest>,
    pub(crate) occurred_at: OffsetDateTime,
    /// The stream's timestamp.
    pub(crate) received_at: OffsetDateTime,
    pub(crate) event_id: String,
    pub(crate) meta: Meta,
    /// The sequence of the message in PUSHES, and the timestamp in nanoseconds.
    pub(crate) sequence: u64,
    pub(crate) time_ns: i64,
    /// The trace of the message, and the number of messages of the partition behind it.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) pending: u64,
}

impl ReceivedPush {
    /// Parses a message of `partition`. The error is the reason why the message is not a valid
    /// push.
    pub(crate) fn parse(
        delivery: &Delivery,
        partition: u16,
        partitions: u16,
    ) -> Result<ReceivedPush, String> {
        let event: Event<Push> = serde_json::from_slice(&delivery.payload)
            .map_err(|err| format!("not a push event: {err}"))?;
        let push = event.data;
        push.check().map_err(|err| err.to_string())?;
        let belongs = partition_of(&push.registry, &push.repository, partitions);
        if belongs != partition {
            return Err(format!(
                "{}/{} belongs to partition {belongs}, not {partition}",
                push.registry, push.repository
            ));
        }
        Ok(ReceivedPush {
            tag: if push.scope == Scope::Tag {
                push.tag
            } else {
                None
            },
            registry: push.registry,
            repository: push.repository,
            action: push.action,
            digest: push.digest,
            occurred_at: microseconds(push.occurred_at),
            received_at: microseconds(delivery.time),
            event_id: push.event_id,
            meta: Meta {
                origin: push.origin,
                time_source: push.occurred_at_source,
                source: push.source,
                actor: push.actor,
                media_type: push.media_type,
                size: push.size,
            },
            sequence: delivery.sequence,
            time_ns: tagtrail_bus::consume::nanoseconds(delivery.time),
            trace: delivery.trace,
            pending: delivery.pending,
        })
    }

    /// Returns the effective time.
    pub(crate) fn effective_at(&self) -> OffsetDateTime {
        effective(
            self.occurred_at,
            self.received_at,
            self.meta.time_source,
            self.meta.origin,
        )
    }

    /// Returns whether the push counts from the sender's own time of the event.
    pub(crate) fn has_own_time(&self) -> bool {
        self.meta.time_source == TimeSource::Event && self.effective_at() == self.occurred_at
    }

    /// Returns the partition of the repository.
    pub(crate) fn partition(&self, partitions: u16) -> u16 {
        partition_of(&self.registry, &self.repository, partitions)
    }

    /// Returns the effect on a tag.
    pub(crate) fn effect(&self) -> Effect {
        match (&self.tag, self.action, &self.digest) {
            (Some(_), Action::Push, Some(digest)) => Effect::Push(digest.clone()),
            (Some(_), _, None) => Effect::Delete,
            // From this tag, or from all tags of the repository.
            (_, _, Some(digest)) => Effect::DeleteDigest(digest.clone()),
            (None, _, None) => Effect::DeleteRepository,
        }
    }

    /// Returns the image, if the push is about a tag.
    pub(crate) fn image(&self) -> Option<Image> {
        self.tag.clone().map(|tag| Image {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag,
        })
    }
}

/// Cuts a time to microseconds, the precision of Postgres.
pub(crate) fn microseconds(time: OffsetDateTime) -> OffsetDateTime {
    let micros = time.microsecond();
    time.replace_microsecond(micros).unwrap_or(time)
}
