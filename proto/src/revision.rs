//! A revision: a push that changed its tag, with an immutable number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion, words};
use crate::{Digest, Event, Image, Origin, Pinned, Registry, Repository, Tag};

words! {
    /// How a revision differs from the one before it in time.
    Kind {
        /// There was none before.
        Created = "created",
        /// Another digest, which the tag never had.
        Moved = "moved",
        /// Back to a digest that the tag had before.
        Reverted = "reverted",
        /// The tag is gone.
        Deleted = "deleted",
        /// It is there again.
        Recreated = "recreated",
    }
}

/// A numbered state of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// Its number.
    pub revision: u64,
    /// The digest, or none if the tag was deleted.
    pub digest: Option<Digest>,
}

/// `registry/repository:tag` revision 17 is one digest for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The registry.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
    /// The number: 1, 2, 3 … per tag, in the order recorded. Never reused, never changed.
    pub revision: u64,
    /// How it differs from the one before it in time.
    pub kind: Kind,
    /// The digest from then on; none if the tag was deleted.
    pub digest: Option<Digest>,
    /// What a target is told to run.
    pub pinned: Option<Pinned>,
    /// What was in force just before it in time, when it was recorded.
    pub previous: Option<Point>,
    /// Whether it was not the head when it was recorded: news about the past.
    pub late: bool,
    /// The tag's head when it was recorded: itself, unless it is late.
    pub head: Point,
    /// From when on it holds, by the registry's clock.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub occurred_at: OffsetDateTime,
    /// When Tagtrail recorded it.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub recorded_at: OffsetDateTime,
    /// How the fact behind it is known.
    pub origin: Origin,
    /// Name of the source that the fact came by.
    pub source: String,
    /// Who did it.
    pub actor: Option<String>,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Size of the manifest in bytes.
    pub size: Option<u64>,
}

impl Revision {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.revision.v1";

    /// The image.
    #[must_use]
    pub fn image(&self) -> Image {
        Image {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: self.tag.clone(),
        }
    }

    /// `<image>#<number>`: its identifier everywhere.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}#{}", self.image(), self.revision)
    }

    /// The message about it.
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
