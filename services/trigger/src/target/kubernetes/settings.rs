//! The settings below `target.kubernetes`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tagtrail_config::{Trigger, is_label};
use tagtrail_kubernetes::ObjectName;

use super::super::contract::{OnForeignChange, settings};

/// Most objects of one trigger.
const MOST: usize = 50;

/// The settings as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cluster: String,
    namespace: String,
    objects: Vec<String>,
    #[serde(default)]
    containers: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    paths: BTreeMap<String, Vec<WrittenPath>>,
    #[serde(default)]
    wait: Wait,
    #[serde(default)]
    wait_for: WaitFor,
    #[serde(default)]
    repair_pods: bool,
    #[serde(default)]
    on_foreign_change: OnForeignChange,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPath {
    object: String,
    at: String,
    #[serde(default)]
    write: Part,
    #[serde(default)]
    record: bool,
}

/// The settings.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) cluster: String,
    pub(super) namespace: String,
    /// The objects whose pod templates name the images, in the order in which they change.
    pub(super) objects: Vec<ObjectName>,
    /// By name of an image, the containers that run it in place of those with its repository.
    pub(super) containers: BTreeMap<String, Vec<String>>,
    /// The places outside of pod templates.
    pub(super) paths: Vec<WrittenPlace>,
    pub(super) wait: Wait,
    pub(super) wait_for: WaitFor,
    /// Whether pods of earlier images that keep a `StatefulSet` from its new ones are deleted.
    pub(super) repair_pods: bool,
    pub(super) on_foreign_change: OnForeignChange,
}

/// A place outside of a pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrittenPlace {
    /// Name of the image in the trigger.
    pub(super) image: String,
    pub(super) object: ObjectName,
    /// The place, as a JSON pointer.
    pub(super) at: String,
    pub(super) write: Part,
    /// Whether the place is a note of the image, and runs nothing: it may have no value yet, and a
    /// change of it is none of an image.
    pub(super) record: bool,
}

/// The part of a pinned image that is written to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// `registry.example.com/shop/web@sha256:…`
    #[default]
    Pinned,
    /// `sha256:…`
    Digest,
    /// The tag that the image was known by.
    Tag,
    /// `registry.example.com/shop/web`
    Name,
}

/// Which objects change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    /// All of them.
    #[default]
    All,
    /// Each one after the one before is healthy.
    Each,
}

/// The end of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WaitFor {
    /// The new pods are available.
    #[default]
    NewPods,
    /// The old pods have ended, too.
    OldPodsGone,
}

impl Settings {
    /// Reads the settings of a trigger. An error begins with its key.
    pub(super) fn parse(value: &toml::Value, trigger: &Trigger) -> Result<Settings, String> {
        let written: Written = settings(value)?;
        if !is_label(&written.namespace) {
            let namespace = written.namespace;
            return Err(format!(
                "namespace: {namespace:?} is no namespace; write its name, of a-z, 0-9 and -"
            ));
        }
        let images = trigger.all_images();
        let known = |key: &str, name: &String| match images.contains_key(name) {
            true => Ok(()),
            false => {
                let images: Vec<&str> = images.keys().map(String::as_str).collect();
                let images = images.join(", ");
                Err(format!(
                    "{key}.{name}: the trigger has no image {name}; known are {images}"
                ))
            }
        };
        let mut objects = Vec::new();
        for text in &written.objects {
            let object: ObjectName = text.parse().map_err(|why| format!("objects: {why}"))?;
            if objects.contains(&object) {
                return Err(format!("objects: {object} is there twice; remove one"));
            }
            objects.push(object);
        }
        for name in written.containers.keys() {
            known("containers", name)?;
        }
        let mut paths = Vec::new();
        for (image, places) in written.paths {
            known("paths", &image)?;
            for place in places {
                let of = |why: String| format!("paths.{image}: {why}");
                let object = place.object.parse().map_err(of)?;
                if !place.at.starts_with('/') {
                    let at = place.at;
                    return Err(format!(
                        "paths.{image}: {at:?} is no place; write a JSON pointer such as \"/spec/values/image/digest\""
                    ));
                }
                paths.push(WrittenPlace {
                    image: image.clone(),
                    object,
                    at: place.at,
                    write: place.write,
                    record: place.record,
                });
            }
        }
        if objects.is_empty() && paths.is_empty() {
            return Err(
                "objects is empty; name what runs the images, such as objects = [\"deployment/web\"]"
                    .to_owned(),
            );
        }
        if objects.len() + paths.len() > MOST {
            return Err(format!(
                "objects: more than {MOST} objects; make a trigger for each part"
            ));
        }
        Ok(Settings {
            cluster: written.cluster,
            namespace: written.namespace,
            objects,
            containers: written.containers,
            paths,
            wait: written.wait,
            wait_for: written.wait_for,
            repair_pods: written.repair_pods,
            on_foreign_change: written.on_foreign_change,
        })
    }

