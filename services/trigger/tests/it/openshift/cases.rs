//! The cases of `OpenShift`: `TestAnnotationsReactor` of openshift/library-go, and
//! `TestDeploymentConfigReactor` of openshift/openshift-controller-manager. The numbers are those
//! of docs/openshift.md.

use serde_json::{Value, json};

use crate::world::digest;

/// A case: an object, the tags that are known, and the object after them.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) triggers: Triggers,
    pub(super) containers: &'static [(&'static str, Image)],
    pub(super) init: &'static [(&'static str, Image)],
    /// The tags that are known, each with its digest.
    pub(super) known: &'static [(&'static str, u8)],
    pub(super) expected: Expected,
}

/// The triggers of an object.
pub(super) enum Triggers {
    /// The annotation of a `StatefulSet`: stream, path, paused.
    Annotation(&'static [(&'static str, &'static str, bool)]),
    /// The triggers of a `DeploymentConfig`: stream, containers, last image, automatic.
    Config(&'static [(&'static str, &'static [&'static str], Image, bool)]),
}

/// An image of a container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// None yet. An API server refuses a `StatefulSet` with an empty image, so it is a space
    /// there, as the documents of `OpenShift` write it.
    None,
    /// An image of another time.
    Old,
    /// The tag `1` of a stream with this digest.
    Of(&'static str, u8),
}

use Image::{None as No, Of, Old};

/// The effect of a case.
pub(super) enum Expected {
    /// Nothing is written.
    Nothing,
    /// Nothing is written, and people see the mistake.
    Mistake(&'static str),
    /// One write: the images of all containers, and the last images of the triggers.
    Images(&'static [(&'static str, Image)], &'static [Image]),
}

use Expected::{Images, Mistake, Nothing};
use Triggers::{Annotation, Config};

const TEST: &str = "spec.template.spec.containers[?(@.name==\"test\")].image";
const TEST2: &str = "spec.template.spec.containers[?(@.name==\"test2\")].image";
const ONE: (&str, u8) = ("stream-1", 1);
const NEW: (&str, u8) = ("stream-1", 2);

const fn annotated(
    name: &'static str,
    triggers: &'static [(&'static str, &'static str, bool)],
    containers: &'static [(&'static str, Image)],
    expected: Expected,
) -> Case {
    Case {
        name,
        triggers: Annotation(triggers),
        containers,
        init: &[],
        known: &[ONE],
        expected,
    }
}

const fn config(
    name: &'static str,
    triggers: &'static [(&'static str, &'static [&'static str], Image, bool)],
    known: &'static [(&'static str, u8)],
    containers: &'static [(&'static str, Image)],
    expected: Expected,
) -> Case {
    Case {
        name,
        triggers: Config(triggers),
        containers,
        init: &[],
        known,
        expected,
    }
}

