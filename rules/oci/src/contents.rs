//! Parses the bytes of a manifest and of an image config. No I/O.
//!
//! The bytes are untrusted: anybody with the right to push writes them. So parsing never fails, but
//! leaves out each malformed field. Other fields are skipped without a copy, and without recursion
//! at any depth of nesting.

mod image;
mod json;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tagtrail_proto::{Digest, ImageSettings, IndexContents, Manifest, Platform, instant};
use time::OffsetDateTime;

pub use image::{History, Layers, contents};
use image::{index, settings};
use json::{each, fields, of, text, texts};

/// Descriptors read of an index. Builders add an attestation to each image, hence more than
/// platforms.
const MAX_DESCRIPTORS: usize = 4 * Manifest::PLATFORMS;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Bytes of a config: larger ones are not read from the registry.
const MAX_CONFIG_SIZE: u64 = 1024 * 1024;

/// The fields of a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ManifestFields {
    /// The `mediaType` of the manifest, or the type inferred from the other fields.
    pub media_type: Option<String>,
    /// The `artifactType` of the manifest.
    pub artifact_type: Option<String>,
    /// The platforms of an index.
    pub platforms: Vec<Platform>,
    /// The annotations of the manifest, within the bounds of this module.
    pub annotations: BTreeMap<String, String>,
    /// The config of an image.
    pub config: Option<Digest>,
    /// The layers of an image.
    pub layers: Option<Layers>,
    /// The manifests of an index.
    pub children: Option<IndexContents>,
    /// The image of an index that stands for all its images.
    pub image: Option<Digest>,
    /// The first index in an index without an image of its own.
    pub index: Option<Digest>,
}

/// The fields of the config of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform that the image runs on.
    pub platform: Option<Platform>,
    /// The time of the build.
    pub created: Option<OffsetDateTime>,
    /// The labels of the image, within the bounds of this module.
    pub labels: BTreeMap<String, String>,
    /// The commands that created the layers.
    pub history: History,
    /// The settings with which the image runs. `None`: the bytes are no config.
    pub settings: Option<ImageSettings>,
}

impl ImageConfig {
    /// Returns true if a client made the image up in order to delete a tag. Where a registry has no
    /// deletion of tags, `regctl` and its libraries push such an image under the tag, and then
    /// delete the digest of the image.
    pub fn is_tombstone(&self) -> bool {
        ["delete-tag", "delete-date"]
            .iter()
            .all(|label| self.labels.contains_key(*label))
    }
}

/// Parses a manifest of any kind, OCI or Docker: of an image, an index, or an artifact.
pub fn manifest(bytes: &[u8]) -> ManifestFields {
    let [
        media_type,
        artifact_type,
        annotations,
        config,
        manifests,
        layers,
        old,
    ] = fields(
        bytes,
        [
            "mediaType",
            "artifactType",
            "annotations",
            "config",
            "manifests",
            "layers",
            "fsLayers",
        ],
    );
    let inferred = if manifests.is_some() {
        Some(INDEX)
    } else if config.is_some() || layers.is_some() {
        Some(IMAGE)
    } else {
        old.map(|_| SCHEMA_1)
    };
    let config = config.map(descriptor).unwrap_or_default();
    let is_image = config.media_type.as_deref().is_some_and(is_image_config);
    let (mut descriptors, mut count) = (Vec::new(), 0);
    let is_index = each(manifests, |item| {
        count += 1;
        if descriptors.len() < MAX_DESCRIPTORS {
            descriptors.push(descriptor(item));
        }
    });
    ManifestFields {
        layers: layers.filter(|_| is_image).and_then(Layers::parse),
        children: is_index.then(|| index(&descriptors, count)),
        media_type: text(media_type).or(inferred.map(str::to_owned)),
        // Without an `artifactType` the media type of the config counts (OCI image specification,
        // "Guidelines for Artifact Usage").
        artifact_type: artifact(artifact_type)
            .or_else(|| {
                let kind = config.media_type.clone();
                kind.filter(|kind| !is_image && kind != EMPTY)
            })
            .or_else(|| index_of_blobs(&descriptors)),
        annotations: texts(annotations),
        config: config
            .digest
            .filter(|_| is_image && config.size.is_none_or(|size| size <= MAX_CONFIG_SIZE)),
        index: nested(&descriptors),
        image: representative(&descriptors),
        platforms: descriptors
            .into_iter()
            .filter_map(|descriptor| {
                let platform = descriptor.platform?;
                Some(Platform {
                    digest: Some(descriptor.digest?),
                    ..platform
                })
            })
            .take(Manifest::PLATFORMS)
            .collect(),
    }
}

