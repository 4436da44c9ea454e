//! The part of an object that is kept while the object is watched, and the changes of it that
//! matter.

use serde_json::Value;

use crate::entries::places_at;
use crate::health::{Health, health};
use crate::images::{Place, places};
use crate::object::pod_spec;
use crate::owners::{field_path, owned_to, owner};
use crate::patch::ROLLOUT;

/// Most bytes of the part of an object that is kept.
const MOST: usize = 64 * 1024;
/// Most bytes of a message in the status.
const MESSAGE: usize = 1024;
const METADATA: [&str; 5] = [
    "annotations",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];
const SPEC: [&str; 7] = [
    "jobTemplate",
    "paused",
    "podManagementPolicy",
    "replicas",
    "selector",
    "template",
    "updateStrategy",
];
const STATUS: [&str; 14] = [
    "availableReplicas",
    "conditions",
    "currentRevision",
    "desiredNumberScheduled",
    "message",
    "numberAvailable",
    "observedGeneration",
    "phase",
    "readyReplicas",
    "replicas",
    "terminatingReplicas",
    "updateRevision",
    "updatedNumberScheduled",
    "updatedReplicas",
];

/// The places of an object that are of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interest {
    /// The kind, as in the object's name.
    pub(crate) kind: String,
    /// The places outside of the pod template, as JSON pointers.
    pub(crate) further: Vec<String>,
}

impl Interest {
    fn places(&self, object: &Value) -> Vec<Place> {
        let mut found = places(object, pod_spec(&self.kind));
        found.extend(self.further.iter().flat_map(|at| places_at(object, at)));
        found
    }
}

/// Returns the part of an object that its change, its health and its owners are judged by. `None`:
/// even that part is too large to keep.
pub(crate) fn kept(mut object: Value, interest: &Interest) -> Option<Value> {
    let fields: Vec<Vec<String>> = interest.places(&object).iter().map(field_path).collect();
    let part = |object: &mut Value, key: &str| object.get_mut(key).map(Value::take);
    let (metadata, spec, status) = (
        part(&mut object, "metadata"),
        part(&mut object, "spec"),
        part(&mut object, "status"),
    );
    let mut all = match interest.further.is_empty() {
        true => serde_json::Map::new(),
        false => match object {
            Value::Object(map) => map,
            _ => return None,
        },
    };
    if let Some(mut metadata) = metadata {
        retain(&mut metadata, &METADATA);
        if let Some(annotations) = metadata.get_mut("annotations") {
            retain(annotations, &[ROLLOUT]);
        }
        if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
            entries.retain_mut(|entry| owned(entry, &fields));
        }
        all.insert("metadata".to_owned(), metadata);
    }
    if let Some(mut spec) = spec {
        if interest.further.is_empty() {
            retain(&mut spec, &SPEC);
            template(&mut spec, pod_spec(&interest.kind));
        }
        all.insert("spec".to_owned(), spec);
    }
    if let Some(mut status) = status {
        retain(&mut status, &STATUS);
        for condition in list(status.get_mut("conditions")) {
            retain(condition, &["message", "reason", "status", "type"]);
            if let Some(Value::String(message)) = condition.get_mut("message") {
                message.truncate(message.floor_char_boundary(MESSAGE));
            }
        }
        all.insert("status".to_owned(), status);
    }
    let kept = Value::Object(all);
    let size = serde_json::to_vec(&kept).map_or(usize::MAX, |text| text.len());
    (size <= MOST).then_some(kept)
}