/// All cases.
pub(super) const CASES: [Case; 27] = [
    annotated("annotation-0", &[], &[("test", No)], Nothing),
    // An API server refuses a StatefulSet without a container, so another one is there.
    annotated(
        "annotation-1",
        &[("stream-1:1", TEST, false)],
        &[("other", Old)],
        Mistake("names no container of the object"),
    ),
    annotated(
        "annotation-2",
        &[(
            "stream-1:1",
            "spec.template.spec.containers[?(@.name==\"test\")]",
            false,
        )],
        &[("test", No)],
        Mistake("is not valid"),
    ),
    annotated(
        "annotation-3",
        &[(
            "stream-1:1",
            "spec.template.spec.containers[?(@.name==\"test\").image",
            false,
        )],
        &[("test", No)],
        Mistake("is not valid"),
    ),
    annotated(
        "annotation-4",
        &[(
            "stream-1:1",
            "spec.template.spec.containers[@.name=test].image",
            false,
        )],
        &[("test", No)],
        Mistake("is not valid"),
    ),
    Case {
        known: &[],
        ..annotated(
            "annotation-5",
            &[("stream-1:1", TEST, false)],
            &[("test", No)],
            Nothing,
        )
    },
    annotated(
        "annotation-6",
        &[("stream-1:1", TEST, false)],
        &[("test", No)],
        Images(&[("test", Of("stream-1", 1))], &[]),
    ),
    // An API server refuses a StatefulSet without a container, so another one is there.
    Case {
        init: &[("test", No)],
        ..annotated(
            "annotation-7",
            &[(
                "stream-1:1",
                "spec.template.spec.initContainers[?(@.name==\"test\")].image",
                false,
            )],
            &[("other", Old)],
            Images(&[("test", Of("stream-1", 1)), ("other", Old)], &[]),
        )
    },
    annotated(
        "annotation-8",
        &[("stream-1:1", TEST, true)],
        &[("test", No)],
        Nothing,
    ),
    annotated(
        "annotation-9",
        &[("stream-1:1", TEST, false), ("stream-2:1", TEST2, false)],
        &[("test", No), ("test2", No)],
        Images(&[("test", Of("stream-1", 1)), ("test2", No)], &[]),
    ),
    annotated(
        "annotation-10",
        &[("stream-1:1", TEST, false), ("stream-2:1", TEST2, false)],
        &[("test", No), ("test2", Old)],
        Images(&[("test", Of("stream-1", 1)), ("test2", Old)], &[]),
    ),
    annotated(
        "annotation-11",
        &[("stream-1:1", TEST, false), ("stream-1:1", TEST2, false)],
        &[("test", No), ("test2", No)],
        Images(
            &[("test", Of("stream-1", 1)), ("test2", Of("stream-1", 1))],
            &[],
        ),
    ),
    config("config-0", &[], &[ONE], &[("test", No)], Nothing),
    config(
        "config-1",
        &[("stream-1:1", &["test"], No, true)],
        &[ONE],
        &[],
        Images(&[], &[Of("stream-1", 1)]),
    ),
    config(
        "config-2",
        &[("stream-1:1", &["test"], Of("stream-1", 1), true)],
        &[NEW],
        &[],
        Images(&[], &[Of("stream-1", 2)]),
    ),
    config(
        "config-3",
        &[("stream-1:1", &["test"], No, true)],
        &[],
        &[("test", No)],
        Nothing,
    ),
    config(
        "config-4",
        &[("stream-1:1", &["test"], No, true)],
        &[ONE],
        &[("test", No)],
        Images(&[("test", Of("stream-1", 1))], &[Of("stream-1", 1)]),
    ),
    config(
        "config-5",
        &[("stream-1:1", &["test"], No, false)],
        &[ONE],
        &[("test", No)],
        Nothing,
    ),
    config(
        "config-6",
        &[
            ("stream-1:1", &["test"], No, true),
            ("stream-2:1", &["test2"], No, true),
        ],
        &[ONE],
        &[("test", No), ("test2", No)],
        Nothing,
    ),
    config(
        "config-7",
        &[
            ("stream-1:1", &["test"], No, true),
            ("stream-2:1", &["test2"], Old, true),
        ],
        &[ONE],
        &[("test", No), ("test2", Old)],
        // Otherwise than in OpenShift: a set is rolled out as a whole until each of its images was
        // known once.
        Nothing,
    ),
    config(
        "config-8",
        &[
            ("stream-1:1", &["test"], Old, true),
            ("stream-2:1", &["test2"], Of("stream-2", 1), true),
        ],
        &[("stream-2", 2)],
        &[("test", Old), ("test2", Of("stream-2", 1))],
        Images(
            &[("test", Old), ("test2", Of("stream-2", 2))],
            &[Old, Of("stream-2", 2)],
        ),
    ),
    config(
        "config-9",
        &[("stream-1:1", &["test"], No, true)],
        &[("stream-2", 2)],
        &[("test", No), ("test2", Of("stream-2", 1))],
        Nothing,
    ),
    config(
        "config-10",
        &[
            ("stream-1:1", &["test"], No, true),
            ("stream-2:1", &["test2"], Of("stream-2", 1), true),
        ],
        &[("stream-2", 2)],
        &[("test", No)],
        Nothing,
    ),
    config(
        "config-11",
        &[
            ("stream-1:1", &["test"], No, true),
            ("stream-1:1", &["test2"], No, true),
        ],
        &[ONE],
        &[("test", No), ("test2", No)],
        Images(
            &[("test", Of("stream-1", 1)), ("test2", Of("stream-1", 1))],
            &[Of("stream-1", 1), Of("stream-1", 1)],
        ),
    ),
    config(
        "config-12",
        &[
            ("stream-1:1", &["test"], Of("stream-1", 1), true),
            ("stream-1:1", &["test2"], Of("stream-1", 1), true),
        ],
        &[NEW],
        &[("test", Of("stream-1", 1)), ("test2", Of("stream-1", 1))],
        Images(
            &[("test", Of("stream-1", 2)), ("test2", Of("stream-1", 2))],
            &[Of("stream-1", 2), Of("stream-1", 2)],
        ),
    ),
    config(
        "config-13",
        &[("stream-1:1", &["test", "test2"], No, true)],
        &[ONE],
        &[("test", No), ("test2", No)],
        Images(
            &[("test", Of("stream-1", 1)), ("test2", Of("stream-1", 1))],
            &[Of("stream-1", 1)],
        ),
    ),
    config(
        "config-14",
        &[("stream-1:1", &["test", "test2"], Of("stream-1", 1), true)],
        &[NEW],
        &[("test", Of("stream-1", 1)), ("test2", Of("stream-1", 1))],
        Images(
            &[("test", Of("stream-1", 2)), ("test2", Of("stream-1", 2))],
            &[Of("stream-1", 2)],
        ),
    ),
];

