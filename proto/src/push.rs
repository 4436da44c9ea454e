//! A push: one fact that a registry reported.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::digest::hex;
use crate::event::{DataContentType, SpecVersion, words};
use crate::{Digest, Event, Image, Registry, Repository, Tag};

words! {
    /// What happened to the tag.
    Action {
        /// It had a digest.
        Push = "push",
        /// It was deleted, or what it pointed to was.
        Delete = "delete",
    }
}

words! {
    /// What a delete removes; a push is of a tag.
    Scope {
        /// One tag.
        Tag = "tag",
        /// One digest, with every tag that has it.
        Digest = "digest",
        /// The repository, with all its tags.
        Repository = "repository",
    }
}

words! {
    /// How a push is known.
    Origin {
        /// The registry said so.
        Event = "event",
        /// Asked for, because the event had no digest or left a doubt.
        Resolved = "resolved",
        /// Found by comparing with the registry.
        Reconciled = "reconciled",
        /// Was there when the repository was first seen: history, never a reason to roll out.
        Imported = "imported",
    }
}

words! {
    /// Whose clock `occurred_at` is from.
    TimeSource {
        /// The sender's own.
        Event = "event",
        /// The sender gave none: when it was received.
        Received = "received",
    }
}

/// One fact that a registry reported: this tag had this digest, or was deleted, at this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Push {
    /// What happened.
    pub action: Action,
    /// What a delete removes.
    pub scope: Scope,
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag; absent only from deletes of a digest or a repository.
    pub tag: Option<Tag>,
    /// The digest; absent from deletes that name none, and from pushes that are to be resolved.
    pub digest: Option<Digest>,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Size of the manifest in bytes.
    pub size: Option<u64>,
    /// Who did it, as the registry calls them.
    pub actor: Option<String>,
    /// When, by the sender's clock; see `occurred_at_source`.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub occurred_at: OffsetDateTime,
    /// Whose clock that is.
    pub occurred_at_source: TimeSource,
    /// Name of the configured source that it came by.
    pub source: String,
    /// How it is known.
    pub origin: Origin,
    /// The sender's identifier of the event, or one made from its body.
    pub event_id: String,
}

/// A combination of fields that no fact can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {action} of scope {scope} {rule}")]
pub struct PushError {
    action: Action,
    scope: Scope,
    rule: &'static str,
}

impl Push {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.push.v1";

    /// Start of the `event_id` of a question that no registry raised: Tagtrail itself doubts what a tag means.
    pub const DOUBT: &'static str = "doubt:";

    /// Start of the `event_id` of a question that is asked once more, a while after it was answered. `digest` is what the answer
    /// was: registries tell of a push before it is complete.
    pub const SECOND: &'static str = "second:";

    /// Whether this is a fact that can be recorded.
    ///
    /// # Errors
    /// [`PushError`] names what is missing or too much.
    pub fn check(&self) -> Result<(), PushError> {
        let wrong = |rule| {
            Err(PushError {
                action: self.action,
                scope: self.scope,
                rule,
            })
        };
        match (self.action, self.scope, &self.tag, &self.digest) {
            (Action::Push, Scope::Digest | Scope::Repository, _, _) => {
                wrong("is not a fact: only tags are pushed")
            }
            (_, Scope::Tag, None, _) => wrong("needs a tag"),
            (Action::Push, Scope::Tag, Some(_), None) => wrong("needs a digest"),
            (Action::Delete, Scope::Digest, _, None) => wrong("needs a digest"),
            (Action::Delete, Scope::Digest | Scope::Repository, Some(_), _) => wrong("has no tag"),
            (Action::Delete, Scope::Repository, _, Some(_)) => wrong("has no digest"),
            (Action::Push, Scope::Tag, Some(_), Some(_))
            | (Action::Delete, Scope::Tag, Some(_), _)
            | (Action::Delete, Scope::Digest | Scope::Repository, None, _) => Ok(()),
        }
    }

    /// The image that it is about, if it is about one.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        let tag = self.tag.clone()?;
        Some(Image {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag,
        })
    }

    /// Identifier of the message (`Nats-Msg-Id`): SHA-256 over the source, the event's id and the normalised push. So a retry
    /// is swallowed by the stream, and a different push that reuses an id is not.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: Option<&str>| {
            // Length first, so that no two lists of parts look the same.
            hash.update(
                text.map_or(u64::MAX, |text| text.len() as u64)
                    .to_be_bytes(),
            );
            hash.update(text.unwrap_or_default());
        };
        let digest = self.digest.as_ref().map(Digest::to_string);
        let occurred_at = self.occurred_at.unix_timestamp_nanos().to_string();
        part(Some(&self.source));
        part(Some(&self.event_id));
        part(Some(self.action.as_str()));
        part(Some(self.scope.as_str()));
        part(Some(self.registry.as_ref()));
        part(Some(self.repository.as_ref()));
        part(self.tag.as_ref().map(AsRef::as_ref));
        part(digest.as_deref());
        // A time that the sender did not give differs between retries of the same event.
        part((self.occurred_at_source == TimeSource::Event).then_some(occurred_at.as_str()));
        hex(&hash.finalize())
    }

    /// The message about it.
    #[must_use]
    pub fn event(self) -> Event<Push> {
        let name = format!("{}/{}", self.registry, self.repository);
        Event {
            specversion: SpecVersion::V1,
            id: self.event_id.clone(),
            source: format!("tagtrail/{name}"),
            r#type: Push::TYPE.to_owned(),
            subject: self.image().map_or(name, |image| image.to_string()),
            time: self.occurred_at,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }
}
