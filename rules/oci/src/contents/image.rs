//! Parses the contents of an image and of an index: layers, the commands that created them, the
//! settings of the config, and manifests.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tagtrail_proto::{Child, Digest, ImageContents, ImageSettings, IndexContents, Layer, Platform};

use super::json::{each, fields, keys, of, text};
use super::{DescriptorFields, ImageConfig, descriptor};

/// Entries of a history that are read: enough for all layers kept, even beside malformed layers.
const MAX_COMMANDS: usize = 2 * ImageContents::LAYERS;

/// The layers of a manifest, within the bounds of [`ImageContents`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The layers with their places in the manifest.
    layers: Vec<(usize, Layer)>,
    /// The number of all layers, with the malformed ones.
    count: usize,
    /// The sum of the sizes of all layers in bytes.
    size: u64,
}

/// The commands that created the layers of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The commands of the first layers.
    commands: Vec<Option<String>>,
    /// The number of all entries that created a layer.
    count: usize,
}

/// Returns the contents of an image from its layers and its config. No config: it was not read.
/// The platform of an image of an index is the one that the index names.
pub fn contents(
    digest: Digest,
    platform: Option<&Platform>,
    layers: Layers,
    config: Option<&ImageConfig>,
) -> ImageContents {
    let platform = platform.or_else(|| config?.platform.as_ref());
    ImageContents {
        digest,
        platform: platform.map(Platform::name),
        size: layers.size,
        layers_left_out: (layers.count - layers.layers.len()) as u64,
        layers: layers.named(config.map(|config| &config.history)),
        settings: config.and_then(|config| config.settings.clone()),
    }
    .cleaned()
}

/// Returns the contents of an index from its first descriptors and the number of all.
pub(super) fn index(descriptors: &[DescriptorFields], count: usize) -> IndexContents {
    let child = |one: &DescriptorFields| {
        Some(Child {
            digest: one.digest.clone()?,
            size: one.size?,
            media_type: one.media_type.clone(),
            platform: one.platform.as_ref().map(Platform::name),
        })
    };
    let children: Vec<Child> = descriptors.iter().filter_map(child).collect();
    IndexContents {
        children_left_out: (count - children.len()) as u64,
        children,
    }
    .cleaned()
}

impl Layers {
    /// Parses the layers of a manifest. `None`: the value is no list.
    pub(super) fn parse(raw: &RawValue) -> Option<Layers> {
        let mut all = Layers::default();
        let is_list = each(Some(raw), |item| {
            let DescriptorFields { digest, size, .. } = descriptor(item);
            all.size = all.size.saturating_add(size.unwrap_or_default());
            if let (Some(digest), Some(size)) = (digest, size)
                && all.layers.len() < ImageContents::LAYERS
            {
                let layer = Layer {
                    digest,
                    size,
                    created_by: None,
                };
                all.layers.push((all.count, layer));
            }
            all.count += 1;
        });
        is_list.then_some(all)
    }

    /// Returns the layers, each with the command that created it. A history that does not have an
    /// entry for each layer names none, because the entries may belong to any of the layers.
    fn named(self, history: Option<&History>) -> Vec<Layer> {
        let history = history.filter(|history| history.count == self.count);
        let named = |(place, layer): (usize, Layer)| Layer {
            created_by: history.and_then(|history| history.commands.get(place)?.clone()),
            ..layer
        };
        self.layers.into_iter().map(named).collect()
    }
}

impl History {
    /// Parses the history of a config. Entries without a layer, such as those of settings, are left
    /// out.
    pub(super) fn parse(raw: Option<&RawValue>) -> History {
        let mut history = History::default();
        each(raw, |entry| {
            let [command, empty] = fields(of(entry), ["created_by", "empty_layer"]);
            if empty.is_some_and(|empty| empty.get() == "true") {
                return;
            }
            history.count += 1;
            if history.commands.len() < MAX_COMMANDS {
                let command = text(command).filter(|command| !command.is_empty());
                history.commands.push(command);
            }
        });
        history
    }
}

/// Parses the settings in the `config` of a config.
pub(super) fn settings(config: &RawValue) -> ImageSettings {
    let names = ["Env", "User", "ExposedPorts", "Entrypoint", "Cmd"];
    let [environment, user, ports, entrypoint, command] = fields(of(config), names);
    let mut settings = ImageSettings {
        user: text(user).filter(|user| !user.is_empty()),
        ..ImageSettings::default()
    };
    let left_out = &mut settings.left_out;
    (settings.environment, left_out.environment) = variables(environment);
    (settings.ports, left_out.ports) = keys(ports, ImageSettings::ITEMS);
    (settings.entrypoint, left_out.entrypoint) = list(entrypoint);
    (settings.command, left_out.command) = list(command);
    settings.ports.sort();
    settings
}

/// Parses variables of the form `NAME=value`, and counts those that are left out. Of two with the
/// same name the last counts, as in container runtimes.
fn variables(raw: Option<&RawValue>) -> (BTreeMap<String, String>, u64) {
    let (mut variables, mut left_out) = (BTreeMap::new(), 0);
    each(raw, |item| {
        let item = text(Some(item));
        let pair = item.as_deref().and_then(|item| item.split_once('='));
        match pair.filter(|(name, _)| !name.is_empty()) {
            Some((name, value))
                if variables.len() < ImageSettings::ITEMS || variables.contains_key(name) =>
            {
                variables.insert(name.to_owned(), value.to_owned());
            }
            _ => left_out += 1,
        }
    });
    (variables, left_out)
}

/// Parses a list of texts, and counts the items that are left out.
fn list(raw: Option<&RawValue>) -> (Vec<String>, u64) {
    let (mut list, mut left_out) = (Vec::new(), 0);
    each(raw, |item| match text(Some(item)) {
        Some(item) if list.len() < ImageSettings::ITEMS => list.push(item),
        _ => left_out += 1,
    });
    (list, left_out)
}
