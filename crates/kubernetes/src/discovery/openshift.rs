//! `image.openshift.io/triggers` of workloads, and `spec.triggers` of a `DeploymentConfig`.

mod annotation;
mod config;
mod field;
mod path;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};
use tagtrail_config::{image_of_stream, is_label};
use tagtrail_proto::{Image, clean_text};

pub use self::path::{PathError, container};
use super::{Annotated, Followed, MOST, Wish};

/// The annotation of `OpenShift`, a list in JSON.
pub(super) const ANNOTATION: &str = "image.openshift.io/triggers";
/// The kind whose triggers are fields of its own.
const CONFIG: &str = "deploymentconfig";
/// Its API group.
const GROUP: &str = "apps.openshift.io";
/// Most warnings about an object.
const WARNINGS: usize = 10;
/// Most bytes of a foreign text in a message.
const SHOWN: usize = 120;

/// Returns whether an object may have triggers of `OpenShift`.
pub(super) fn asks(kind: &str, metadata: &Value) -> bool {
    let annotations = metadata.get("annotations");
    kind == CONFIG || annotations.is_some_and(|all| all.get(ANNOTATION).is_some())
}

/// Reads the triggers of an object. `None`: it has none.
///
/// An error of an entry is one of the object, as in `OpenShift`. An entry that `OpenShift` passes
/// over has no effect here either, but a warning names it.
pub(super) fn read(annotated: &Annotated<'_>) -> Option<Result<Wish, String>> {
    let mut reading = Reading {
        annotated,
        wish: Wish::default(),
        notes: Vec::new(),
        all_known: true,
    };
    let read = match annotated.kind {
        CONFIG => config::read(&mut reading),
        _ => annotation::read(&mut reading),
    };
    match read {
        Ok(false) => None,
        Ok(true) => Some(reading.finish()),
        Err(why) => Some(Err(why)),
    }
}

/// The trigger of an object as its entries are read.
struct Reading<'a> {
    annotated: &'a Annotated<'a>,
    wish: Wish,
    /// The places that keep the image that was rolled out last: container, whether the trigger is
    /// paused, and the place.
    notes: Vec<(String, bool, Value)>,
    /// Whether each automatic trigger of a `DeploymentConfig` has found an image once.
    all_known: bool,
}

