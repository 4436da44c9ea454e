//! Every stream, its subjects and its limits. Readers keep their position in Postgres; the only durable consumers are the resolver's
//! ([`crate::jobs`]).

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamErrorKind, GetStreamErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};

use crate::BusError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A message identifier is remembered for so long; a repeat within it is acknowledged but not stored.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Revisions of a tag that REVISIONS keeps.
pub const REVISIONS_KEPT: u16 = 100;
/// Key of the number of partitions in the metadata of PUSHES.
const PARTITIONS_KEY: &str = "tagtrail.partitions";

/// A stream of Tagtrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Facts: pushes with a digest, and deletes.
    Pushes,
    /// Pushes whose digest must be asked for.
    Unresolved,
    /// Numbered revisions, and the fences of their publishers.
    Revisions,
    /// Changes of rollouts.
    Rollouts,
    /// What each digest is, once.
    Manifests,
    /// Authentic bodies that could not be understood.
    Quarantine,
    /// A message of each service now and then: whether the server takes any.
    Canary,
}

impl Stream {
    /// All of them.
    pub const ALL: [Stream; 7] = [
        Stream::Pushes,
        Stream::Unresolved,
        Stream::Revisions,
        Stream::Rollouts,
        Stream::Manifests,
        Stream::Canary,
        Stream::Quarantine,
    ];

    /// The stream's name on the server.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Pushes => "PUSHES",
            Stream::Unresolved => "UNRESOLVED",
            Stream::Revisions => "REVISIONS",
            Stream::Rollouts => "ROLLOUTS",
            Stream::Manifests => "MANIFESTS",
            Stream::Quarantine => "QUARANTINE",
            Stream::Canary => "CANARY",
        }
    }

    fn subjects(self) -> Vec<String> {
        let subjects: &[&str] = match self {
            Stream::Pushes => &["tagtrail.push.>"],
            Stream::Unresolved => &["tagtrail.unresolved.>"],
            // The fence must be in the same stream as what it guards: the server compares within one stream.
            Stream::Revisions => &["tagtrail.revision.>", "tagtrail.fence.*"],
            Stream::Rollouts => &["tagtrail.rollout.>"],
            Stream::Manifests => &["tagtrail.manifest.>"],
            Stream::Quarantine => &["tagtrail.quarantine.*"],
            Stream::Canary => &["tagtrail.canary.*"],
        };
        subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect()
    }

    /// The settings that this program wants. Whatever else an operator sets (placement, size limits) is left alone.
    #[must_use]
    pub fn config(self, partitions: u16, replicas: u8) -> Config {
        let wanted = Config {
            name: self.name().to_owned(),
            subjects: self.subjects(),
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: usize::from(replicas),
            duplicate_window: DUPLICATE_WINDOW,
            // A full stream refuses (the gateway then answers 503) rather than forget what nobody read.
            discard: DiscardPolicy::New,
            deny_delete: true,
            allow_direct: true,
            // As the server writes "no limit": otherwise every start would find a difference.
            max_message_size: -1,
            max_messages: -1,
            max_bytes: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            ..Config::default()
        };
        match self {
            Stream::Pushes => Config {
                description: Some("Facts as registries reported them; the only copy until the indexer has stored them".to_owned()),
                max_age: 14 * DAY,
                max_message_size: 256 * 1024,
                deny_purge: true,
                metadata: HashMap::from([(PARTITIONS_KEY.to_owned(), partitions.to_string())]),
                ..wanted
            },
            Stream::Unresolved => Config {
                description: Some("Pushes whose digest must be asked for at the registry".to_owned()),
                max_age: 14 * DAY,
                max_message_size: 256 * 1024,
                ..wanted
            },
            Stream::Revisions => Config {
                description: Some("Numbered revisions of tags; Postgres is their truth".to_owned()),
                max_messages_per_subject: i64::from(REVISIONS_KEPT),
                // Postgres can restore it, so the server need not sync each message: 8 times as fast (docs/decisions.md).
                // The server allows this for streams of one replica only.
                persist_mode: (replicas == 1).then_some(PersistenceMode::Async),
                ..wanted
            },
            Stream::Rollouts => Config {
                description: Some("Changes of rollouts; Postgres is their truth".to_owned()),
                max_age: 30 * DAY,
                ..wanted
            },
            Stream::Manifests => Config {
                description: Some("What each digest is, as read from its registry, once".to_owned()),
                // What a digest is never changes: a second message about it is refused. Synced, unlike REVISIONS: nobody reads it
                // from the registry again, and there are few.
                max_messages_per_subject: 1,
                discard_new_per_subject: true,
                ..wanted
            },
            Stream::Quarantine => Config {
                description: Some("Authentic bodies that could not be understood".to_owned()),
                max_age: 30 * DAY,
                // Here the newest are worth more than the oldest.
                discard: DiscardPolicy::Old,
                max_bytes: 1024 * 1024 * 1024,
                ..wanted
            },
            Stream::Canary => Config {
                description: Some("Whether messages are stored: written and forgotten every few seconds".to_owned()),
                max_messages_per_subject: 1,
                max_age: Duration::from_secs(60 * 60),
                discard: DiscardPolicy::Old,
                // Whoever looks for it may want it gone.
                deny_delete: false,
                ..wanted
            },
        }
    }
}

/// Creates the streams that are missing and brings the settings of the others up to date. Never deletes one.
pub(crate) async fn ensure(
    context: &jetstream::Context,
    partitions: u16,
    replicas: u8,
) -> Result<(), BusError> {
    for stream in Stream::ALL {
        ensure_one(context, stream, stream.config(partitions, replicas)).await?;
    }
    Ok(())
}

