//! A revision: a push that changed its tag, with an immutable number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion, words};
use crate::{Digest, Event, Image, Origin, Pinned, Registry, Repository, Tag};

words! {
    /// The change from the previous revision in time.
    Kind {
        /// No revision came before.
        Created = "created",
        /// The tag moved to a digest that it never had.
        Moved = "moved",
        /// The tag moved back to a digest that it had before.
        Reverted = "reverted",
        /// The tag was deleted.
        Deleted = "deleted",
        /// The tag exists again after a delete.
        Recreated = "recreated",
    }
}

/// A revision of a tag, by number and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// The number.
    pub revision: u64,
    /// The digest; none if the tag was deleted.
    pub digest: Option<Digest>,
}

/// A push that changed its tag. `registry/repository:tag` revision 17 never changes its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// The number: 1, 2, 3 … per tag, in the order of recording. Never reused, never changed.
    pub revision: u64,
    /// Change from the previous revision in time.
    pub kind: Kind,
    /// The digest from `occurred_at` on; none if the tag was deleted.
    pub digest: Option<Digest>,
    /// Pinned reference that a target must run.
    pub pinned: Option<Pinned>,
    /// Revision in force just before `occurred_at`, as of the recording.
    pub previous: Option<Point>,
    /// True if this revision was not the head when recorded, and so changes only the past.
    pub late: bool,
    /// Head of the tag as of the recording: this revision, unless `late`.
    pub head: Point,
    /// Start of the revision, by the registry's clock.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub occurred_at: OffsetDateTime,
    /// Time of recording.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub recorded_at: OffsetDateTime,
    /// Way in which Tagtrail learned of the push.
    pub origin: Origin,
    /// Name of the source that reported the push.
    pub source: String,
    /// Author of the change, by the name in the registry.
    pub actor: Option<String>,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Size of the manifest in bytes.
    pub size: Option<u64>,
}

impl Revision {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.revision.v1";

    /// Returns the image.
    #[must_use]
    pub fn image(&self) -> Image {
        Image {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: self.tag.clone(),
        }
    }

    /// Returns `<image>#<number>`, the id of the revision in all programs.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}#{}", self.image(), self.revision)
    }

    /// Returns the event that carries the revision.
    #[must_use]
    pub fn event(self) -> Event<Revision> {
        Event {
            specversion: SpecVersion::V1,
            id: self.id(),
            source: format!("tagtrail/{}/{}", self.registry, self.repository),
            r#type: Revision::TYPE.to_owned(),
            subject: self.image().to_string(),
            time: self.occurred_at,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }
}
