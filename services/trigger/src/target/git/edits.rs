//! The edits of files that bring them to the images of a rollout. Pure: from the bytes of files to
//! the bytes of files. Nothing but the values of images changes.

mod document;
mod kustomize;
mod markers;
mod value;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tagtrail_config::Names;
use tagtrail_kubernetes::Reference;
use tagtrail_proto::{Digest, RolloutImage};

pub(super) use value::Part;
pub(super) use yaml::{Step, steps};

/// One way to find the values of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// Lines that end in a marker, in every YAML file.
    Markers,
    /// The entries below `images:` of the kustomization.
    Kustomize,
    /// A value of a YAML file.
    Yaml(Place),
}

/// A value of a YAML file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the image in the trigger.
    pub(super) image: String,
    /// The file, below the path of the target.
    pub(super) file: String,
    /// The place as written, for people.
    pub(super) at: String,
    pub(super) steps: Vec<Step>,
    pub(super) write: Part,
}

/// The content of files, by their paths in the repository.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The images to write, and how to find their places.
pub(super) struct Wanted<'a> {
    pub(super) edits: &'a [Edit],
    /// The path below which files may change; empty for all.
    pub(super) path: &'a str,
    pub(super) images: &'a BTreeMap<String, RolloutImage>,
    /// The names of the images in markers, by their names in the trigger.
    pub(super) markers: &'a BTreeMap<String, String>,
    pub(super) names: &'a Names,
}

/// A value that an image has in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Name of the image in the trigger.
    pub(super) image: String,
    /// True if the value is to have a digest.
    pub(super) pins: bool,
    /// The digest that the value has.
    pub(super) digest: Option<Digest>,
}

/// The result of looking at files.
#[derive(Debug, Default)]
pub(super) struct Edited {
    /// The files that differ from the wanted ones, as wanted.
    pub(super) files: Files,
    /// What changes, for people: a line for each value.
    pub(super) changes: Vec<String>,
    /// The files with values of the images.
    pub(super) places: BTreeSet<String>,
    /// The values that the images have now.
    pub(super) found: Vec<Found>,
}

/// A replacement of bytes of a file.
#[derive(Debug)]
struct Replacement {
    range: Range<usize>,
    text: String,
    /// The line, for people.
    line: String,
}

/// The values of a file that images have.
#[derive(Debug, Default)]
struct Values {
    replacements: Vec<Replacement>,
    found: Vec<Found>,
}

/// Returns the files as the rollout wants them. An error names the marker, entry or place that is
/// missing, with the cure.
pub(super) fn edit(wanted: &Wanted<'_>, files: &Files) -> Result<Edited, String> {
    let mut edited = Edited::default();
    let mut images = BTreeSet::new();
    let mut values: BTreeMap<&String, Values> = BTreeMap::new();
    for edit in wanted.edits {
        let found = match edit {
            Edit::Markers => markers::values(wanted, files),
            Edit::Kustomize => kustomize::values(wanted, files)?,
            Edit::Yaml(place) => yaml::values(wanted, place, files)?,
        };
        for (path, of_file) in found {
            images.extend(of_file.found.iter().map(|found| found.image.clone()));
            let all = values.entry(path).or_default();
            all.replacements.extend(of_file.replacements);
            all.found.extend(of_file.found);
        }
    }
    if let Some(image) = wanted.images.keys().find(|image| !images.contains(*image)) {
        return Err(missing(wanted, image));
    }
    for (path, mut of_file) in values {
        if !of_file.found.is_empty() {
            edited.places.insert(path.clone());
        }
        edited.found.append(&mut of_file.found);
        let Some(bytes) = files.get(path) else {
            continue;
        };
        let changed = replace(path, bytes, of_file.replacements, &mut edited.changes)?;
        if changed != *bytes {
            edited.files.insert(path.clone(), changed);
        }
    }
    Ok(edited)
}

/// Replaces parts of a file. Two ways may find the same value.
fn replace(
    path: &str,
    bytes: &[u8],
    mut replacements: Vec<Replacement>,
    changes: &mut Vec<String>,
) -> Result<Vec<u8>, String> {
    replacements.sort_by_key(|one| (one.range.start, one.range.end));
    replacements.dedup_by(|one, other| one.range == other.range && one.text == other.text);
    let mut changed = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for one in replacements {
        let (Some(before), Some(old)) =
            (bytes.get(at..one.range.start), bytes.get(one.range.clone()))
        else {
            return Err(format!(
                "{path}: two edits want different texts at {}; remove one of them",
                one.line
            ));
        };
        changed.extend_from_slice(before);
        changed.extend_from_slice(one.text.as_bytes());
        at = one.range.end;
        if old != one.text.as_bytes() {
            let old = String::from_utf8_lossy(old);
            changes.push(format!(
                "{path}: {}: {} → {}",
                one.line,
                old.trim(),
                one.text.trim()
            ));
        }
    }
    changed.extend_from_slice(&bytes[at..]);
    Ok(changed)
}

/// The error about an image without a place.
fn missing(wanted: &Wanted<'_>, image: &str) -> String {
    let below = match wanted.path {
        "" => "in the repository".to_owned(),
        path => format!("below {path}"),
    };
    let marker = wanted.markers.get(image).map_or("", String::as_str);
    match wanted.edits {
        [Edit::Markers] => format!(
            "no YAML file {below} has a marker of the image {image}; end the line of its value with # {{\"$imagepolicy\": \"{marker}\"}}"
        ),
        _ => format!(
            "no edit has a place for the image {image} {below}; add an edit for it, or correct path"
        ),
    }
}

impl Wanted<'_> {
    /// Returns the image of the trigger that a written reference is of.
    fn image_of(&self, written: &str) -> Option<(&String, &RolloutImage)> {
        let reference = Reference::parse(written)?;
        let registry = self.names.registry(reference.registry);
        let mut images = self.images.iter();
        images.find(|(_, image)| {
            image.pinned.registry == registry && image.pinned.repository == reference.repository
        })
    }

    /// Returns the name of an image without tag and digest: as it is written, if that is of the
    /// same image, since the reader of the file may know the registry by that name alone.
    fn name_of(&self, image: &RolloutImage, written: &str) -> String {
        let reference = Reference::parse(written).filter(|reference| {
            reference.repository == image.pinned.repository
                && self.names.registry(reference.registry.clone()) == image.pinned.registry
        });
        reference.map_or_else(
            || format!("{}/{}", image.pinned.registry, image.pinned.repository),
            |reference| reference.name,
        )
    }

    /// Returns the text of a part of an image, for a value as it is written.
    fn text(&self, image: &RolloutImage, part: Part, written: &str) -> String {
        match part {
            Part::Pinned => format!("{}@{}", self.name_of(image, written), image.digest),
            Part::Digest => image.digest.to_string(),
            Part::Tag => image.image.tag.to_string(),
            Part::TagAndDigest => format!("{}@{}", image.image.tag, image.digest),
            Part::Name => self.name_of(image, written),
        }
    }
}

/// Returns whether a file may hold markers.
pub(super) fn is_yaml(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    })
}

/// Returns the path of a file below the path of a target.
pub(super) fn below(path: &str, file: &str) -> String {
    match path {
        "" => file.to_owned(),
        path => format!("{path}/{file}"),
    }
}

/// Names of the file of a kustomization.
pub(super) const KUSTOMIZATIONS: [&str; 3] =
    ["kustomization.yaml", "kustomization.yml", "Kustomization"];

#[cfg(test)]
mod tests;