async fn ensure_one(
    context: &jetstream::Context,
    stream: Stream,
    wanted: Config,
) -> Result<(), BusError> {
    let name = stream.name();
    let existing = match context.get_stream(name).await {
        Ok(existing) => existing.cached_info().config.clone(),
        Err(err) => match err.kind() {
            GetStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                return create(context, name, wanted).await;
            }
            GetStreamErrorKind::JetStream(refusal) => return Err(refused(name, &refusal)),
            _ => {
                return Err(BusError::Unreachable(format!(
                    "asking for stream {name}: {err}"
                )));
            }
        },
    };
    let (has, wants) = (
        existing.metadata.get(PARTITIONS_KEY),
        wanted.metadata.get(PARTITIONS_KEY),
    );
    if has != wants {
        return Err(BusError::Unsuitable(format!(
            "stream {name} has {} partitions, but this process is configured for {}: start it with --partitions {}",
            has.map_or("unknown", String::as_str),
            wants.map_or("none", String::as_str),
            has.map_or("as the stream was made", String::as_str),
        )));
    }
    let updated = merged(&existing, &wanted);
    if updated == existing {
        return Ok(());
    }
    tracing::info!(stream = name, "bringing the stream's settings up to date");
    context
        .update_stream(updated)
        .await
        .map(|_| ())
        .map_err(|err: UpdateStreamError| match err.kind() {
            CreateStreamErrorKind::JetStream(refusal) => refused(name, &refusal),
            _ => BusError::Unreachable(format!("updating stream {name}: {err}")),
        })
}

async fn create(context: &jetstream::Context, name: &str, wanted: Config) -> Result<(), BusError> {
    match context.create_stream(wanted).await {
        Ok(_) => {
            tracing::info!(stream = name, "created the stream");
            Ok(())
        }
        Err(err) => match err.kind() {
            // Another service was first, with settings that differ in what the server adds: the next round compares.
            CreateStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                Err(BusError::Unreachable(format!(
                    "stream {name} is being created by another process"
                )))
            }
            CreateStreamErrorKind::JetStream(refusal) => Err(refused(name, &refusal)),
            // A server that refuses the request by the account's permissions does not answer it.
            _ => Err(BusError::Unreachable(format!(
                "creating stream {name}: {err} (an account that may not make streams has to wait for `tagtrail migrate` to do it)"
            ))),
        },
    }
}

/// The existing settings with ours put over them. What can't be changed on a living stream (persistence mode, storage) is kept.
fn merged(existing: &Config, wanted: &Config) -> Config {
    Config {
        subjects: wanted.subjects.clone(),
        max_age: wanted.max_age,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_message_size: wanted.max_message_size,
        duplicate_window: wanted.duplicate_window,
        discard: wanted.discard,
        deny_delete: existing.deny_delete || wanted.deny_delete,
        deny_purge: existing.deny_purge || wanted.deny_purge,
        allow_direct: wanted.allow_direct,
        num_replicas: wanted.num_replicas,
        description: wanted.description.clone(),
        ..existing.clone()
    }
}

fn refused(stream: &str, refusal: &jetstream::Error) -> BusError {
    // 10039, 503 and the like: JetStream is not ready (yet), or has no leader. Everything else stays as it is.
    if refusal.code() == 503
        || refusal.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            && refusal.code() >= 500
    {
        return BusError::Unreachable(format!("stream {stream}: {refusal}"));
    }
    if refusal.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED {
        return BusError::Unsuitable(format!(
            "NATS has no room for the stream {stream}: {refusal}; give the disk of nats-server, or max_file_store of its jetstream block, 2 GiB or more"
        ));
    }
    BusError::Unsuitable(format!(
        "NATS refuses the stream {stream}: {refusal}; see the permissions and limits of the account (docs/operations.md, Accounts)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_belongs_to_one_stream() {
        let mut subjects: Vec<String> = Stream::ALL
            .iter()
            .flat_map(|stream| stream.subjects())
            .collect();
        let all = subjects.len();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), all);
    }

    #[test]
    fn only_what_nobody_waits_for_is_forgotten_when_it_is_full() {
        for stream in Stream::ALL {
            let old = stream.config(8, 1).discard == DiscardPolicy::Old;
            let unneeded = matches!(stream, Stream::Quarantine | Stream::Canary);
            assert_eq!(old, unneeded, "{}", stream.name());
        }
    }

    #[test]
    fn pushes_are_synced_before_they_are_acknowledged() {
        assert_eq!(Stream::Pushes.config(8, 1).persist_mode, None);
    }

    #[test]
    fn what_a_digest_is_is_kept_for_ever_and_never_replaced() {
        let config = Stream::Manifests.config(8, 1);
        assert!(config.discard_new_per_subject && config.max_messages_per_subject == 1);
        assert_eq!(
            (config.max_age, config.persist_mode),
            (Duration::ZERO, None)
        );
    }

    #[test]
    fn what_an_operator_added_survives_an_update() {
        let wanted = Stream::Pushes.config(8, 1);
        let existing = Config {
            max_bytes: 10_000_000,
            max_age: DAY,
            ..wanted.clone()
        };
        let updated = merged(&existing, &wanted);
        assert_eq!(updated.max_bytes, 10_000_000);
        assert_eq!(updated.max_age, 14 * DAY);
    }
}