    /// Returns the places of an object outside of its pod template, as JSON pointers.
    pub(super) fn further(&self, object: &ObjectName) -> Vec<String> {
        let places = self.paths.iter().filter(|place| place.object == *object);
        places.map(|place| place.at.clone()).collect()
    }

    /// Returns whether a place of an object is a note of an image, and runs nothing.
    pub(super) fn is_record(&self, object: &ObjectName, at: &str) -> bool {
        let mut places = self.paths.iter();
        places.any(|place| place.record && place.object == *object && place.at == at)
    }

    /// Returns every object, in the order in which they change.
    pub(super) fn all(&self) -> Vec<&ObjectName> {
        let mut all: Vec<&ObjectName> = self.objects.iter().collect();
        for place in &self.paths {
            if !all.contains(&&place.object) {
                all.push(&place.object);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tagtrail_config::File;

    use super::*;

    fn parsed(settings: &str) -> Result<Settings, String> {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\ntarget.kubernetes = {{ {settings} }}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let trigger = &file.trigger[0];
        Settings::parse(trigger.target().value, trigger)
    }

    #[test]
    fn the_objects_are_all_that_must_be_named() {
        let read = parsed("cluster = \"prod\", namespace = \"shop\", objects = [\"deploy/web\", \"rollout.argoproj.io/api\"]").unwrap();
        let objects: Vec<String> = read.all().iter().map(ToString::to_string).collect();
        assert_eq!(objects, ["deployment/web", "rollout.argoproj.io/api"]);
        assert_eq!((read.wait, read.wait_for), (Wait::All, WaitFor::NewPods));
        let read = parsed("cluster = \"prod\", namespace = \"shop\", objects = [], wait_for = \"old-pods-gone\", paths.web = [{ object = \"helmrelease.helm.toolkit.fluxcd.io/web\", at = \"/spec/values/image/digest\", write = \"digest\" }]").unwrap();
        assert_eq!((read.paths.len(), read.paths[0].write), (1, Part::Digest));
        assert_eq!((read.all().len(), read.wait_for), (1, WaitFor::OldPodsGone));
    }

    #[test]
    fn a_wrong_setting_is_refused_with_a_cure() {
        let web = "cluster = \"prod\", namespace = \"shop\", objects = [\"deployment/web\"]";
        for (settings, expected) in [
            (
                "namespace = \"shop\", objects = []",
                "missing field `cluster`",
            ),
            (
                "cluster = \"prod\", namespace = \"shop\", objects = []",
                "objects is empty; name what runs the images, such as objects = [\"deployment/web\"]",
            ),
            (
                "cluster = \"prod\", namespace = \"Shop\", objects = []",
                "namespace: \"Shop\" is no namespace; write its name, of a-z, 0-9 and -",
            ),
            (
                "cluster = \"prod\", namespace = \"shop\", objects = [\"deploy/web\", \"deployment/web\"]",
                "objects: deployment/web is there twice; remove one",
            ),
            (
                &format!("{web}, containers.app = [\"a\"]"),
                "containers.app: the trigger has no image app; known are web",
            ),
            (
                &format!("{web}, paths.web = [{{ object = \"deployment/web\", at = \"spec\" }}]"),
                "paths.web: \"spec\" is no place; write a JSON pointer such as \"/spec/values/image/digest\"",
            ),
        ] {
            assert_eq!(parsed(settings).unwrap_err(), expected);
        }
        let error = parsed(&format!("{web}, colour = \"red\"")).unwrap_err();
        assert!(error.starts_with("unknown field `colour`"), "{error}");
    }
}
