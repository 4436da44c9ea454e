//! Every stream, its subjects and its limits. Readers keep their positions in Postgres; the
//! resolver has the only durable consumers ([`crate::jobs`]).

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamErrorKind, GetStreamErrorKind, UpdateStreamError,
};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{self, ErrorCode};
use serde_json::Value;
use tagtrail_proto::Subject;

use crate::BusError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Duplicate window of all streams: a repeated `Nats-Msg-Id` within it is acknowledged, but not
/// stored again.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);
/// Most revisions of one tag that REVISIONS keeps.
pub const REVISIONS_KEPT: u16 = 100;
/// Key of the number of partitions in the metadata of the streams of pushes.
const PARTITIONS_KEY: &str = "tagtrail.partitions";
/// The names of [`Stream::PushesOf`].
static NUMBERED: LazyLock<Vec<String>> = LazyLock::new(|| {
    (0..=u8::MAX)
        .map(|number| format!("PUSHES_{number}"))
        .collect()
});

/// A stream of Tagtrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Pushes with a digest, and deletes: all of them, where there is one such stream.
    Pushes,
    /// The pushes of a share of the partitions, where there are several such streams
    /// ([`crate::pushes`]).
    PushesOf(u8),
    /// Questions: pushes without a digest, and rechecks.
    Unresolved,
    /// Numbered revisions, and the fences of their publishers.
    Revisions,
    /// Changes of rollouts, holds and conditions of triggers.
    Rollouts,
    /// The content of each digest, once.
    Manifests,
    /// Authentic bodies that could not be read.
    Quarantine,
    /// Test messages, by which each service checks that the server stores messages.
    Canary,
}

impl Stream {
    /// All streams, as they are with one stream of pushes.
    pub const ALL: [Stream; 7] = [
        Stream::Pushes,
        Stream::Unresolved,
        Stream::Revisions,
        Stream::Rollouts,
        Stream::Manifests,
        Stream::Canary,
        Stream::Quarantine,
    ];

    /// Returns the streams of anything but pushes.
    pub(crate) fn of_others() -> impl Iterator<Item = Stream> {
        let all = Stream::ALL.into_iter();
        all.filter(|stream| *stream != Stream::Pushes)
    }

