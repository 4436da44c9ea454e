//! The cluster of the triggers with a target `kubernetes`, and the check of its objects.

use std::time::Duration;

use serde_json::Value;
use tagtrail_testkit::{SOON, TestKubernetes, eventually};
use tokio::time::sleep;

use crate::teams::kubernetes_triggers;

/// The namespace of the objects.
const NAMESPACE: &str = "storm";

/// The objects of a trigger: with two, a process may die between their patches.
fn objects(trigger: &str) -> [String; 2] {
    [
        format!("deployment/{trigger}"),
        format!("cronjob/{trigger}"),
    ]
}

/// Starts a cluster with the objects of all triggers.
pub(crate) async fn start() -> TestKubernetes {
    let cluster = TestKubernetes::start().await;
    let mut text =
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}\n");
    for (name, image) in kubernetes_triggers() {
        let containers = format!("containers: [{{name: app, image: \"{image}:first\"}}]");
        let metadata = format!("metadata: {{name: {name}, namespace: {NAMESPACE}}}");
        text += &format!(
            "---\n{{apiVersion: apps/v1, kind: Deployment, {metadata}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, \
             template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{{containers}}}}}}}}}\n\
             ---\n{{apiVersion: batch/v1, kind: CronJob, {metadata}, spec: {{schedule: \"0 3 1 1 *\", \
             jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, {containers}}}}}}}}}}}}}\n"
        );
    }
    cluster.create(&text);
    cluster
}

/// Returns the entry of the cluster in the configuration.
pub(crate) fn config(cluster: &TestKubernetes) -> String {
    let kubeconfig = cluster.kubeconfig();
    format!("[[cluster]]\nname = \"storm\"\nkubeconfig = {{ file = {kubeconfig:?} }}\n")
}

/// Returns the settings of the target of a trigger.
pub(crate) fn target(trigger: &str) -> String {
    let objects = objects(trigger);
    format!(
        "[trigger.target.kubernetes]\ncluster = \"storm\"\nnamespace = \"{NAMESPACE}\"\nobjects = {objects:?}\n"
    )
}

/// Stops the API server for a while.
pub(crate) async fn pause(cluster: &TestKubernetes, pause: Duration) {
    cluster.signal_api_server("STOP");
    sleep(pause).await;
    cluster.signal_api_server("CONT");
}

/// Waits until the API server answers.
pub(crate) async fn heal(cluster: &TestKubernetes) {
    cluster.signal_api_server("CONT");
    eventually("the API server", SOON, async || {
        cluster.try_kubectl(&["get", "--raw", "/readyz"], "").ok()
    })
    .await;
}

/// Checks that all objects of a trigger run the image of its last rollout, which they name.
pub(crate) fn check(
    cluster: &TestKubernetes,
    (trigger, image): (&str, &str),
    (number, digest): (i64, &str),
) -> Result<(), String> {
    let pinned = format!("{image}@{digest}");
    for object in objects(trigger) {
        let arguments = ["-n", NAMESPACE, "get", object.as_str(), "-o", "json"];
        let text = cluster.try_kubectl(&arguments, "")?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let template = match object.starts_with("cronjob/") {
            true => "/spec/jobTemplate/spec/template",
            false => "/spec/template",
        };
        let runs = value.pointer(&format!("{template}/spec/containers/0/image"));
        let runs = runs.and_then(Value::as_str).unwrap_or_default();
        if runs != pinned {
            return Err(format!("{object} runs {runs} in place of {pinned}"));
        }
        let mark = value.pointer("/metadata/annotations/tagtrail.dev~1rollout");
        let mark = mark.and_then(Value::as_str).unwrap_or_default();
        let set_by = mark.strip_prefix(&format!("{trigger}#"));
        let set_by = set_by.and_then(|by| by.parse::<i64>().ok());
        if set_by.is_none_or(|by| by > number) {
            return Err(format!(
                "{object} was changed by {mark:?}, and not by rollout {number} of {trigger} or an older one"
            ));
        }
    }
    Ok(())
}
