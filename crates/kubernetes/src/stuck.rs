//! Pods that keep a `StatefulSet` from its new images.

use serde_json::Value;

/// A pod, as it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: String,
}

/// Returns the pods of earlier images that are not ready. A `StatefulSet` with the policy
/// `OrderedReady` never replaces them, also not after a rollback.
///
/// `images` are containers with the images that they are to run.
#[must_use]
pub fn stuck(set: &Value, pods: &[Value], images: &[(&str, &str)]) -> Vec<Pod> {
    let policy = set.pointer("/spec/podManagementPolicy");
    if policy.and_then(Value::as_str) == Some("Parallel") {
        return Vec::new();
    }
    let set_uid = set.pointer("/metadata/uid").and_then(Value::as_str);
    let mut found = Vec::new();
    for pod in pods {
        let list = |at: &str| {
            let list = pod.pointer(at).and_then(Value::as_array);
            list.into_iter().flatten()
        };
        let text = |value: &Value, key: &str| -> Option<String> {
            Some(value.get(key)?.as_str()?.to_owned())
        };
        let owned = list("/metadata/ownerReferences")
            .any(|owner| owner.get("uid").and_then(Value::as_str) == set_uid);
        let earlier = list("/spec/containers")
            .chain(list("/spec/initContainers"))
            .any(|one| {
                let (name, image) = (text(one, "name"), text(one, "image"));
                let wanted = images.iter().find(|(of, _)| Some(*of) == name.as_deref());
                wanted.is_some_and(|(_, wanted)| image.as_deref() != Some(*wanted))
            });
        let ready = list("/status/conditions").any(|one| {
            text(one, "type").as_deref() == Some("Ready")
                && text(one, "status").as_deref() == Some("True")
        });
        let ending = pod.pointer("/metadata/deletionTimestamp").is_some();
        let metadata = pod.get("metadata");
        if owned
            && earlier
            && !ready
            && !ending
            && let Some(metadata) = metadata
            && let (Some(name), Some(uid)) = (text(metadata, "name"), text(metadata, "uid"))
        {
            found.push(Pod { name, uid });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_of_earlier_images_that_are_not_ready_are_stuck() {
        let set = json!({"metadata": {"uid": "s"}, "spec": {}});
        let pod = |owner: &str, image: &str, ready: &str| {
            json!({
                "metadata": {"name": "db-0", "uid": "p", "ownerReferences": [{"uid": owner}]},
                "spec": {"containers": [{"name": "web", "image": image}, {"name": "proxy", "image": "x"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let stuck = |set: &Value, pod: Value| !stuck(set, &[pod], &[("web", "good")]).is_empty();
        assert!(stuck(&set, pod("s", "bad", "False")));
        assert!(!stuck(&set, pod("s", "good", "False")));
        assert!(!stuck(&set, pod("s", "bad", "True")));
        assert!(!stuck(&set, pod("another", "bad", "False")));
        let parallel =
            json!({"metadata": {"uid": "s"}, "spec": {"podManagementPolicy": "Parallel"}});
        assert!(!stuck(&parallel, pod("s", "bad", "False")));
        let mut ending = pod("s", "bad", "False");
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!stuck(&set, ending));
    }
}
