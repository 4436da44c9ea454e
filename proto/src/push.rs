//! A push: one report of a registry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::digest::hex;
use crate::event::{DataContentType, SpecVersion, words};
use crate::{Digest, Event, Image, Registry, Repository, Tag};

words! {
    /// The kind of a push.
    Action {
        /// The tag had a digest.
        Push = "push",
        /// The tag, its digest or its repository was deleted.
        Delete = "delete",
    }
}

words! {
    /// The scope of a delete. The scope of a push is always `tag`.
    Scope {
        /// One tag.
        Tag = "tag",
        /// One digest, with every tag that points to it.
        Digest = "digest",
        /// One repository, with all its tags.
        Repository = "repository",
    }
}

words! {
    /// The way in which Tagtrail learned of a push.
    Origin {
        /// An event of the registry.
        Event = "event",
        /// A registry's answer to a question, because an event had no digest or was doubtful.
        Resolved = "resolved",
        /// A difference found by comparing the registry with history.
        Reconciled = "reconciled",
        /// Present when its repository was first reconciled: history, never a reason to roll out.
        Imported = "imported",
    }
}

words! {
    /// The clock of `occurred_at`.
    TimeSource {
        /// The sender's clock.
        Event = "event",
        /// The sender gave no time: the time of receipt.
        Received = "received",
    }
}

/// One report of a registry: this tag had this digest, or was deleted, at this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Push {
    /// Push or delete.
    pub action: Action,
    /// Scope of a delete.
    pub scope: Scope,
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag; absent only from deletes of a digest or a repository.
    pub tag: Option<Tag>,
    /// The digest; absent from deletes that name none, and from pushes that the resolver completes.
    pub digest: Option<Digest>,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Size of the manifest in bytes.
    pub size: Option<u64>,
    /// Author of the change, by the name in the registry.
    pub actor: Option<String>,
    /// Time of the change, by the clock that `occurred_at_source` names.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub occurred_at: OffsetDateTime,
    /// Clock of `occurred_at`.
    pub occurred_at_source: TimeSource,
    /// Name of the configured source that reported the push.
    pub source: String,
    /// Way in which Tagtrail learned of the push.
    pub origin: Origin,
    /// The sender's id of the event, or an id made from the body.
    pub event_id: String,
}

/// The error of a push whose fields contradict each other.
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

    /// The prefix of the `event_id` of a re-check: the indexer asks the registry again, because the
    /// order of a tag's pushes is doubtful.
    pub const RECHECK: &'static str = "doubt:";

    /// The prefix of the `event_id` of a question that is asked again some time after its answer,
    /// which is in `digest`: registries report a push before the push is complete.
    pub const SECOND: &'static str = "second:";

    /// The prefix of the `event_id` of an observation: a pull reported that the tag has the digest
    /// in `digest`. The answer of the registry to an observation has the same `event_id`.
    pub const OBSERVED: &'static str = "observed:";

    /// The beginnings of `event_id` that change how a message is treated. No sender's id keeps one
    /// of them.
    pub const RESERVED: [&'static str; 3] = [Push::RECHECK, Push::SECOND, Push::OBSERVED];

    /// Returns a re-check: a question about the present digest of an image. `head` is the number of
    /// the revision that the question is about, and `head_at` its effective time. The answer takes
    /// effect after that time, even where the head's sender had a clock that is ahead.
    #[must_use]
    pub fn recheck(image: &Image, head: u64, head_at: OffsetDateTime, source: &str) -> Push {
        Push {
            action: Action::Push,
            scope: Scope::Tag,
            registry: image.registry.clone(),
            repository: image.repository.clone(),
            tag: Some(image.tag.clone()),
            digest: None,
            media_type: None,
            size: None,
            actor: None,
            occurred_at: head_at,
            occurred_at_source: TimeSource::Received,
            source: source.to_owned(),
            origin: Origin::Event,
            event_id: format!("{}{image}#{head}", Push::RECHECK),
        }
    }

    /// Checks that the push can be recorded.
    ///
    /// # Errors
    /// [`PushError`] names the field that is missing or superfluous.
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
                wrong("is impossible: only tags are pushed")
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

    /// Returns the image, if the push names a tag.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        let tag = self.tag.clone()?;
        Some(Image {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag,
        })
    }

    /// Returns the id of the message (`Nats-Msg-Id`): SHA-256 over the source, the event's id and
    /// the normalised push. So the stream drops a retry as a duplicate, but not a different push
    /// that reuses an event's id.
    #[must_use]
    pub fn message_id(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: Option<&str>| {
            // The length comes first, so that two lists of parts never become the same bytes.
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
        // A time of receipt is left out: it differs between retries of the same event.
        part((self.occurred_at_source == TimeSource::Event).then_some(occurred_at.as_str()));
        hex(&hash.finalize())
    }

    /// Returns the event that carries the push.
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
