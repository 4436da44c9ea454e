//! Ownership of images that are right already: a JSON Patch of the value that is there owns
//! nothing, and a `GitOps` tool that drops the image from its manifest would then drop the field.

use serde_json::{Map, Value, json};

use crate::images::Place;
use crate::owners::{MANAGER, owner};

/// Returns the server-side apply that makes Tagtrail an owner of the images at these places of an
/// object of a built-in kind: names and images alone. `None`: Tagtrail owns them, or has applied
/// before, and a second apply could take fields of the first one away.
#[must_use]
pub fn adoption(object: &Value, at: &str, places: &[&Place]) -> Option<Value> {
    let entries = object.pointer("/metadata/managedFields");
    let mut entries = entries.and_then(Value::as_array).into_iter().flatten();
    let applied = entries.any(|entry| {
        let is = |key: &str, text: &str| entry.get(key).and_then(Value::as_str) == Some(text);
        is("manager", MANAGER) && is("operation", "Apply")
    });
    let ours = |place: &&&Place| owner(object, place).is_some_and(|owner| owner.is_us());
    if applied || places.iter().all(|place| ours(&place)) {
        return None;
    }
    let mut spec = Map::new();
    for place in places {
        // Containers alone: the field of an image volume is the volume's own.
        let list = place.at.strip_prefix(at)?.split('/').nth(1)?;
        if !["containers", "initContainers"].contains(&list) {
            continue;
        }
        let entry = json!({"name": place.name, "image": place.image});
        let all = spec.entry(list).or_insert_with(|| json!([]));
        all.as_array_mut()?.push(entry);
    }
    if spec.is_empty() {
        return None;
    }
    let parts = at.split('/').skip(1).collect::<Vec<_>>();
    let below = parts
        .into_iter()
        .rev()
        .fold(Value::Object(spec), |below, key| json!({key: below}));
    let text = |key: &str| object.get(key).cloned();
    Some(json!({
        "apiVersion": text("apiVersion")?,
        "kind": text("kind")?,
        "metadata": {"name": object.pointer("/metadata/name")?, "uid": object.pointer("/metadata/uid")?},
        "spec": below.get("spec")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::places;

    fn object(manager: &str, operation: &str) -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "nightly", "uid": "u", "managedFields": [{"manager": manager, "operation": operation, "fieldsV1": {
                "f:spec": {"f:jobTemplate": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {"f:image": {}}}}}}}}}}]},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "r.example.com/web@x", "env": []}],
                "volumes": [{"name": "m", "image": {"reference": "r.example.com/m@x"}}]}}}}},
        })
    }

    #[test]
    fn names_and_images_of_others_are_applied_once() {
        let at = "/spec/jobTemplate/spec/template/spec";
        let adopted = |object: &Value| {
            let places = places(object, at);
            let places: Vec<&Place> = places
                .iter()
                .filter(|place| place.at.contains("containers"))
                .collect();
            adoption(object, at, &places)
        };
        assert_eq!(
            adopted(&object("kubectl", "Update")).unwrap(),
            json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", "uid": "u"},
                "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "r.example.com/web@x"}]}}}}},
            })
        );
        assert_eq!(adopted(&object("tagtrail", "Update")), None);
        assert_eq!(adopted(&object("tagtrail", "Apply")), None);
    }
}
