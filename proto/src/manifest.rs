//! The content of a digest: a manifest, and the config that the manifest names. Neither can change,
//! so each digest is read once.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::{DataContentType, SpecVersion};
use crate::{
    Digest, Event, ImageContents, IndexContents, Pinned, Registry, Repository, clean_text,
};

/// A platform of an image, as the OCI image specification names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor, such as `amd64`.
    pub architecture: String,
    /// Variant of the processor, such as `v8`.
    pub variant: Option<String>,
    /// Version of the operating system, such as `10.0.20348.2113`: images for Windows run only on
    /// this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Digest of the platform's own manifest, in an index.
    pub digest: Option<Digest>,
}

impl Platform {
    /// Returns the platform with the version of the operating system, if an image needs one:
    /// `windows/amd64:10.0.20348.2113`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.os_version {
            Some(version) => format!("{self}:{version}"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Platform {
    /// Writes the platform as clients of registries do: `linux/arm64/v8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The content of a digest, as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Registry that returned the manifest.
    pub registry: Registry,
    /// Repository that the manifest was read from.
    pub repository: Repository,
    /// Media type of the manifest.
    pub media_type: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// Type of the artifact, if the manifest is not an image.
    pub artifact_type: Option<String>,
    /// Platforms of an index, or the single platform of an image. At most 64.
    pub platforms: Vec<Platform>,
    /// Time of the build, by the author's clock.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub created: Option<OffsetDateTime>,
    /// Labels of the image, or of one image of an index. At most 128.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest. At most 128.
    pub annotations: BTreeMap<String, String>,
    /// Source commit: `org.opencontainers.image.revision` of the annotations, else of the labels.
    pub revision: Option<String>,
    /// Address of the source code: `org.opencontainers.image.source`.
    pub source: Option<String>,
    /// Version of the packaged software: `org.opencontainers.image.version`.
    pub version: Option<String>,
    /// True if a client made the image up in order to delete a tag. It is never rolled out.
    /// Messages of earlier versions lack this field.
    #[serde(default)]
    #[schemars(required)]
    pub tombstone: bool,
    /// Contents of the image, or of one image of an index. Null: the manifest is no image, or an
    /// earlier version read it.
    #[serde(default)]
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageContents>,
    /// Contents of the index. Null: the manifest is no index, or an earlier version read it.
    #[serde(default)]
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexContents>,
    /// Time at which the manifest was read.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub read_at: OffsetDateTime,
}

impl Manifest {
    /// Type of the `CloudEvents` envelope.
    pub const TYPE: &'static str = "dev.tagtrail.manifest.v1";

    /// Most platforms kept.
    pub const PLATFORMS: usize = 64;
    /// Most labels kept, and most annotations.
    pub const TEXTS: usize = 128;
    /// Most bytes kept of any text. An entry of a map with a longer key is left out.
    pub const TEXT: usize = 512;
    /// Most bytes kept of all labels, and of all annotations: a message stays far below the default
    /// limit of NATS (1 MiB).
    pub const ALL_TEXTS: usize = 32 * 1024;

    /// Returns the manifest cut to its bounds, with each text cleaned by [`clean_text`]. A second
    /// call changes nothing.
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
            platform.os_version.iter_mut().for_each(clean);
        }
        self.labels = cleaned_map(self.labels);
        self.annotations = cleaned_map(self.annotations);
        self.image = self.image.map(ImageContents::cleaned);
        self.index = self.index.map(IndexContents::cleaned);
        self.created = self.created.map(to_micros);
        self.read_at = to_micros(self.read_at);
        self
    }

    /// Returns the reference by which the manifest was read.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        Pinned {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            digest: self.digest.clone(),
        }
    }

    /// Returns the event that carries the manifest.
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

/// Cuts a time to microseconds, as Postgres does.
fn to_micros(time: OffsetDateTime) -> OffsetDateTime {
    let nanosecond = time.nanosecond() / 1000 * 1000;
    time.replace_nanosecond(nanosecond).unwrap_or(time)
}