fn list(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

fn retain(value: &mut Value, keys: &[&str]) {
    if let Value::Object(map) = value {
        map.retain(|key, _| keys.contains(&key.as_str()));
    }
}

/// Reduces the pod template below `spec` to names and images. `at` is the place of the pod spec.
fn template(spec: &mut Value, at: &str) {
    let mut value = spec;
    let mut steps = at.split('/').skip(2).peekable();
    while let Some(step) = steps.next() {
        let Some(next) = value.get_mut(step) else {
            return;
        };
        value = next;
        match steps.peek() {
            Some(below) => retain(value, &[below]),
            None => retain(value, &["containers", "initContainers", "volumes"]),
        }
    }
    for key in ["containers", "initContainers", "volumes"] {
        for entry in list(value.get_mut(key)) {
            retain(entry, &["image", "name"]);
        }
    }
}

/// Reduces an entry of the managed fields to these fields. Returns whether it has one of them.
fn owned(entry: &mut Value, fields: &[Vec<String>]) -> bool {
    retain(entry, &["fieldsV1", "manager", "time"]);
    let Some(all) = entry.get_mut("fieldsV1").map(Value::take) else {
        return false;
    };
    let (mut kept, mut some) = (Value::Object(serde_json::Map::new()), false);
    for path in fields {
        let Some(depth) = owned_to(&all, path) else {
            continue;
        };
        some = true;
        let mut at = &mut kept;
        for key in &path[..depth] {
            let Value::Object(map) = at else { break };
            let empty = || Value::Object(serde_json::Map::new());
            at = map.entry(key.clone()).or_insert_with(empty);
        }
    }
    entry["fieldsV1"] = kept;
    some
}

/// Returns whether a rollout of the object should be looked at now: somebody else has changed an
/// image, or the controller has finished.
pub(crate) fn matters(before: &Value, now: &Value, interest: &Interest) -> bool {
    let others = |object: &Value| {
        let places = interest.places(object).into_iter();
        let owned = places.map(|place| {
            let owner = owner(object, &place).filter(|owner| !owner.is_us());
            (place.at, place.image, owner)
        });
        owned
            .filter(|(.., owner)| owner.is_some())
            .collect::<Vec<_>>()
    };
    let ends = |object: &Value| {
        let health = health(&interest.kind, object, false);
        !matches!(health, Health::Progressing(_))
    };
    let theirs = others(now);
    !theirs.is_empty() && theirs != others(before) || ends(now) && !ends(before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn interest() -> Interest {
        Interest {
            kind: "deployment".to_owned(),
            further: Vec::new(),
        }
    }

    fn owned_by(manager: &str, time: &str, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "uid": "u", "resourceVersion": "7", "generation": 2, "labels": {"a": "b"},
                "annotations": {"big": "x".repeat(5000), ROLLOUT: "shop#1"},
                "managedFields": [
                    {"manager": "kube-controller-manager", "time": time, "fieldsV1": {"f:status": {"f:replicas": {}}}},
                    {"manager": manager, "time": time, "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {
                        "f:containers": {"k:{\"name\":\"web\"}": {"f:env": {"k:{\"name\":\"A\"}": {}}, "f:image": {}}}}}}}},
                ]},
            "spec": {"replicas": 1, "minReadySeconds": 3, "template": {"metadata": {"labels": {}}, "spec": {"hostNetwork": false,
                "containers": [{"name": "web", "image": image, "env": [{"name": "A", "value": "secret"}]}],
                "volumes": [{"name": "m", "image": {"reference": "r.example.com/m:1"}}]}}},
            "status": {"observedGeneration": 1, "collisionCount": 3,
                "conditions": [{"type": "Progressing", "status": "True", "message": "m".repeat(5000), "lastUpdateTime": time}]},
        })
    }

    #[test]
    fn names_images_and_owners_are_kept() {
        let object = owned_by("kubectl-set", "2026-01-02T00:00:00Z", "r.example.com/web:1");
        let small = kept(object.clone(), &interest()).unwrap();
        let places = |object: &Value| places(object, "/spec/template/spec");
        assert_eq!(places(&small), places(&object));
        let place = &places(&object)[0];
        assert_eq!(owner(&small, place), owner(&object, place));
        assert_eq!(
            health("deployment", &small, false),
            health("deployment", &object, false)
        );
        let text = small.to_string();
        assert!(text.len() < 2500, "{}", text.len());
        assert!(
            !text.contains("secret") && text.contains("shop#1"),
            "{text}"
        );
        assert_eq!(
            small["metadata"]["managedFields"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn an_object_with_further_places_is_kept_if_it_is_small() {
        let interest = Interest {
            kind: "thing".to_owned(),
            further: vec!["/data/image".to_owned()],
        };
        let object = json!({"metadata": {"uid": "u"}, "data": {"image": "x"}, "spec": {"any": 1}});
        assert_eq!(kept(object.clone(), &interest).unwrap(), object);
        let object = json!({"metadata": {"uid": "u"}, "data": {"image": "x".repeat(MOST)}});
        assert_eq!(kept(object, &interest), None);
    }

    #[test]
    fn a_change_by_others_and_an_end_matter() {
        let at = |manager: &str, image: &str| {
            kept(
                owned_by(manager, "2026-01-02T00:00:00Z", image),
                &interest(),
            )
            .unwrap()
        };
        let ours = at("tagtrail", "r.example.com/web@a");
        let theirs = at("kubectl-set", "r.example.com/web:1");
        for (before, now, expected) in [
            (&ours, &theirs, true),
            (&theirs, &theirs, false),
            (&theirs, &at("kubectl-set", "r.example.com/web:2"), true),
            (&theirs, &ours, false),
        ] {
            assert_eq!(matters(before, now, &interest()), expected);
        }
        let mut done = ours.clone();
        done["status"] = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        assert!(matters(&ours, &done, &interest()));
        assert!(!matters(&done, &ours, &interest()));
    }
}