impl Case {
    /// The namespace of the image streams of the case.
    pub(super) fn other(&self) -> String {
        format!("{}-other", self.name)
    }

    /// The kind of the object, as kubectl names it.
    pub(super) fn kind(&self) -> &'static str {
        match self.triggers {
            Annotation(_) => "StatefulSet",
            Config(_) => "DeploymentConfig",
        }
    }

    /// Returns an image as it stands in the object.
    pub(super) fn written(&self, image: Image) -> String {
        let other = self.other();
        match (image, &self.triggers) {
            (No, Annotation(_)) => " ".to_owned(),
            (No, Config(_)) => String::new(),
            (Old, _) => format!("registry.example.com/{other}/old@{}", digest(9)),
            (Of(stream, n), _) => format!("registry.example.com/{other}/{stream}@{}", digest(n)),
        }
    }

    /// Returns the object before the case.
    pub(super) fn object(&self, namespace: &str) -> Value {
        let list = |list: &[(&str, Image)]| -> Value {
            let entries = list.iter().map(|(name, image)| {
                let mut entry = json!({"name": name});
                let image = self.written(*image);
                // OpenShift leaves an empty text out.
                if !image.is_empty() {
                    entry["image"] = json!(image);
                }
                entry
            });
            entries.collect()
        };
        let from =
            |name: &str| json!({"kind": "ImageStreamTag", "namespace": self.other(), "name": name});
        let template = json!({
            "metadata": {"labels": {"app": self.name}},
            "spec": {"containers": list(self.containers), "initContainers": list(self.init)},
        });
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": self.kind(),
            "metadata": {"name": self.name, "namespace": namespace, "annotations": {}},
            "spec": {"replicas": 0, "template": template},
        });
        match &self.triggers {
            Annotation(triggers) => {
                object["spec"]["serviceName"] = json!("test");
                object["spec"]["selector"] = json!({"matchLabels": {"app": self.name}});
                let triggers: Vec<Value> = triggers
                    .iter()
                    .map(|(name, path, paused)| json!({"from": from(name), "fieldPath": path, "paused": paused}))
                    .collect();
                if !triggers.is_empty() {
                    let text = Value::from(triggers).to_string();
                    object["metadata"]["annotations"] =
                        json!({"image.openshift.io/triggers": text});
                }
            }
            Config(triggers) => {
                object["apiVersion"] = json!("apps.openshift.io/v1");
                let triggers = triggers.iter().map(|(name, containers, last, automatic)| {
                    let mut change = json!({"automatic": automatic, "from": from(name), "containerNames": containers});
                    if *last != No {
                        change["lastTriggeredImage"] = json!(self.written(*last));
                    }
                    json!({"type": "ImageChange", "imageChangeParams": change})
                });
                object["spec"]["triggers"] = triggers.collect();
            }
        }
        object
    }
}

/// Returns the images of an object by container, init containers first, and the last images of its
/// triggers.
pub(super) fn images(object: &Value) -> (Vec<(String, String)>, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lists =
        ["initContainers", "containers"].map(|list| &object["spec"]["template"]["spec"][list]);
    let containers = lists.into_iter().filter_map(Value::as_array).flatten();
    let images = containers.map(|one| (text(&one["name"]), text(&one["image"])));
    let triggers = object["spec"]["triggers"].as_array().into_iter().flatten();
    let last = triggers.map(|one| text(&one["imageChangeParams"]["lastTriggeredImage"]));
    (images.collect(), last.collect())
}
