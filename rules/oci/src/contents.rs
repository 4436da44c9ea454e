//! Parses the bytes of a manifest and of an image config. No I/O.
//!
//! The bytes are untrusted: anybody with the right to push writes them. So parsing never fails, but
//! leaves out each malformed field. Other fields are skipped without a copy, and without recursion
//! at any depth of nesting.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tagtrail_proto::{Digest, Manifest, Platform, instant};
use time::OffsetDateTime;

/// Descriptors read of an index. Builders add an attestation to each image, hence more than
/// platforms.
const MAX_DESCRIPTORS: usize = 4 * Manifest::PLATFORMS;
/// Labels and annotations read.
const MAX_TEXTS: usize = 8 * Manifest::TEXTS;

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
    /// The image of an index whose config stands for all its images.
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
    let descriptors: Vec<DescriptorFields> = items(manifests).into_iter().map(descriptor).collect();
    ManifestFields {
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
    let [created, config] = fields(bytes, ["created", "config"]);
    let [labels] = config.map_or([None], |config| fields(of(config), ["Labels"]));
    ImageConfig {
        platform: platform(bytes),
        created: text(created).and_then(|text| build_time(&text)),
        labels: texts(labels),
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

fn of(raw: &RawValue) -> &[u8] {
    raw.get().as_bytes()
}

fn text(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Returns the fields with these names as raw JSON. Of two fields with the same name the last
/// counts, as in most parsers.
fn fields<'a, const N: usize>(bytes: &'a [u8], names: [&str; N]) -> [Option<&'a RawValue>; N] {
    struct Fields<'n, const N: usize>([&'n str; N]);
    impl<'a, const N: usize> Visitor<'a> for Fields<'_, N> {
        type Value = [Option<&'a RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found: [Option<&'a RawValue>; N] = [None; N];
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                match self.0.iter().position(|name| *name == key) {
                    Some(place) => found[place] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            // `null` counts as missing.
            Ok(found.map(|value| value.filter(|raw| raw.get() != "null")))
        }
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_map(Fields(names));
    read.ok()
        .filter(|_| json.end().is_ok())
        .unwrap_or([None; N])
}

/// Returns the first items of a list.
fn items(raw: Option<&RawValue>) -> Vec<&RawValue> {
    struct FirstItems;
    impl<'a> Visitor<'a> for FirstItems {
        type Value = Vec<&'a RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() < MAX_DESCRIPTORS {
                match list.next_element()? {
                    Some(item) => items.push(item),
                    None => return Ok(items),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(items)
        }
    }
    let read =
        raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_seq(FirstItems));
    read.and_then(Result::ok).unwrap_or_default()
}

/// Returns the string values of an object. Values of other types are left out.
fn texts(raw: Option<&RawValue>) -> BTreeMap<String, String> {
    struct Texts;
    impl<'a> Visitor<'a> for Texts {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                let value: &RawValue = map.next_value()?;
                if texts.len() < MAX_TEXTS
                    && let Some(value) = text(Some(value))
                {
                    texts.insert(key.into_owned(), value);
                }
            }
            Ok(texts)
        }
    }
    let read = raw.map(|raw| serde_json::Deserializer::from_str(raw.get()).deserialize_map(Texts));
    read.and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests;
