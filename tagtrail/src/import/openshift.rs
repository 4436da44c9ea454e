//! `OpenShift`: image-change triggers of workloads and of `DeploymentConfig` objects.

use serde_json::Value as Json;
use tagtrail_kubernetes::discovery::container;

use super::found::{Found, Trigger, Watched, reference};
use super::objects::{Object, word, words};
use super::workload::pod;

const ANNOTATION: &str = "image.openshift.io/triggers";
/// The registry of image streams that the input does not have.
const INTERNAL: &str = "image-registry.openshift-image-registry.svc:5000";

pub(super) fn import(objects: &[Object], found: &mut Found) {
    for object in objects {
        if object.kind == "DeploymentConfig" {
            deployment_config(object, objects, found);
        } else if let Some(triggers) = object.annotation(ANNOTATION) {
            annotated(object, &triggers, objects, found);
        }
    }
}

fn annotated(object: &Object, triggers: &str, objects: &[Object], found: &mut Found) {
    let Ok(Json::Array(triggers)) = serde_json::from_str::<Json>(triggers) else {
        return found.left_out(
            object,
            ANNOTATION,
            "it is no JSON list, so OpenShift ignores it",
        );
    };
    let mut trigger = Trigger::new(&object.name, object);
    for one in &triggers {
        let path = word(&one["fieldPath"]).unwrap_or_default();
        let workload = object.get("").unwrap_or(&Json::Null);
        let Ok(container) = container(&path, workload, pod(object)) else {
            let part = format!("fieldPath {path}");
            found.left_out(object, &part, "no container of the object has this path");
            continue;
        };
        if let Some(image) = stream(object, &one["from"], objects, found) {
            let name = trigger.add(&container, Watched::Tag(image));
            pause(object, &name, one["paused"] == Json::Bool(true), found);
        }
    }
    if trigger.images.len() > 1 {
        trigger.notes.push("partial = true".to_owned());
        let becomes = "partial = true as a comment: write it with target kubernetes or git, for half a set of images";
        found.close(object, "several images", becomes);
    }
    found.triggers.push(trigger);
}

fn deployment_config(object: &Object, objects: &[Object], found: &mut Found) {
    let mut trigger = Trigger::new(&object.name, object);
    for one in object.list("/spec/triggers") {
        if one["type"] != "ImageChange" {
            let part = format!("trigger {}", word(&one["type"]).unwrap_or_default());
            found.left_out(object, &part, "a trigger watches images alone");
            continue;
        }
        let change = &one["imageChangeParams"];
        let Some(image) = stream(object, &change["from"], objects, found) else {
            continue;
        };
        for container in words(change.get("containerNames")) {
            let name = trigger.add(&container, Watched::Tag(image.clone()));
            pause(
                object,
                &name,
                change["automatic"] == Json::Bool(false),
                found,
            );
        }
    }
    found.triggers.push(trigger);
}

fn pause(object: &Object, image: &str, paused: bool, found: &mut Found) {
    if paused {
        let part = format!("paused: {image}");
        found.left_out(
            object,
            &part,
            "`tagtrail pause` pauses the trigger as a whole",
        );
    }
}

/// Returns the image that a tag of an image stream stands for.
fn stream(object: &Object, from: &Json, objects: &[Object], found: &mut Found) -> Option<String> {
    let kind = word(&from["kind"]).unwrap_or_default();
    let name = word(&from["name"]).unwrap_or_default();
    let part = format!("from {name}");
    let (Some((stream, tag)), "ImageStreamTag") = (name.split_once(':'), kind.as_str()) else {
        found.left_out(object, &part, "only an ImageStreamTag NAME:TAG is followed");
        return None;
    };
    let namespace = word(&from["namespace"]).unwrap_or_else(|| object.namespace.clone());
    let known = objects.iter().find(|one| {
        let within = &one.namespace;
        one.kind == "ImageStream" && one.name == stream && *within == namespace
    });
    let entry = known.and_then(|known| {
        let mut tags = known.list("/spec/tags").iter();
        tags.find(|entry| entry["name"] == tag)
    });
    if let Some(source) = entry.map(|entry| &entry["from"])
        && source["kind"] == "DockerImage"
        && let Some(image) = word(&source["name"])
    {
        let (repository, tag) = reference(&image);
        let image = format!("{repository}:{}", tag.as_deref().unwrap_or("latest"));
        found.exact(object, &part, &image);
        return Some(image);
    }
    let internal = known.and_then(|known| known.text("/status/dockerImageRepository"));
    let image = match internal {
        Some(repository) => format!("{repository}:{tag}"),
        None => format!("{INTERNAL}/{namespace}/{stream}:{tag}"),
    };
    match internal {
        Some(_) => found.exact(object, &part, &image),
        None => {
            let becomes =
                format!("{image}; the ImageStream {namespace}/{stream} is not in the input");
            found.close(object, &part, &becomes);
        }
    }
    Some(image)
}