    /// Returns the stream's name on the server.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stream::Pushes => "PUSHES",
            Stream::PushesOf(number) => NUMBERED
                .get(usize::from(number))
                .map_or("PUSHES", String::as_str),
            Stream::Unresolved => "UNRESOLVED",
            Stream::Revisions => "REVISIONS",
            Stream::Rollouts => "ROLLOUTS",
            Stream::Manifests => "MANIFESTS",
            Stream::Quarantine => "QUARANTINE",
            Stream::Canary => "CANARY",
        }
    }

    /// Returns the stream of pushes with this name.
    #[must_use]
    pub fn of_pushes(name: &str) -> Option<Stream> {
        if name == Stream::Pushes.name() {
            return Some(Stream::Pushes);
        }
        let number = name.strip_prefix("PUSHES_")?.parse().ok()?;
        Some(Stream::PushesOf(number))
    }

    /// Returns the stream, with all streams of pushes taken as one.
    #[must_use]
    pub const fn kind(self) -> Stream {
        match self {
            Stream::PushesOf(_) => Stream::Pushes,
            other => other,
        }
    }

    /// Returns the stream that keeps the messages of a subject, with all streams of pushes taken as
    /// one.
    #[must_use]
    pub const fn of(subject: &Subject) -> Stream {
        match subject {
            Subject::Push { .. } => Stream::Pushes,
            Subject::Unresolved { .. } => Stream::Unresolved,
            Subject::Revision { .. } | Subject::Fence { .. } => Stream::Revisions,
            Subject::Rollout { .. } | Subject::Hold { .. } | Subject::Trigger { .. } => {
                Stream::Rollouts
            }
            Subject::Manifest { .. } => Stream::Manifests,
            Subject::Quarantine { .. } => Stream::Quarantine,
        }
    }

    fn subjects(self) -> Vec<String> {
        let subjects: &[&str] = match self {
            Stream::Pushes => &[Subject::ALL_PUSHES],
            // Given with the number of streams.
            Stream::PushesOf(_) => &[],
            Stream::Unresolved => &["tagtrail.unresolved.>"],
            // A fence must be in the stream that it guards: the server checks a condition within
            // one stream.
            Stream::Revisions => &["tagtrail.revision.>", "tagtrail.fence.*"],
            Stream::Rollouts => &[
                "tagtrail.rollout.>",
                "tagtrail.hold.*",
                "tagtrail.trigger.>",
            ],
            Stream::Manifests => &["tagtrail.manifest.>"],
            Stream::Quarantine => &["tagtrail.quarantine.*"],
            Stream::Canary => &["tagtrail.canary.*"],
        };
        subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect()
    }

    /// Returns the wanted settings. Other settings of an operator (placement, size limits) stay as
    /// they are.
    #[must_use]
    pub fn config(self, partitions: u16, replicas: u8) -> Config {
        let wanted = Config {
            name: self.name().to_owned(),
            subjects: self.subjects(),
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: usize::from(replicas),
            duplicate_window: DUPLICATE_WINDOW,
            // A full stream refuses messages (the gateway then answers 503) rather than drop unread
            // ones.
            discard: DiscardPolicy::New,
            deny_delete: true,
            allow_direct: true,
            // The server writes "no limit" as -1; with other values every start would find a
            // difference.
            max_message_size: -1,
            max_messages: -1,
            max_bytes: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            ..Config::default()
        };
        match self {
            Stream::Pushes | Stream::PushesOf(_) => Config {
                description: Some("Pushes as registries reported them; the only copy until the indexer has recorded them".to_owned()),
                max_age: 14 * DAY,
                max_message_size: 256 * 1024,
                deny_purge: true,
                // For groups of pushes (`group.rs`).
                allow_atomic_publish: true,
                metadata: HashMap::from([(PARTITIONS_KEY.to_owned(), partitions.to_string())]),
                ..wanted
            },
            Stream::Unresolved => Config {
                description: Some("Questions to registries: pushes without a digest, and rechecks".to_owned()),
                max_age: 14 * DAY,
                max_message_size: 256 * 1024,
                ..wanted
            },
            Stream::Revisions => Config {
                description: Some("Numbered revisions of tags; Postgres has the full record".to_owned()),
                max_messages_per_subject: i64::from(REVISIONS_KEPT),
                // Postgres can restore REVISIONS, so the server need not sync each message: 8 times
                // as fast (docs/decisions.md). The server allows this for streams of one replica
                // only.
                persist_mode: (replicas == 1).then_some(PersistenceMode::Async),
                // A partition has one message behind its fence under way at a time, or one group.
                allow_atomic_publish: replicas > 1,
                ..wanted
            },
            Stream::Rollouts => Config {
                description: Some("Changes of rollouts, holds and conditions of triggers; Postgres has the full record".to_owned()),
                max_age: 30 * DAY,
                ..wanted
            },
            Stream::Manifests => Config {
                description: Some("The content of each digest, as read from its registry, once".to_owned()),
                // The content of a digest never changes, so a second message is refused. Synced,
                // unlike REVISIONS: the manifest is not read from the registry again, and messages
                // are few.
                max_messages_per_subject: 1,
                discard_new_per_subject: true,
                ..wanted
            },
            Stream::Quarantine => Config {
                description: Some("Authentic bodies that could not be read".to_owned()),
                max_age: 30 * DAY,
                // The newest bodies are worth more than the oldest.
                discard: DiscardPolicy::Old,
                max_bytes: 1024 * 1024 * 1024,
                ..wanted
            },
            Stream::Canary => Config {
                description: Some("Test messages of the services, to check that messages are stored".to_owned()),
                max_messages_per_subject: 1,
                max_age: Duration::from_secs(60 * 60),
                discard: DiscardPolicy::Old,
                // An operator may delete it.
                deny_delete: false,
                ..wanted
            },
        }
    }
}

/// Creates missing streams and updates the settings of the others, except the streams of pushes.
/// Never deletes a stream.
pub(crate) async fn ensure(
    context: &jetstream::Context,
    partitions: u16,
    replicas: u8,
) -> Result<(), BusError> {
    for stream in Stream::of_others() {
        let wanted = stream.config(partitions, replicas);
        match existing(context, stream).await? {
            Some(existing) => update(context, &existing, &wanted).await?,
            None => drop(create(context, wanted).await?),
        }
    }
    Ok(())
}

/// Returns the settings of a stream; `None` if it does not exist.
pub(crate) async fn existing(
    context: &jetstream::Context,
    stream: Stream,
) -> Result<Option<Config>, BusError> {
    let name = stream.name();
    match context.get_stream(name).await {
        Ok(existing) => Ok(Some(existing.cached_info().config.clone())),
        Err(err) => match err.kind() {
            GetStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            GetStreamErrorKind::JetStream(refusal) => Err(refused(name, &refusal)),
            _ => Err(BusError::Unreachable(format!(
                "asking for stream {name}: {err}"
            ))),
        },
    }
}

