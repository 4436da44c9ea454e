//! JSON Patches that change images alone, and only if the object is still as it was read.

use serde_json::{Value, json};

use crate::images::Place;

/// The annotation that names the last rollout.
pub const ROLLOUT: &str = "tagtrail.dev/rollout";
/// The annotation that `kubectl rollout history` shows.
pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// A change of one place of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The place, with the reference that was read there.
    pub place: Place,
    /// The reference to write.
    pub to: String,
}

/// Returns the patch that makes these changes to the object as it was read, and sets these
/// annotations. A place that has no value gets one, and one whose new value is empty loses it.
///
/// The API server makes the whole patch or nothing. It refuses the patch if the object is another
/// one by now, if a container is no longer at its place, or if an image has changed.
#[must_use]
pub fn patch(object: &Value, changes: &[Change], annotations: &[(&str, String)]) -> Value {
    let mut steps = Vec::new();
    let mut test = |path: &str, value: &Value| {
        steps.push(json!({"op": "test", "path": path, "value": value}));
    };
    if let Some(uid) = object.pointer("/metadata/uid") {
        test("/metadata/uid", uid);
    }
    for Change { place, .. } in changes {
        if let Some((at, name)) = &place.beside {
            test(at, &json!(name));
        }
        if object.pointer(&place.at).is_some() {
            test(&place.at, &json!(place.image));
        }
    }
    if tests_version(object, changes, annotations.is_empty()) {
        let version = object.pointer("/metadata/resourceVersion");
        test("/metadata/resourceVersion", version.unwrap_or(&Value::Null));
    }
    // Single keys, since a whole map would remove those of others.
    if !has_annotations(object) && !annotations.is_empty() {
        steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    for Change { place, to } in changes {
        steps.push(match (to.as_str(), object.pointer(&place.at)) {
            ("", _) => json!({"op": "remove", "path": place.at}),
            (to, Some(_)) => json!({"op": "replace", "path": place.at, "value": to}),
            (to, None) => json!({"op": "add", "path": place.at, "value": to}),
        });
    }
    for (key, value) in annotations {
        let path = format!("/metadata/annotations/{}", escaped(key));
        steps.push(json!({"op": "add", "path": path, "value": value}));
    }
    Value::Array(steps)
}

/// Returns whether a patch of these changes tests the version of the object: nothing else shows
/// that a value, or the map of annotations, is still missing.
#[must_use]
pub fn tests_version(object: &Value, changes: &[Change], bare: bool) -> bool {
    let mut places = changes.iter().map(|change| &change.place.at);
    let adds = places.any(|at| object.pointer(at).is_none());
    adds || !bare && !has_annotations(object)
}

fn has_annotations(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.is_some_and(Value::is_object)
}

/// Returns a key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Returns the changes that remain after the object was read again: of those whose place holds
/// another reference than the one to write. `None`: an image is neither the one that was read nor
/// the one to write, or a place has moved, so somebody else has changed the object.
#[must_use]
pub fn remaining(object: &Value, changes: &[Change]) -> Option<Vec<Change>> {
    let mut remaining = Vec::new();
    for change in changes {
        let Place {
            at, beside, image, ..
        } = &change.place;
        let named = beside.as_ref().is_none_or(|(at, name)| {
            object.pointer(at).and_then(Value::as_str) == Some(name.as_str())
        });
        let now = match object.pointer(at) {
            Some(now) => now.as_str()?,
            // A missing image is an empty one.
            None => "",
        };
        match now {
            _ if !named => return None,
            now if now == change.to => {}
            now if now == image => remaining.push(change.clone()),
            _ => return None,
        }
    }
    Some(remaining)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::places;

    fn object() -> Value {
        json!({
            "metadata": {"uid": "u1", "resourceVersion": "7", "annotations": {"deployment.kubernetes.io/revision": "3"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [
                {"name": "web", "image": "r.example.com/web:1"}, {"name": "sidecar", "image": "r.example.com/proxy:1"}]}}},
        })
    }

    fn change(object: &Value, to: &str) -> Change {
        Change {
            place: places(object, "/spec/template/spec").remove(0),
            to: to.to_owned(),
        }
    }

    fn applied(mut object: Value, patch: Value) -> Result<Value, String> {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        json_patch::patch(&mut object, &patch).map_err(|error| error.to_string())?;
        Ok(object)
    }

    #[test]
    fn a_patch_changes_the_image_and_single_annotations_alone() {
        let before = object();
        let patch = patch(
            &before,
            &[change(&before, "r.example.com/web@x")],
            &[(ROLLOUT, "shop#2".to_owned())],
        );
        let after = applied(before.clone(), patch).unwrap();
        let mut expected = before;
        expected["spec"]["template"]["spec"]["containers"][0]["image"] =
            json!("r.example.com/web@x");
        expected["metadata"]["annotations"][ROLLOUT] = json!("shop#2");
        assert_eq!(after, expected);
    }

    #[test]
    fn a_patch_of_an_object_without_annotations_guards_the_new_map() {
        let mut before = object();
        before["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
        let patch = patch(
            &before,
            &[change(&before, "r.example.com/web@x")],
            &[(ROLLOUT, "shop#2".to_owned())],
        );
        let after = applied(before.clone(), patch.clone()).unwrap();
        assert_eq!(after["metadata"]["annotations"], json!({ROLLOUT: "shop#2"}));
        before["metadata"]["resourceVersion"] = json!("8");
        assert!(applied(before, patch).is_err());
    }

    #[test]
    fn a_missing_image_is_added_and_taken_back() {
        let mut before = object();
        let container = &mut before["spec"]["template"]["spec"]["containers"][0];
        container.as_object_mut().unwrap().remove("image");
        let changes = [change(&before, "r.example.com/web@x")];
        assert_eq!(remaining(&before, &changes).unwrap(), changes);
        let steps = patch(&before, &changes, &[]);
        let after = applied(before.clone(), steps.clone()).unwrap();
        let image = &after["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(image, "r.example.com/web@x");
        // Nothing but the version shows that the image is still missing.
        let mut changed = before.clone();
        changed["metadata"]["resourceVersion"] = json!("8");
        assert!(applied(changed, steps).is_err());
        let back = Change {
            place: Place {
                image: "r.example.com/web@x".to_owned(),
                ..changes[0].place.clone()
            },
            to: String::new(),
        };
        let steps = patch(&after, &[back], &[]);
        assert_eq!(applied(after, steps).unwrap(), before);
    }

    #[test]
    fn a_patch_of_an_object_that_changed_is_refused() {
        let before = object();
        let patch = patch(&before, &[change(&before, "r.example.com/web@x")], &[]);
        for (at, value) in [
            ("/metadata/uid", "u2"),
            ("/spec/template/spec/containers/0/name", "other"),
            (
                "/spec/template/spec/containers/0/image",
                "r.example.com/web:2",
            ),
        ] {
            let mut changed = before.clone();
            *changed.pointer_mut(at).unwrap() = json!(value);
            assert!(applied(changed, patch.clone()).is_err(), "{at}");
        }
    }

    #[test]
    fn a_lost_race_is_told_from_a_refusal() {
        let before = object();
        let changes = [change(&before, "r.example.com/web@x")];
        assert_eq!(remaining(&before, &changes).unwrap(), changes);
        let mut other = before.clone();
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r.example.com/web@x");
        assert_eq!(remaining(&other, &changes).unwrap(), []);
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r.example.com/web:2");
        assert_eq!(remaining(&other, &changes), None);
    }
}
