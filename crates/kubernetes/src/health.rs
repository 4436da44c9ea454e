//! The result of a change, read from the status of an object.
//!
//! The conditions `Available` and `Ready` of a Deployment tell nothing about a change: both stay
//! good on old pods while the new pod fails.

use serde_json::Value;

/// The state of an object after a change of its pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The pods run the template.
    Done,
    /// The object reports no result, so the change itself is all: the text says why.
    Applied(&'static str),
    /// The controller has not finished; the text is for people.
    Progressing(String),
    /// The controller reports a failure; the text is for people.
    Failed(String),
}

/// Returns the state of an object. `kind` is the word before the slash of its name. With
/// `old_pods_gone`, a Deployment is done only after its old pods have ended.
#[must_use]
pub fn health(kind: &str, object: &Value, old_pods_gone: bool) -> Health {
    if let Some(never) = reports_nothing(kind, object) {
        return Health::Applied(never);
    }
    let generation = number(object, "/metadata/generation");
    let observed = object.pointer("/status/observedGeneration");
    // Argo Rollouts write the number as a text.
    let observed = observed.and_then(|seen| match seen {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    });
    if observed.is_some_and(|observed| observed < generation)
        || observed.is_none() && is_known(kind)
    {
        return Health::Progressing("the controller has not seen the change yet".to_owned());
    }
    match kind {
        "deployment" | "deploymentconfig" => deployment(object, old_pods_gone),
        "statefulset" => stateful_set(object),
        "daemonset" => daemon_set(object),
        "rollout" => rollout(object),
        _ => by_conditions(object),
    }
}

/// Returns whether the kind always reports the generation that its controller has seen.
fn is_known(kind: &str) -> bool {
    ["deployment", "statefulset", "daemonset"].contains(&kind)
}

/// Returns why an object never reports the result of a change. `None`: it does.
fn reports_nothing(kind: &str, object: &Value) -> Option<&'static str> {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str);
    if object.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return Some("the object is paused: its pods change when it is resumed");
    }
    if kind == "cronjob" {
        return Some("the next Job runs the images");
    }
    if text("/spec/updateStrategy/type") == Some("OnDelete") {
        return Some("its strategy is OnDelete: each pod changes when somebody deletes it");
    }
    if kind == "statefulset" && number(object, "/spec/updateStrategy/rollingUpdate/partition") > 0 {
        return Some("it has a partition: pods below its number keep their images");
    }
    None
}

fn deployment(object: &Value, old_pods_gone: bool) -> Health {
    if let Some(message) = condition(object, "ReplicaFailure", "True") {
        return Health::Failed(message);
    }
    if let Some(message) = condition(object, "Progressing", "False") {
        return Health::Failed(message);
    }
    let wanted = object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let status = |key: &str| number(object, &format!("/status/{key}"));
    let (updated, all, available) = (
        status("updatedReplicas"),
        status("replicas"),
        status("availableReplicas"),
    );
    let ending = status("terminatingReplicas");
    let progressing = |text: String| {
        let more = if ending > 0 {
            format!(", {ending} are ending")
        } else {
            String::new()
        };
        Health::Progressing(text + &more)
    };
    if updated < wanted {
        return progressing(format!("{updated} of {wanted} pods run the new images"));
    }
    if all > updated {
        return progressing(format!("{} old pods are left", all - updated));
    }
    if available < updated {
        return progressing(format!("{available} of {updated} new pods are available"));
    }
    match ending {
        1.. if old_pods_gone => Health::Progressing(format!("{ending} old pods are ending")),
        _ => Health::Done,
    }
}

fn stateful_set(object: &Value) -> Health {
    let wanted = object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let ready = number(object, "/status/readyReplicas");
    let updated = number(object, "/status/updatedReplicas");
    if text("/status/currentRevision") != text("/status/updateRevision") {
        return Health::Progressing(format!("{updated} of {wanted} pods run the new images"));
    }
    match ready < wanted {
        true => Health::Progressing(format!("{ready} of {wanted} pods are ready")),
        false => Health::Done,
    }
}

fn daemon_set(object: &Value) -> Health {
    let status = |key: &str| number(object, &format!("/status/{key}"));
    let wanted = status("desiredNumberScheduled");
    let (updated, available) = (status("updatedNumberScheduled"), status("numberAvailable"));
    if updated < wanted {
        return Health::Progressing(format!("{updated} of {wanted} pods run the new images"));
    }
    match available < wanted {
        true => Health::Progressing(format!("{available} of {wanted} pods are available")),
        false => Health::Done,
    }
}