/// Brings the settings of an existing stream up to date.
pub(crate) async fn update(
    context: &jetstream::Context,
    existing: &Config,
    wanted: &Config,
) -> Result<(), BusError> {
    let name = wanted.name.as_str();
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
    let updated = merged(existing, wanted);
    if updated == *existing {
        return Ok(());
    }
    refuse_to_reset(context, name, &updated).await?;
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

/// Creates a stream, and returns its settings as the server completed them.
pub(crate) async fn create(
    context: &jetstream::Context,
    wanted: Config,
) -> Result<Config, BusError> {
    let name = wanted.name.clone();
    match context.create_stream(wanted).await {
        Ok(created) => {
            tracing::info!(stream = name, "created the stream");
            Ok(created.cached_info().config.clone())
        }
        Err(err) => match err.kind() {
            // Another service created it first; the next attempt compares the settings.
            CreateStreamErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                Err(BusError::Unreachable(format!(
                    "stream {name} is being created by another process"
                )))
            }
            CreateStreamErrorKind::JetStream(refusal) => Err(refused(&name, &refusal)),
            // A server that refuses the request by the account's permissions does not answer it.
            _ => Err(BusError::Unreachable(format!(
                "creating stream {name}: {err} (an account without the right to create streams waits here until `tagtrail migrate` has created them)"
            ))),
        },
    }
}

/// Returns the existing settings with ours applied. Settings that can't change on an existing
/// stream (persistence mode, storage) stay.
fn merged(existing: &Config, wanted: &Config) -> Config {
    let mut metadata = existing.metadata.clone();
    metadata.extend(wanted.metadata.clone());
    Config {
        metadata,
        subjects: wanted.subjects.clone(),
        max_age: wanted.max_age,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_message_size: wanted.max_message_size,
        duplicate_window: wanted.duplicate_window,
        discard: wanted.discard,
        deny_delete: existing.deny_delete || wanted.deny_delete,
        deny_purge: existing.deny_purge || wanted.deny_purge,
        allow_direct: wanted.allow_direct,
        allow_atomic_publish: existing.allow_atomic_publish || wanted.allow_atomic_publish,
        num_replicas: wanted.num_replicas,
        description: wanted.description.clone(),
        ..existing.clone()
    }
}

/// Refuses an update that would reset settings of a newer nats-server: the client does not know
/// them, so it can't write them back.
async fn refuse_to_reset(
    context: &jetstream::Context,
    name: &str,
    updated: &Config,
) -> Result<(), BusError> {
    let failed =
        |cause: String| BusError::Unreachable(format!("asking for stream {name}: {cause}"));
    let asking = context.request(format!("STREAM.INFO.{name}"), &());
    let info: Value = asking.await.map_err(|err| failed(err.to_string()))?;
    let written = serde_json::to_value(updated).map_err(|err| failed(err.to_string()))?;
    let mut unknown = Vec::new();
    find_missing(&info["config"], &written, "", &mut unknown);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(BusError::Unsuitable(format!(
        "the stream {name} has settings of a newer nats-server, which an update by this version of Tagtrail would reset: {}; take these settings back, or upgrade Tagtrail",
        unknown.join(", ")
    )))
}

/// Collects the names of the settings in `kept` that `written` lacks. An empty setting is as good
/// as a missing one.
fn find_missing(kept: &Value, written: &Value, path: &str, missing: &mut Vec<String>) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    for (name, value) in kept.as_object().into_iter().flatten() {
        let name_in = format!("{path}{name}");
        match written.get(name) {
            Some(inner) => find_missing(value, inner, &format!("{name_in}."), missing),
            None if empty(value) => {}
            None => missing.push(name_in),
        }
    }
}

fn refused(stream: &str, refusal: &jetstream::Error) -> BusError {
    // 10039 and 503: JetStream is not ready yet, or has no leader. Other refusals don't heal by
    // themselves.
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
    fn only_quarantine_and_canary_drop_old_messages_when_full() {
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
    fn a_manifest_is_kept_without_a_limit_and_never_replaced() {
        let config = Stream::Manifests.config(8, 1);
        assert!(config.discard_new_per_subject && config.max_messages_per_subject == 1);
        assert_eq!(
            (config.max_age, config.persist_mode),
            (Duration::ZERO, None)
        );
    }

    #[test]
    fn settings_that_an_update_would_reset_are_named() {
        let kept = serde_json::json!({
            "name": "PUSHES", "new_switch": false, "new_limit": 5,
            "placement": { "cluster": "c", "zone": "z" },
        });
        let written =
            serde_json::json!({ "name": "PUSHES", "placement": { "cluster": "c" }, "max_age": 1 });
        let mut missing = Vec::new();
        find_missing(&kept, &written, "", &mut missing);
        assert_eq!(missing, ["new_limit", "placement.zone"]);
    }

    #[test]
    fn an_update_keeps_the_limits_of_an_operator() {
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
