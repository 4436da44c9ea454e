//! What a digest is: its manifest, and the config that the manifest names. Read once, since neither can change.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion};
use crate::{Digest, Event, Pinned, Registry, Repository, clean_text};

/// A platform that an image is for, as the OCI image specification names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor, such as `amd64`.
    pub architecture: String,
    /// Variant of the processor, such as `v8`.
    pub variant: Option<String>,
    /// The manifest for it, where there are several.
    pub digest: Option<Digest>,
}

/// What a digest is, as its author's own bytes say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Which manifest.
    pub digest: Digest,
    /// The registry that it was read from.
    pub registry: Registry,
    /// The repository that it was read from.
    pub repository: Repository,
    /// Media type of the manifest.
    pub media_type: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// What it is, where it is no image.
    pub artifact_type: Option<String>,
    /// What it runs on: the platforms of an index, or the one of an image. At most 64.
    pub platforms: Vec<Platform>,
    /// When it was built, by its author's clock.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub created: Option<OffsetDateTime>,
    /// Labels of the image; of an index, those of one of its images. At most 128.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest. At most 128.
    pub annotations: BTreeMap<String, String>,
    /// Commit of the source that it was built from: `org.opencontainers.image.revision` of the annotations, else of the labels.
    pub revision: Option<String>,
    /// Where that source is: `org.opencontainers.image.source`.
    pub source: Option<String>,
    /// Version of what is packaged: `org.opencontainers.image.version`.
    pub version: Option<String>,
    /// When it was read.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub read_at: OffsetDateTime,
}

impl Manifest {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.manifest.v1";

    /// Most platforms that are kept.
    pub const PLATFORMS: usize = 64;
    /// Most labels, and most annotations, that are kept.
    pub const TEXTS: usize = 128;
    /// Bytes of any text that are kept; of a map's keys, longer ones are left out.
    pub const TEXT: usize = 512;
    /// Bytes of all labels, and of all annotations, that are kept: a message stays far below what NATS accepts by default.
    pub const ALL_TEXTS: usize = 32 * 1024;

    /// Within its bounds and fit to be kept, whatever the author wrote. Done twice it changes nothing.
    #[must_use]
    pub fn cleaned(mut self) -> Manifest {
        let clean = |text: &mut String| *text = clean_text(text, Manifest::TEXT);
        let known = [
            &mut self.artifact_type,
            &mut self.revision,
            &mut self.source,
            &mut self.version,
        ];
        known.into_iter().flatten().for_each(clean);
        clean(&mut self.media_type);
        self.platforms.truncate(Manifest::PLATFORMS);
        for platform in &mut self.platforms {
            clean(&mut platform.os);
            clean(&mut platform.architecture);
            platform.variant.iter_mut().for_each(clean);
        }
        self.labels = cleaned_map(self.labels);
        self.annotations = cleaned_map(self.annotations);
        self.created = self.created.map(to_micros);
        self.read_at = to_micros(self.read_at);
        self
    }

    /// The reference that it was read by.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        Pinned {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            digest: self.digest.clone(),
        }
    }

    /// The message about it.
    #[must_use]
    pub fn event(self) -> Event<Manifest> {
        Event {
            specversion: SpecVersion::V1,
            id: self.digest.to_string(),
            source: format!("tagtrail/{}/{}", self.registry, self.repository),
            r#type: Manifest::TYPE.to_owned(),
            subject: self.pinned().to_string(),
            time: self.read_at,
            datacontenttype: DataContentType::Json,
            data: self,
        }
    }
}

fn cleaned_map(map: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut room = Manifest::ALL_TEXTS;
    map.into_iter()
        .filter(|(key, _)| key.len() <= Manifest::TEXT)
        .map(|(key, value)| {
            (
                clean_text(&key, Manifest::TEXT),
                clean_text(&value, Manifest::TEXT),
            )
        })
        .take(Manifest::TEXTS)
        .take_while(|(key, value)| {
            let needed = key.len() + value.len();
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        })
        .collect()
}

/// As Postgres keeps times.
fn to_micros(time: OffsetDateTime) -> OffsetDateTime {
    let nanosecond = time.nanosecond() / 1000 * 1000;
    time.replace_nanosecond(nanosecond).unwrap_or(time)
}