/// Judges a Rollout of Argo Rollouts by its phase.
fn rollout(object: &Value) -> Health {
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let message = match text("/status/message") {
        "" => text("/status/phase").to_owned(),
        message => message.to_owned(),
    };
    match text("/status/phase") {
        "Healthy" => Health::Done,
        "Degraded" => Health::Failed(message),
        _ => Health::Progressing(message),
    }
}

/// Judges another kind by the conditions that controllers share (kstatus): `Stalled` is a failure,
/// `Ready` the result. A kind without both reports no result.
fn by_conditions(object: &Value) -> Health {
    if let Some(message) = condition(object, "Stalled", "True") {
        return Health::Failed(message);
    }
    if condition(object, "Ready", "True").is_some() {
        return Health::Done;
    }
    for state in ["False", "Unknown"] {
        if let Some(message) = condition(object, "Ready", state) {
            return Health::Progressing(message);
        }
    }
    Health::Applied("its kind reports no result")
}

/// Returns the message of a condition if it has this state.
fn condition(object: &Value, kind: &str, state: &str) -> Option<String> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let one = conditions.iter().find(|one| {
        let is = |key: &str, text: &str| one.get(key).and_then(Value::as_str) == Some(text);
        is("type", kind) && is("status", state)
    })?;
    let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(match text("message") {
        "" => text("reason").to_owned(),
        message => message.to_owned(),
    })
}

fn number(object: &Value, at: &str) -> i64 {
    object.pointer(at).and_then(Value::as_i64).unwrap_or(0)
}