impl Reading<'_> {
    /// Adds a warning about an entry. Those beyond the bound are left out.
    fn warn(&mut self, entry: usize, text: &str) {
        if self.wish.warnings.len() < WARNINGS {
            self.wish.warnings.push(of(entry, text));
        }
    }

    /// Returns the image of an entry, or `None` with a warning: `OpenShift` passes the entry over.
    fn image(&mut self, entry: usize, from: Option<&Value>) -> Result<Option<Image>, String> {
        let text = |key: &str| match from.and_then(|from| field::of(from, key)) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text.as_str()),
            Some(_) => Err(of(entry, &format!("from.{key} is no text"))),
        };
        let (kind, name, namespace) = (text("kind")?, text("name")?, text("namespace")?);
        let version = text("apiVersion")?;
        if !["", "v1", "image.openshift.io/v1"].contains(&version) {
            let text = format!(
                "from.apiVersion is {}; leave it out, since from is a tag of an image stream",
                shown(version)
            );
            return Err(of(entry, &text));
        }
        if kind != "ImageStreamTag" {
            let kind = shown(kind);
            let text = format!(
                "from.kind is {kind}; only an ImageStreamTag is followed, as in OpenShift, so the entry has no effect"
            );
            self.warn(entry, &text);
            return Ok(None);
        }
        let parts = name.split_once(':');
        let parts = parts.filter(|(stream, tag)| !stream.is_empty() && !tag.is_empty());
        let Some((stream, tag)) = parts.filter(|(_, tag)| !tag.contains(':')) else {
            let text = format!(
                "from.name is {}, so the entry has no effect; write stream:tag",
                shown(name)
            );
            self.warn(entry, &text);
            return Ok(None);
        };
        let namespace = match namespace {
            "" => self.annotated.namespace,
            namespace => namespace,
        };
        let image = self.locate(namespace, stream, tag);
        image.map(Some).map_err(|why| of(entry, &why))
    }

    /// Returns the image that a tag of an image stream stands for.
    fn locate(&self, namespace: &str, stream: &str, tag: &str) -> Result<Image, String> {
        let template = self.annotated.streams.ok_or(
            "the cluster has no imagestreams, which would name the registry of image streams",
        )?;
        if !is_label(namespace) {
            return Err(format!(
                "from.namespace is {}, no namespace",
                shown(namespace)
            ));
        }
        // The rules of a repository are stricter, but for slashes and the holes of the template.
        if stream.contains(['/', '{', '}', '@']) {
            return Err(format!("{} is no name of an image stream", shown(stream)));
        }
        let text = image_of_stream(template, namespace, stream, tag);
        text.parse().map_err(|error| {
            let from = shown(&format!("{stream}:{tag}"));
            format!("from.name is {from}, which imagestreams makes no image of: {error}")
        })
    }

    /// Returns the trigger. An error: no entry has an effect.
    fn finish(mut self) -> Result<Wish, String> {
        if self.wish.images.is_empty() {
            let warnings = self.wish.warnings.join("; ");
            return Err(match warnings.is_empty() {
                true => "no entry names a container".to_owned(),
                false => warnings,
            });
        }
        // OpenShift sets the images that are known, those of a DeploymentConfig only after each of
        // its triggers has found an image once.
        let several = self.wish.images.len() > 1;
        if several && (self.annotated.kind != CONFIG || self.all_known) {
            self.wish.settings.insert("partial".to_owned(), json!(true));
        }
        // Paused images are left out, unless all of them are paused.
        let images = &self.wish.images;
        let all = images.values().all(|image| image.paused);
        let mut paths: Map<String, Value> = Map::new();
        for (name, paused, place) in self.notes {
            let of_image = |image: &Followed| image.paused == paused && (all || !paused);
            if !images.get(&name).is_some_and(of_image) {
                continue;
            }
            let places = paths.entry(name).or_insert_with(|| json!([]));
            if let Some(places) = places.as_array_mut() {
                places.push(place);
            }
        }
        if !paths.is_empty() {
            let paths = Value::Object(paths);
            self.wish.target.insert("paths".to_owned(), paths);
        }
        Ok(self.wish)
    }

    /// Adds the place of the image that a trigger of a `DeploymentConfig` has found last.
    fn remember(&mut self, container: &str, index: usize, paused: bool) {
        let name = self.annotated.object.pointer("/metadata/name");
        let name = name.and_then(Value::as_str).unwrap_or_default();
        let place = json!({
            "object": format!("{CONFIG}.{GROUP}/{name}"),
            "at": format!("/spec/triggers/{index}/imageChangeParams/lastTriggeredImage"),
            "record": true,
        });
        self.notes.push((container.to_owned(), paused, place));
    }

    /// Adds the image of a container.
    fn add(
        &mut self,
        entry: usize,
        container: &str,
        (image, paused): (&Image, bool),
    ) -> Result<(), String> {
        let followed = Followed {
            image: json!(image.to_string()),
            paused,
        };
        let images = &mut self.wish.images;
        match images.get(container) {
            Some(other) if other.image != followed.image && !other.paused && !paused => {
                let text = format!(
                    "container {} gets {} by another entry, so it can't get {image} too; remove one of them",
                    shown(container),
                    other.image.as_str().unwrap_or_default(),
                );
                Err(of(entry, &text))
            }
            Some(other) if paused && !other.paused => Ok(()),
            None if images.len() > MOST => Err(format!("more than {MOST} containers are named")),
            _ => {
                images.insert(container.to_owned(), followed);
                Ok(())
            }
        }
    }
}

/// Returns a text about an entry, of which the first has number 1.
fn of(entry: usize, text: &str) -> String {
    format!("entry {}: {text}", entry + 1)
}

/// Returns a foreign text in quotation marks, as it may stand in a message.
fn shown(text: &str) -> String {
    format!("{:?}", clean_text(text, SHOWN))
}