/// Parses the config of an image.
pub fn config(bytes: &[u8]) -> ImageConfig {
    let [created, config, history] = fields(bytes, ["created", "config", "history"]);
    let platform = platform(bytes);
    // A config without settings names at least its platform.
    let bare = platform.is_some().then(ImageSettings::default);
    let [labels] = config.map_or([None], |config| fields(of(config), ["Labels"]));
    ImageConfig {
        platform,
        created: text(created).and_then(|text| build_time(&text)),
        labels: texts(labels),
        history: History::parse(history),
        settings: config.map(settings).or(bare),
    }
}

/// Parses the time of a build. A time in year 1 is Go's zero time, which encoders write for a time
/// that was never set, so it counts as missing.
pub fn build_time(text: &str) -> Option<OffsetDateTime> {
    instant::parse(text).filter(|time| time.year() > 1)
}

/// Parses an `artifactType`. The type of an image config says that the content is an image:
/// go-containerregistry writes this type into the descriptor of each image of an index.
fn artifact(raw: Option<&RawValue>) -> Option<String> {
    text(raw).filter(|kind| !kind.is_empty() && !is_image_config(kind))
}

fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | DOCKER_CONFIG)
}

/// Returns the type of an index that lists blobs in place of manifests, as a build cache of
/// `BuildKit` does: the one media type among the entries that is no layer.
fn index_of_blobs(descriptors: &[DescriptorFields]) -> Option<String> {
    let kinds: Option<Vec<&str>> = descriptors
        .iter()
        .map(|one| one.media_type.as_deref().filter(|kind| !is_manifest(kind)))
        .collect();
    let mut others = kinds?.into_iter().filter(|kind| !is_layer(kind));
    let kind = others.next()?;
    others.all(|other| other == kind).then(|| kind.to_owned())
}

fn is_manifest(media_type: &str) -> bool {
    let kinds = [
        "application/vnd.oci.artifact.manifest.",
        "application/vnd.oci.image.manifest.",
        "application/vnd.oci.image.index.",
        "application/vnd.docker.distribution.manifest.",
    ];
    kinds.iter().any(|kind| media_type.starts_with(kind))
}

fn is_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.")
}

/// The image of an index whose config is read: the image for linux/amd64, or else the first.
fn representative(descriptors: &[DescriptorFields]) -> Option<Digest> {
    let images = || {
        descriptors.iter().filter(|one| {
            let is_image = matches!(one.media_type.as_deref(), None | Some(IMAGE | DOCKER_IMAGE));
            is_image && !one.attests && one.digest.is_some()
        })
    };
    let usual = images().find(|one| {
        let platform = one.platform.as_ref();
        platform.is_some_and(|one| one.os == "linux" && one.architecture == "amd64")
    });
    usual.or_else(|| images().next())?.digest.clone()
}

/// Returns the first index of an index without an image of its own.
fn nested(descriptors: &[DescriptorFields]) -> Option<Digest> {
    if representative(descriptors).is_some() {
        return None;
    }
    let mut indexes = descriptors.iter().filter(|one| {
        let kind = one.media_type.as_deref();
        matches!(kind, Some(INDEX | DOCKER_INDEX)) && !one.attests && one.digest.is_some()
    });
    indexes.next()?.digest.clone()
}

/// A reference to other content.
#[derive(Debug, Default)]
struct DescriptorFields {
    media_type: Option<String>,
    digest: Option<Digest>,
    size: Option<u64>,
    platform: Option<Platform>,
    /// True if the content describes an image, such as an attestation or a signature.
    attests: bool,
}

fn descriptor(raw: &RawValue) -> DescriptorFields {
    let [
        media_type,
        digest,
        size,
        its_platform,
        annotations,
        artifact_type,
    ] = fields(
        of(raw),
        [
            "mediaType",
            "digest",
            "size",
            "platform",
            "annotations",
            "artifactType",
        ],
    );
    let platform = its_platform.and_then(|raw| platform(of(raw)));
    let unknown = platform
        .as_ref()
        .is_some_and(|one| one.os == "unknown" && one.architecture == "unknown");
    let [attested] = annotations.map_or([None], |annotations| {
        fields(of(annotations), ["vnd.docker.reference.digest"])
    });
    DescriptorFields {
        media_type: text(media_type),
        digest: text(digest).and_then(|digest| digest.parse().ok()),
        size: size.and_then(|size| size.get().parse().ok()),
        platform: platform.filter(|_| !unknown),
        attests: unknown || attested.is_some() || artifact(artifact_type).is_some(),
    }
}

/// Parses the fields that a config and the `platform` of a descriptor share.
fn platform(bytes: &[u8]) -> Option<Platform> {
    let names = ["os", "architecture", "variant", "os.version"];
    let name = |raw| text(raw).filter(|name| !name.is_empty());
    let [os, architecture, variant, os_version] = fields(bytes, names).map(name);
    Some(Platform {
        os: os?,
        architecture: architecture?,
        variant,
        os_version,
        digest: None,
    })
}

#[cfg(test)]
mod tests;