/// Returns the reasons why pods of these containers do not run, each once and at most three.
///
/// `images` are the references of the change: pods with other images are old.
#[must_use]
pub fn failing(pods: &[Value], images: &[&str]) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for pod in pods {
        let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let list = |at: &str| {
            pod.pointer(at)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let containers = list("/spec/containers").chain(list("/spec/initContainers"));
        let mut written = containers.filter_map(|one| one.get("image")?.as_str());
        if !written.any(|image| images.contains(&image)) {
            continue;
        }
        let name = text("/metadata/name");
        let mut found = Vec::new();
        for one in list("/status/initContainerStatuses").chain(list("/status/containerStatuses")) {
            let container = one.get("name").and_then(Value::as_str).unwrap_or_default();
            if let Some(why) = of_container(one) {
                found.push(format!("container {container} of pod {name}: {why}"));
            }
        }
        if text("/status/phase") == "Pending" {
            let unscheduled = condition(pod, "PodScheduled", "False");
            found.extend(unscheduled.map(|why| format!("pod {name} has no node: {why}")));
        }
        for reason in found {
            if reasons.len() < 3 && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    reasons
}

/// Returns why a container does not run. `None`: it runs, or it begins.
fn of_container(status: &Value) -> Option<String> {
    let text = |at: &str| {
        status
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let ended = |at: &str| {
        let state = status.pointer(at)?;
        let code = state.get("exitCode").and_then(Value::as_i64)?;
        let reason = state
            .get("reason")
            .and_then(Value::as_str)
            .unwrap_or("Error");
        (code != 0).then(|| format!("{reason}, exit code {code}"))
    };
    let waiting = text("/state/waiting/reason");
    let last = ended("/state/terminated").or_else(|| ended("/lastState/terminated"));
    match (waiting, last) {
        ("" | "ContainerCreating" | "PodInitializing", last) => last,
        (waiting, Some(last)) => Some(format!("{waiting} after {last}")),
        (waiting, None) => Some(match text("/state/waiting/message") {
            "" => waiting.to_owned(),
            message => format!("{waiting}: {message}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployed(status: Value) -> Value {
        json!({"metadata": {"generation": 4}, "spec": {"replicas": 3}, "status": status})
    }

    #[test]
    fn a_deployment_is_done_by_its_new_pods_alone() {
        let progressing = |text: &str| Health::Progressing(text.to_owned());
        for (status, expected) in [
            (
                json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
                progressing("the controller has not seen the change yet"),
            ),
            (
                json!({}),
                progressing("the controller has not seen the change yet"),
            ),
            // Available and ready by old pods.
            (
                json!({"observedGeneration": 4, "replicas": 4, "updatedReplicas": 1, "availableReplicas": 3, "readyReplicas": 3,
                    "conditions": [{"type": "Available", "status": "True"}]}),
                progressing("1 of 3 pods run the new images"),
            ),
            (
                json!({"observedGeneration": 4, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3, "terminatingReplicas": 2}),
                progressing("1 old pods are left, 2 are ending"),
            ),
            (
                json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
                progressing("2 of 3 new pods are available"),
            ),
            (
                json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "terminatingReplicas": 2}),
                Health::Done,
            ),
            (
                json!({"observedGeneration": 4, "conditions": [{"type": "Progressing", "status": "False", "message": "has timed out progressing."}]}),
                Health::Failed("has timed out progressing.".to_owned()),
            ),
            (
                json!({"observedGeneration": 4, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}),
                Health::Failed("exceeded quota".to_owned()),
            ),
        ] {
            assert_eq!(
                health("deployment", &deployed(status.clone()), false),
                expected,
                "{status}"
            );
        }
        let ending = json!({"observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "terminatingReplicas": 2});
        assert_eq!(
            health("deployment", &deployed(ending), true),
            progressing("2 old pods are ending")
        );
    }

    #[test]
    fn an_object_that_never_reports_a_result_says_so() {
        let strategy = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        let partition = json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}});
        for (kind, object, expected) in [
            (
                "deployment",
                json!({"spec": {"paused": true}, "status": {"conditions": [{"type": "Progressing", "status": "False"}]}}),
                "paused",
            ),
            ("statefulset", strategy.clone(), "OnDelete"),
            ("daemonset", strategy, "OnDelete"),
            ("statefulset", partition, "partition"),
            ("cronjob", json!({}), "next Job"),
        ] {
            let Health::Applied(why) = health(kind, &object, false) else {
                panic!("{kind}");
            };
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn sets_are_done_by_their_own_fields() {
        let set = |current: &str, ready: i64| {
            let status = json!({"observedGeneration": 1, "currentRevision": current, "updateRevision": "b", "readyReplicas": ready});
            health(
                "statefulset",
                &json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}),
                false,
            )
        };
        assert_eq!(set("b", 2), Health::Done);
        assert!(matches!(set("a", 2), Health::Progressing(_)));
        assert!(matches!(set("b", 1), Health::Progressing(_)));
        let daemons = |updated: i64, available: i64| {
            let status = json!({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available});
            health(
                "daemonset",
                &json!({"metadata": {"generation": 1}, "status": status}),
                false,
            )
        };
        assert_eq!(daemons(2, 2), Health::Done);
        assert!(matches!(daemons(1, 2), Health::Progressing(_)));
        assert!(matches!(daemons(2, 1), Health::Progressing(_)));
    }

    #[test]
    fn custom_resources_are_judged_by_phase_or_conditions() {
        let rollout = |phase: &str| {
            health(
                "rollout",
                &json!({"metadata": {"generation": 2}, "status": {"observedGeneration": "2", "phase": phase, "message": "why"}}),
                false,
            )
        };
        assert_eq!(rollout("Healthy"), Health::Done);
        assert_eq!(rollout("Degraded"), Health::Failed("why".to_owned()));
        assert_eq!(rollout("Paused"), Health::Progressing("why".to_owned()));
        let ready = |kind: &str, status: &str| {
            health(
                "helmrelease",
                &json!({"status": {"conditions": [{"type": kind, "status": status, "reason": "R"}]}}),
                false,
            )
        };
        assert_eq!(ready("Ready", "True"), Health::Done);
        assert_eq!(ready("Ready", "False"), Health::Progressing("R".to_owned()));
        assert_eq!(ready("Stalled", "True"), Health::Failed("R".to_owned()));
        assert!(matches!(
            health("thing", &json!({}), false),
            Health::Applied(_)
        ));
    }

    #[test]
    fn the_reason_of_a_failing_pod_is_named() {
        let pod = |image: &str, status: Value| json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"name": "web", "image": image}]}, "status": status});
        let waiting = |reason: &str| json!({"containerStatuses": [{"name": "web", "state": {"waiting": {"reason": reason, "message": "not found"}}}]});
        let crashed = json!({"containerStatuses": [{"name": "web", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}]});
        for (pod, expected) in [
            (
                pod("new", waiting("ImagePullBackOff")),
                vec!["container web of pod web-1: ImagePullBackOff: not found"],
            ),
            (pod("old", waiting("ImagePullBackOff")), vec![]),
            (pod("new", waiting("ContainerCreating")), vec![]),
            (
                pod("new", crashed),
                vec!["container web of pod web-1: CrashLoopBackOff after Error, exit code 3"],
            ),
            (
                pod(
                    "new",
                    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}),
                ),
                vec!["pod web-1 has no node: 0/3 nodes"],
            ),
        ] {
            assert_eq!(failing(&[pod], &["new"]), expected);
        }
    }
}
