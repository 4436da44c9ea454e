//! Reads a manifest from its registry, and the config of the image or, for an
//! index, of an image in the index.

use std::collections::BTreeMap;

use tagtrail_proto::{Digest, Manifest, Pinned, Platform};
use tagtrail_registry::{AskError, Content, RegistryClient};
use time::OffsetDateTime;

use tagtrail_oci::contents::{self, ImageConfig, ManifestFields};

/// The media type of content whose type is unknown (RFC 2046).
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Reads a manifest with at most three requests. `None`: the registry does not have the manifest.
/// In the `last` attempt a refused config is left out.
///
/// # Errors
/// [`AskError`] of the registry.
pub(super) async fn read(
    registry: &RegistryClient,
    pinned: &Pinned,
    last: bool,
) -> Result<Option<Manifest>, AskError> {
    let read_at = OffsetDateTime::now_utc();
    let Pinned {
        repository, digest, ..
    } = pinned;
    let Some(content) = registry.read_manifest(repository, digest).await? else {
        return Ok(None);
    };
    let mut parsed = contents::manifest(&content.bytes);
    // An index has no config: one of its images stands for all.
    let (image_digest, image) = match (&parsed.image, &parsed.index) {
        (Some(image), _) => (image.clone(), part(registry, pinned, image, last).await?),
        (None, Some(index)) => {
            let index = part(registry, pinned, index, last).await?;
            parsed.platforms = index.platforms;
            let mut image = match &index.image {
                Some(image) => part(registry, pinned, image, last).await?,
                None => ManifestFields::default(),
            };
            // A config would be a fourth request.
            image.config = None;
            image.annotations = or_else(index.annotations, image.annotations);
            (index.image.unwrap_or_else(|| digest.clone()), image)
        }
        (None, None) => {
            let own = ManifestFields {
                config: parsed.config.take(),
                layers: parsed.layers.take(),
                ..ManifestFields::default()
            };
            (digest.clone(), own)
        }
    };
    let config = match &image.config {
        Some(config) => config_of(registry, pinned, config, last).await?,
        None => None,
    };
    let of_image = |one: &&Platform| one.digest.as_ref() == Some(&image_digest);
    let platform = parsed.platforms.iter().find(of_image);
    let contents = image
        .layers
        .map(|layers| contents::contents(image_digest.clone(), platform, layers, config.as_ref()));
    let config = config.unwrap_or_default();
    let is_index = parsed.image.is_some() || parsed.index.is_some();
    // An index is pushed on purpose.
    let tombstone = !is_index && config.is_tombstone();
    let platforms = if parsed.platforms.is_empty() && !is_index {
        config.platform.into_iter().collect()
    } else {
        parsed.platforms
    };
    let places = [&parsed.annotations, &image.annotations, &config.labels];
    let annotations = |key| places.into_iter().filter_map(move |texts| texts.get(key));
    let annotation = |key| annotations(key).next().cloned();
    let annotated_time = || {
        annotations("org.opencontainers.image.created").find_map(|text| contents::build_time(text))
    };
    let manifest = Manifest {
        digest: digest.clone(),
        registry: pinned.registry.clone(),
        repository: repository.clone(),
        // The type in the manifest goes before the header, because the digest covers it.
        media_type: parsed
            .media_type
            .or(content.media_type)
            .unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
        size: content.bytes.len() as u64,
        artifact_type: parsed.artifact_type,
        platforms,
        created: config.created.or_else(annotated_time),
        revision: annotation("org.opencontainers.image.revision"),
        source: annotation("org.opencontainers.image.source"),
        version: annotation("org.opencontainers.image.version"),
        tombstone,
        labels: config.labels,
        annotations: parsed.annotations,
        image: contents,
        index: parsed.children,
        read_at,
    };
    Ok(Some(manifest.cleaned()))
}

/// Reads a manifest of an index: an image or an index that stands for all. Missing content has no
/// fields.
async fn part(
    registry: &RegistryClient,
    pinned: &Pinned,
    digest: &Digest,
    last: bool,
) -> Result<ManifestFields, AskError> {
    let manifest = registry.read_manifest(&pinned.repository, digest).await;
    let manifest = optional(manifest, pinned, last)?;
    Ok(manifest.map_or_else(ManifestFields::default, |manifest| {
        contents::manifest(&manifest.bytes)
    }))
}

/// Returns the entries of both maps. Of two entries with the same key the first map's counts.
fn or_else(
    first: BTreeMap<String, String>,
    mut second: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    second.extend(first);
    second
}

async fn config_of(
    registry: &RegistryClient,
    pinned: &Pinned,
    config: &Digest,
    last: bool,
) -> Result<Option<ImageConfig>, AskError> {
    let blob = registry.read_blob(&pinned.repository, config).await;
    let blob = optional(blob, pinned, last)?;
    Ok(blob.map(|blob| contents::config(&blob.bytes)))
}

/// Leaves out missing content, and in the last attempt also refused content.
fn optional(
    answer: Result<Option<Content>, AskError>,
    pinned: &Pinned,
    last: bool,
) -> Result<Option<Content>, AskError> {
    match answer {
        Ok(None) => {
            tracing::info!(digest = %pinned.digest, "the registry lacks parts of {pinned}, so its labels stay unknown");
            Ok(None)
        }
        Err(AskError::Refused(why)) if last => {
            tracing::warn!(digest = %pinned.digest, "the labels of {pinned} stay unknown: {why}");
            Ok(None)
        }
        other => other,
    }
}
