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
/// annotations.
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
        test(&place.at, &json!(place.image));
    }
    // Single keys, since a whole map would remove those of others.
    let has_map = object
        .pointer("/metadata/annotations")
        .is_some_and(Value::is_object);
    if !has_map && !annotations.is_empty() {
        let version = object.pointer("/metadata/resourceVersion");
        test("/metadata/resourceVersion", version.unwrap_or(&Value::Null));
        steps.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    for Change { place, to } in changes {
        steps.push(json!({"op": "replace", "path": place.at, "value": to}));
    }
    for (key, value) in annotations {
        let path = format!("/metadata/annotations/{}", escaped(key));
        steps.push(json!({"op": "add", "path": path, "value": value}));
    }
    Value::Array(steps)
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
        match object.pointer(at).and_then(Value::as_str) {
            _ if !named => return None,
            Some(now) if now == change.to => {}
            Some(now) if now == image => remaining.push(change.clone()),
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
