//! Tagtrail's own annotations: `tagtrail.dev/…`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tagtrail_proto::clean_text;

use super::tags::{Container, containers, running};
use super::{Annotated, Followed, SHOWN, Wish, annotation, truth};
use crate::patch::ROLLOUT;

/// The beginning of all annotations of Tagtrail.
pub const PREFIX: &str = "tagtrail.dev/";
const FOLLOW: &str = "tagtrail.dev/follow";
/// Settings of a trigger that an annotation may have.
pub(super) const SETTINGS: [&str; 13] = [
    "agree",
    "approvals",
    "concurrency",
    "gap",
    "on_failure",
    "on_target_change",
    "partial",
    "retry",
    "settle",
    "settle_max",
    "start",
    "timeout",
    "window",
];
/// Settings of the target that an annotation may have.
pub(super) const TARGET: [&str; 3] = ["on_foreign_change", "wait", "wait_for"];

/// Returns whether an annotation of Tagtrail may have this setting of a trigger or of its target.
#[must_use]
pub fn is_setting(word: &str) -> bool {
    SETTINGS.contains(&word) || TARGET.contains(&word)
}

fn keys(metadata: &Value) -> impl Iterator<Item = &str> {
    let annotations = metadata.get("annotations").and_then(Value::as_object);
    let keys = annotations.into_iter().flatten().map(|(key, _)| key);
    // The last rollout is written by Tagtrail itself, also to other objects.
    keys.filter(|key| key.starts_with(PREFIX) && *key != ROLLOUT)
        .map(String::as_str)
}

/// Returns whether an object has annotations of Tagtrail.
pub(super) fn asks(metadata: &Value) -> bool {
    keys(metadata).next().is_some()
}

/// Reads the annotations of an object. `None`: `tagtrail.dev/follow` is false.
pub(super) fn read(annotated: &Annotated<'_>) -> Option<Result<Wish, String>> {
    let metadata = &annotated.object["metadata"];
    let mut wish = Wish::default();
    let follow = annotation(metadata, FOLLOW).and_then(|text| {
        let text = text.map(str::trim);
        match text {
            None => Ok(Followers::Those),
            Some("*") => Ok(Followers::All),
            Some(names) if truth(FOLLOW, names, &mut Vec::new()).is_err() => Ok(Followers::Named(
                names
                    .split(',')
                    .map(|name| name.trim().to_owned())
                    .collect(),
            )),
            Some(text) => match truth(FOLLOW, text, &mut wish.warnings)? {
                true => Ok(Followers::All),
                false => Ok(Followers::Nobody),
            },
        }
    });
    match follow {
        Err(mistake) => Some(Err(mistake)),
        Ok(Followers::Nobody) => None,
        Ok(followers) => Some(read_all(annotated, &followers, wish)),
    }
}

/// Returns the mistake in annotations of an object without containers. A Rollout of Argo may run
/// the pods of another object.
fn without_containers(object: &Value) -> String {
    let text = |at: &str| {
        object
            .pointer(at)?
            .as_str()
            .map(|text| clean_text(text, SHOWN))
    };
    match (
        text("/spec/workloadRef/kind"),
        text("/spec/workloadRef/name"),
    ) {
        (Some(kind), Some(name)) => format!(
            "the object has no containers: its pods are those of {kind} {name} (spec.workloadRef); annotate that object"
        ),
        _ => "the object has no containers".to_owned(),
    }
}

/// The containers that follow the tags that they name.
enum Followers {
    All,
    Named(Vec<String>),
    /// Those alone that have an annotation of their own.
    Those,
    Nobody,
}

fn read_all(
    annotated: &Annotated<'_>,
    followers: &Followers,
    mut wish: Wish,
) -> Result<Wish, String> {
    let metadata = &annotated.object["metadata"];
    let all = containers(annotated);
    if all.is_empty() {
        return Err(without_containers(annotated.object));
    }
    let known = |key: &str, name: &str| {
        let found = all.iter().find(|container| container.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            let names = names.join(", ");
            format!("{key}: the object has no container {name:?}; known are {names}")
        })
    };
    let plain: Vec<&Container> = match followers {
        Followers::All => all.iter().collect(),
        Followers::Named(names) => {
            let named = names.iter().map(|name| known(FOLLOW, name));
            named.collect::<Result<_, _>>()?
        }
        Followers::Those | Followers::Nobody => Vec::new(),
    };
    // `None`: the container is left out.
    let mut rules: BTreeMap<&str, Option<Value>> = BTreeMap::new();
    for key in keys(metadata) {
        let text = annotation(metadata, key)?.unwrap_or_default();
        let word = &key[PREFIX.len()..];
        if let Some(name) = word.strip_prefix("follow.") {
            let container = known(key, name)?;
            rules.insert(&container.name, rule(key, text, container, annotated)?);
        } else if SETTINGS.contains(&word) {
            wish.settings.insert(word.to_owned(), setting(text));
        } else if TARGET.contains(&word) {
            wish.target.insert(word.to_owned(), setting(text));
        } else if word == "paused" {
            wish.paused = truth(key, text, &mut wish.warnings)?;
        } else if word == "group" {
            wish.group = Some(text.trim().to_owned());
        } else if word != "follow" {
            return Err(unknown(key, word));
        }
    }
    for container in plain {
        if !rules.contains_key(container.name.as_str()) {
            let image = running(container)?.followed(container, annotated)?;
            rules.insert(&container.name, Some(image));
        }
    }
    for (name, image) in rules {
        if let Some(image) = image {
            let paused = false;
            wish.images
                .insert(name.to_owned(), Followed { image, paused });
        }
    }
    match wish.images.is_empty() {
        true => Err("the annotation tagtrail.dev/follow is missing: \"true\" follows the tags of all containers, a list of names those of these containers".to_owned()),
        false => Ok(wish),
    }
}

/// Reads the image of one container: a policy as JSON, an image with a tag, a tag, or a truth
/// value.
fn rule(
    key: &str,
    text: &str,
    container: &Container,
    annotated: &Annotated<'_>,
) -> Result<Option<Value>, String> {
    let text = text.trim();
    if text.starts_with('{') {
        let mut policy: Value = serde_json::from_str(text)
            .map_err(|error| format!("{key} is no JSON object: {error}"))?;
        if policy.get("repository").is_none() {
            policy["repository"] = json!(running(container)?.repository);
        }
        return Ok(Some(policy));
    }
    match text {
        "true" => running(container)?.followed(container, annotated).map(Some),
        "false" => Ok(None),
        "" => Err(format!(
            "{key} is empty; write a tag, an image with its tag, or a policy such as {{\"semver\": \"^1.4\"}}"
        )),
        image if image.contains('/') => Ok(Some(json!(image))),
        tag => {
            let repository = running(container)?.repository;
            Ok(Some(json!(format!("{repository}:{tag}"))))
        }
    }
}

/// Reads the value of a setting: JSON, or the text itself.
fn setting(text: &str) -> Value {
    let text = text.trim();
    match serde_json::from_str(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_) | Value::Bool(_))) => value,
        _ => json!(text),
    }
}

fn unknown(key: &str, word: &str) -> String {
    let mut known = vec!["follow", "group", "paused"];
    known.extend(SETTINGS);
    known.extend(TARGET);
    let meant = tagtrail_config::closest(word, &known);
    let meant = meant.map_or_else(String::new, |meant| {
        format!("; did you mean {PREFIX}{meant}?")
    });
    format!("{key} is no annotation that is read{meant}")
}
