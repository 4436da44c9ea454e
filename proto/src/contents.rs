//! The contents of an image and of an index: layers, settings, and manifests.
//!
//! Authors write these texts, so all of them have bounds. Lists name the number of items that were
//! left out, and a text that is cut says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, Manifest, clean_text};

/// The contents of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageContents {
    /// Digest of the image: the manifest's own, or that of the image of the index that stands for
    /// all its images.
    pub digest: Digest,
    /// Platform of the image, such as `linux/arm64/v8`.
    pub platform: Option<String>,
    /// Sum of the sizes of all layers in bytes, as a client pulls them.
    pub size: u64,
    /// Layers, the lowest first. At most 128.
    pub layers: Vec<Layer>,
    /// Number of layers that are malformed or beyond the bound.
    pub layers_left_out: u64,
    /// Settings of the config. Null: the config was not read.
    pub settings: Option<ImageSettings>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Digest of the layer.
    pub digest: Digest,
    /// Size of the layer in bytes, as a client pulls it.
    pub size: u64,
    /// Command that created the layer. Null: the history in the config does not say, or does not
    /// have an entry for each layer.
    pub created_by: Option<String>,
}

/// The settings with which an image runs, as its config has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageSettings {
    /// Environment variables, by name. At most 128.
    pub environment: BTreeMap<String, String>,
    /// User or group that processes run as.
    pub user: Option<String>,
    /// Ports that the image exposes, such as `8080/tcp`. At most 128.
    pub ports: Vec<String>,
    /// Program with its arguments. Empty if the image names none. At most 128.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the program if there is no entrypoint. At most 128.
    pub command: Vec<String>,
    /// Numbers of items that are malformed or beyond a bound.
    pub left_out: LeftOut,
}

/// Numbers of items that the lists of the settings lack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Environment variables.
    pub environment: u64,
    /// Ports.
    pub ports: u64,
    /// Items of the entrypoint.
    pub entrypoint: u64,
    /// Items of the command.
    pub command: u64,
}

/// The contents of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexContents {
    /// Manifests of the index. At most 128.
    pub children: Vec<Child>,
    /// Number of manifests that are malformed or beyond the bound.
    pub children_left_out: u64,
}

/// A manifest of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Child {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest in bytes, without its layers.
    pub size: u64,
    /// Media type of the manifest.
    pub media_type: Option<String>,
    /// Platform, such as `linux/arm64/v8`. Null for content that is no image, such as an
    /// attestation.
    pub platform: Option<String>,
}

impl ImageContents {
    /// Most layers kept.
    pub const LAYERS: usize = 128;

    /// Returns the contents cut to their bounds. A second call changes nothing.
    #[must_use]
    pub fn cleaned(mut self) -> ImageContents {
        self.platform = self.platform.as_deref().map(cut_text);
        self.layers_left_out +=
            cut_list(&mut self.layers, ImageContents::LAYERS, usize::MAX, |_| 0);
        for layer in &mut self.layers {
            layer.created_by = layer.created_by.as_deref().map(cut_text);
        }
        self.settings = self.settings.map(ImageSettings::cleaned);
        self
    }
}

impl ImageSettings {
    /// Most items kept of each list.
    pub const ITEMS: usize = 128;
    /// Most bytes kept of all ports, of the entrypoint, and of the command.
    const ALL_ITEMS: usize = 16 * 1024;

    /// Returns the settings cut to their bounds. A second call changes nothing.
    #[must_use]
    pub fn cleaned(self) -> ImageSettings {
        let (environment, user, mut left_out) = (self.environment, self.user, self.left_out);
        let before = environment.len();
        let variables = environment
            .into_iter()
            .filter(|(name, _)| name.len() <= Manifest::TEXT)
            .map(|(name, value)| (clean_text(&name, Manifest::TEXT), cut_text(&value)));
        let mut variables: Vec<(String, String)> = variables.collect();
        cut_list(
            &mut variables,
            ImageSettings::ITEMS,
            Manifest::ALL_TEXTS,
            |(name, value)| name.len() + value.len(),
        );
        let environment: BTreeMap<String, String> = variables.into_iter().collect();
        left_out.environment += (before - environment.len()) as u64;
        let list = |list: Vec<String>, left_out: &mut u64| {
            let mut list: Vec<String> = list.iter().map(|text| cut_text(text)).collect();
            let (items, bytes) = (ImageSettings::ITEMS, ImageSettings::ALL_ITEMS);
            *left_out += cut_list(&mut list, items, bytes, String::len);
            list
        };
        ImageSettings {
            environment,
            user: user.as_deref().map(cut_text),
            ports: list(self.ports, &mut left_out.ports),
            entrypoint: list(self.entrypoint, &mut left_out.entrypoint),
            command: list(self.command, &mut left_out.command),
            left_out,
        }
    }
}

impl IndexContents {
    /// Most manifests kept: each platform with its attestation.
    pub const CHILDREN: usize = 2 * Manifest::PLATFORMS;

    /// Returns the contents cut to their bounds. A second call changes nothing.
    #[must_use]
    pub fn cleaned(mut self) -> IndexContents {
        for child in &mut self.children {
            for text in [&mut child.media_type, &mut child.platform] {
                *text = text.as_deref().map(cut_text);
            }
        }
        let texts = |child: &Child| {
            let texts = [&child.media_type, &child.platform];
            texts.into_iter().flatten().map(String::len).sum()
        };
        let (most, bytes) = (IndexContents::CHILDREN, Manifest::ALL_TEXTS);
        self.children_left_out += cut_list(&mut self.children, most, bytes, texts);
        self
    }
}

/// Cuts a list to a number of items, and to those whose sizes add up to at most `bytes`. Returns
/// the number of items that are gone.
fn cut_list<T>(list: &mut Vec<T>, most: usize, bytes: usize, size: impl Fn(&T) -> usize) -> u64 {
    let mut used = 0;
    let within = list.iter().take(most).take_while(|item| {
        used += size(item);
        used <= bytes
    });
    let kept = within.count();
    let gone = list.len() - kept;
    list.truncate(kept);
    gone as u64
}

/// Returns a foreign text cleaned by [`clean_text`]. A text of more than [`Manifest::TEXT`] bytes
/// is cut, and ends with its length and the start of its hash: two texts that are cut are equal
/// only if the whole texts are.
fn cut_text(text: &str) -> String {
    let clean = clean_text(text, usize::MAX);
    if clean.len() <= Manifest::TEXT {
        return clean;
    }
    let hash = Digest::sha256_of(text.as_bytes()).to_string();
    let hash = hash.get(..23).unwrap_or_default();
    let mark = format!("… ({} bytes, {hash})", text.len());
    clean_text(&clean, Manifest::TEXT - mark.len()) + &mark
}
