//! Objects that are triggers by their annotations, without other configuration. Pure: an object is
//! read as the API server has it.

mod imagetrigger;
mod keel;
mod name;
mod openshift;
mod tags;
mod tagtrail;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tagtrail_config::Discover;
use tagtrail_proto::{Name, clean_text};

pub use name::trigger_name;
pub use openshift::{PathError, container};
pub use tagtrail::{PREFIX, is_setting};

use crate::patch::ROLLOUT;

/// Longest text of an annotation that is read, in bytes.
const LONGEST: usize = 16 * 1024;
/// The beginning of the annotation of `OpenShift`.
const OPENSHIFT: &str = "image.openshift.io/";
/// Most bytes of a foreign text in a message.
const SHOWN: usize = 120;
/// Most images of an object.
const MOST: usize = 50;

/// An object, with all that is needed to read its annotations.
#[derive(Debug, Clone, Copy)]
pub struct Annotated<'a> {
    /// The kind, as in [`crate::ObjectName`].
    pub kind: &'a str,
    /// The namespace of the object.
    pub namespace: &'a str,
    /// The object.
    pub object: &'a Value,
    /// The repository of an image stream, with `{namespace}` and `{name}`.
    pub streams: Option<&'a str>,
    /// The images that the trigger of the object had before, by their names: text or policy. A
    /// container that runs a digest no longer names its tag.
    pub earlier: &'a Map<String, Value>,
}

/// The trigger that an object asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wish {
    /// The images, by the names of the containers, init containers or image volumes that run them.
    pub images: BTreeMap<String, Followed>,
    /// Whether the trigger is paused: all images are.
    pub paused: bool,
    /// Further settings of the trigger, by their keys.
    pub settings: Map<String, Value>,
    /// Further settings of the target, by their keys.
    pub target: Map<String, Value>,
    /// The objects of the namespace that the trigger changes. `None`: the annotated object.
    pub objects: Option<Vec<String>>,
    /// By the names of images, the containers that run them, as in the settings of the target.
    /// `None`: the images have the names of their containers.
    pub containers: Option<Map<String, Value>>,
    /// The group of objects of the namespace that the trigger is for.
    pub group: Option<String>,
    /// Remarks for people, each one sentence.
    pub warnings: Vec<String>,
}

/// An image that an object follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Followed {
    /// The image as in `images.<name>` of a trigger: a text with a tag, or a policy.
    pub image: Value,
    /// Whether the image stays as it is.
    pub paused: bool,
}

/// The trigger of an object, or the mistake in its annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The system of annotations that counts.
    pub by: Discover,
    /// The trigger. An error names the mistake and its cure.
    pub wish: Result<Wish, String>,
}

/// Returns whether an object may ask for a trigger, by its kind, annotations and labels alone.
#[must_use]
pub fn may_ask(systems: &[Discover], kind: &str, metadata: &Value) -> bool {
    systems.iter().any(|system| asks(*system, kind, metadata))
}

fn asks(system: Discover, kind: &str, metadata: &Value) -> bool {
    match system {
        Discover::Tagtrail => kind == imagetrigger::KIND || tagtrail::asks(metadata),
        // Their annotations are about objects with pods.
        _ if kind == imagetrigger::KIND => false,
        Discover::Openshift => openshift::asks(kind, metadata),
        Discover::Keel => keel::asks(metadata),
    }
}

/// Returns the part of the metadata of an object that is read here.
#[must_use]
pub fn relevant(
    annotations: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> Value {
    let is_read = |key: &str| {
        let prefixes = [PREFIX, keel::PREFIX, OPENSHIFT];
        prefixes.iter().any(|prefix| key.starts_with(prefix)) && key != ROLLOUT
    };
    let part = |all: &BTreeMap<String, String>| {
        let part = all.iter().filter(|(key, _)| is_read(key));
        Value::Object(
            part.map(|(key, text)| (key.clone(), Value::from(text.as_str())))
                .collect(),
        )
    };
    json!({"annotations": part(annotations), "labels": part(labels)})
}

/// Reads the annotations of an object. `None`: it asks for no trigger. Of several systems the first
/// one counts that asks for one, in the order of [`Discover`].
#[must_use]
pub fn read(systems: &[Discover], annotated: &Annotated<'_>) -> Option<Reading> {
    let metadata = annotated.object.get("metadata").unwrap_or(&Value::Null);
    let mut asking: Vec<Discover> = systems.to_vec();
    asking.retain(|system| asks(*system, annotated.kind, metadata));
    asking.sort_unstable();
    asking.dedup();
    let mut first = None::<Reading>;
    for by in asking {
        let wish = match by {
            Discover::Tagtrail if annotated.kind == imagetrigger::KIND => {
                Some(imagetrigger::read(annotated))
            }
            Discover::Tagtrail => tagtrail::read(annotated),
            Discover::Openshift => openshift::read(annotated),
            Discover::Keel => keel::read(annotated),
        };
        let Some(wish) = wish else { continue };
        match &mut first {
            None => {
                let wish = wish.and_then(whole);
                first = Some(Reading { by, wish });
            }
            Some(Reading {
                by: first,
                wish: Ok(wish),
            }) => {
                let (first, by) = (first.as_str(), by.as_str());
                wish.warnings.push(format!(
                    "the annotations of {by} have no effect, because those of {first} are there"
                ));
            }
            Some(_) => {}
        }
    }
    first
}

/// Checks the wish as a whole. Paused images are left out, unless all of them are.
fn whole(mut wish: Wish) -> Result<Wish, String> {
    match wish.images.len() {
        0 => return Err("no container is named whose image could be followed".to_owned()),
        more if more > MOST => return Err(format!("names {more} images; at most {MOST} are read")),
        _ => {}
    }
    if let Some(group) = wish
        .group
        .as_ref()
        .filter(|name| name.parse::<Name>().is_err())
    {
        let group = clean_text(group, SHOWN);
        return Err(format!(
            "tagtrail.dev/group: {group:?} is no name of a group; write 1 to 63 of a-z 0-9 -"
        ));
    }
    let images = wish.images.values().map(|image| &image.image);
    let settings = wish.settings.values().chain(wish.target.values());
    let containers = wish.containers.iter().flat_map(Map::values);
    if images.chain(settings).chain(containers).any(has_nul) {
        return Err("a text has the character NUL, which no setting may have".to_owned());
    }
    wish.paused |= wish.images.values().all(|image| image.paused);
    if !wish.paused {
        wish.images.retain(|_, image| !image.paused);
    }
    Ok(wish)
}

/// Returns whether a text in a value has a character that Postgres refuses.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Returns the text of an annotation. An error: the text is too long to be read.
fn annotation<'a>(metadata: &'a Value, key: &str) -> Result<Option<&'a str>, String> {
    let text = metadata.get("annotations").and_then(|all| all.get(key));
    match text.and_then(Value::as_str) {
        Some(text) if text.len() > LONGEST => Err(format!(
            "{key} has {} bytes; at most {LONGEST} are read",
            text.len()
        )),
        text => Ok(text),
    }
}

/// Reads a text as a truth value. Other spellings than `true` and `false` are read too, with a
/// warning.
fn truth(key: &str, text: &str, warnings: &mut Vec<String>) -> Result<bool, String> {
    let value = match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => true,
        "false" | "no" | "off" | "0" | "" => false,
        _ => {
            return Err(format!(
                "{key}: {text:?} is neither true nor false; write \"true\" or \"false\""
            ));
        }
    };
    let usual = if value { "true" } else { "false" };
    if text != usual {
        warnings.push(format!("{key}: {text:?} is read as {usual}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
