//! The layers and the settings of two images, side by side.
//!
//! A list that lacks items says nothing about the missing ones: so it is not compared, and a note
//! says so.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_proto::{Digest, ImageContents, ImageSettings, Layer, Manifest};

use super::{Field, Group, field};

/// The layers of two images. A layer with the same digest in both is shared.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LayerComparison {
    /// The layers of both.
    pub(crate) shared: LayerSet,
    /// The layers that only the image before has.
    pub(crate) only_a: LayerSet,
    /// The layers that only the image after has.
    pub(crate) only_b: LayerSet,
}

/// Layers, each digest once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LayerSet {
    /// Sum of their sizes in bytes, as a client pulls them.
    pub(crate) size: u64,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

impl LayerSet {
    /// Returns those layers of an image for which `is_in` holds.
    fn of(image: &ImageContents, is_in: impl Fn(&Digest) -> bool) -> LayerSet {
        let (mut set, mut seen) = (LayerSet::default(), BTreeSet::new());
        for layer in &image.layers {
            if is_in(&layer.digest) && seen.insert(&layer.digest) {
                set.size = set.size.saturating_add(layer.size);
                set.layers.push(layer.clone());
            }
        }
        set
    }
}

/// Two digests with the parts that both have.
pub(super) struct Both<'a> {
    manifests: [&'a Manifest; 2],
    images: Option<[&'a ImageContents; 2]>,
    settings: Option<[&'a ImageSettings; 2]>,
}

impl<'a> Both<'a> {
    pub(super) fn of(before: &'a Manifest, after: &'a Manifest) -> Both<'a> {
        let images = before.image.as_ref().zip(after.image.as_ref());
        let settings = images
            .and_then(|(before, after)| before.settings.as_ref().zip(after.settings.as_ref()));
        Both {
            manifests: [before, after],
            images: images.map(|(before, after)| [before, after]),
            settings: settings.map(|(before, after)| [before, after]),
        }
    }

    /// Returns the layers; none if those of one side are not known.
    pub(super) fn layers(&self) -> Option<LayerComparison> {
        let whole = |image: &&ImageContents| image.layers_left_out == 0;
        let images = self.images.filter(|images| images.iter().all(whole))?;
        let [before, after] = images.map(|image| {
            let digests = image.layers.iter().map(|layer| &layer.digest);
            digests.collect::<BTreeSet<&Digest>>()
        });
        Some(LayerComparison {
            shared: LayerSet::of(images[1], |digest| before.contains(digest)),
            only_a: LayerSet::of(images[0], |digest| !after.contains(digest)),
            only_b: LayerSet::of(images[1], |digest| !before.contains(digest)),
        })
    }

    /// Returns the fields that either has, as far as both were read.
    pub(super) fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        let mut add = |group, name: &str, [before, after]: [Option<String>; 2]| {
            fields.extend(field(group, name, before, after));
        };
        if let Some(images) = self.images {
            let size = |image: &ImageContents| Some(image.size.to_string());
            add(Group::Contents, "size", images.map(size));
        }
        let Some(settings) = self.settings else {
            return fields;
        };
        add(
            Group::Contents,
            "user",
            settings.map(|one| one.user.clone()),
        );
        for (name, list, left_out) in LISTS {
            if settings.iter().all(|one| left_out(one) == 0) {
                add(Group::Contents, name, settings.map(|one| joined(list(one))));
            }
        }
        let whole = settings.iter().all(|one| one.left_out.environment == 0);
        let [before, after] = settings.map(|one| &one.environment);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let values = [before, after].map(|one| one.get(name).cloned());
            if whole || values.iter().all(Option::is_some) {
                add(Group::Environment, name, values);
            }
        }
        fields
    }

    /// Returns the reasons for which something is not compared.
    pub(super) fn notes(&self) -> Vec<String> {
        let Some(images) = self.images else {
            return self.unread().into_iter().collect();
        };
        let mut notes = Vec::new();
        if let [Some(before), Some(after)] = images.map(|one| one.platform.as_deref())
            && before != after
        {
            notes.push(format!(
                "The image for {before} before is compared with the image for {after} after."
            ));
        }
        notes.extend(partial("layers", images.map(|one| one.layers_left_out)));
        if let Some(sides) = sides(images.map(|one| one.settings.is_none())) {
            notes.push(format!(
                "Not compared: environment, user, ports, entrypoint and command. The config of {sides} was not read."
            ));
        }
        if let Some(settings) = self.settings {
            for (name, _, left_out) in LISTS {
                notes.extend(partial(name, settings.map(left_out)));
            }
            let variables = settings.map(|one| one.left_out.environment);
            notes.extend(partial("variables that one side lacks", variables));
        }
        notes
    }

    /// Returns the reason for which neither layers nor settings are compared. Two artifacts have
    /// none of them.
    fn unread(&self) -> Option<String> {
        if self.manifests.iter().all(|one| one.artifact_type.is_some()) {
            return None;
        }
        let sides = sides(self.manifests.map(|one| one.image.is_none()))?;
        Some(format!(
            "Not compared: layers and settings. Those of {sides} are not known: an earlier version of Tagtrail read the manifest, or it is no image, or the image of the index could not be read."
        ))
    }
}

type List = (
    &'static str,
    fn(&ImageSettings) -> &Vec<String>,
    fn(&ImageSettings) -> u64,
);

/// The lists of the settings, with the number of items that each lacks.
const LISTS: [List; 3] = [
    ("ports", |one| &one.ports, |one| one.left_out.ports),
    (
        "entrypoint",
        |one| &one.entrypoint,
        |one| one.left_out.entrypoint,
    ),
    ("command", |one| &one.command, |one| one.left_out.command),
];

/// Returns the items as a JSON list, which tells spaces within an item from those between items.
fn joined(list: &Vec<String>) -> Option<String> {
    let text = serde_json::to_string(list).ok();
    text.filter(|_| !list.is_empty())
}

/// Returns the note about a list that lacks items on a side.
fn partial(name: &str, left_out: [u64; 2]) -> Option<String> {
    let sides = sides(left_out.map(|number| number > 0))?;
    Some(format!(
        "Not compared: {name}. The list of {sides} is not kept as a whole."
    ))
}

/// Returns the sides for which something holds.
fn sides(holds: [bool; 2]) -> Option<&'static str> {
    match holds {
        [true, true] => Some("both digests"),
        [true, false] => Some("the digest before"),
        [false, true] => Some("the digest after"),
        [false, false] => None,
    }
}
