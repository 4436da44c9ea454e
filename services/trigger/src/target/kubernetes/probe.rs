//! Tries the cluster for `tagtrail doctor`, without an effect on it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tagtrail_kubernetes::{Event, MANAGER, ObjectName, Problem, owner};

use super::super::contract::TargetProblem;
use super::KubernetesTarget;

/// Field managers of tools that set images from a repository again and again.
const GITOPS: [&str; 4] = [
    "kustomize-controller",
    "helm-controller",
    "argocd-controller",
    "argocd-application-controller",
];

impl KubernetesTarget {
    /// Returns the problems of the objects and of the rights to change them, or to read them if
    /// another system writes the images.
    pub(super) async fn probe(&self) -> Vec<TargetProblem> {
        let (mut problems, mut unread) = (Vec::new(), false);
        let mut unused: BTreeSet<&str> = self.repositories.keys().map(String::as_str).collect();
        for object in self.settings.all() {
            let value = match self.cluster.get(&self.settings.namespace, object).await {
                Ok(value) => value,
                Err(problem) => {
                    let reached = problem.is_final();
                    unread = true;
                    problems.push(self.trouble(&self.full(object), problem));
                    match reached {
                        true => continue,
                        // The other objects would only wait for the same cluster.
                        false => return problems,
                    }
                }
            };
            match self.used(object, &value) {
                Err(found) => problems.push(fatal(found, "see docs/kubernetes.md, places")),
                Ok(used) if used.is_empty() => problems.push(TargetProblem::warning(
                    format!("{object} runs no image of the trigger, so it never changes"),
                    "name its containers by containers, or remove it from objects",
                )),
                Ok(used) => {
                    for used in used {
                        unused.remove(used.image.as_str());
                        let manager = owner(&value, &used.place);
                        let manager = manager
                            .map(|owner| owner.manager)
                            .filter(|manager| !self.reads && GITOPS.contains(&manager.as_str()));
                        problems.extend(manager.map(|manager| TargetProblem::warning(
                            format!("{manager} sets the image of {} in {object}, too", used.place.name),
                            "leave the image out of its manifest after the first rollout, or let it ignore the fields that the manager tagtrail owns",
                        )));
                    }
                }
            }
            if !self.reads {
                let uid = value.pointer("/metadata/uid").cloned().unwrap_or_default();
                let nothing = json!([{"op": "test", "path": "/metadata/uid", "value": uid}]);
                let tried = self
                    .cluster
                    .patch(&self.settings.namespace, object, &nothing, true)
                    .await;
                if let Err(problem) = tried {
                    problems.push(self.trouble(&self.full(object), problem));
                    continue;
                }
                problems.extend(self.may_record(object, &value).await);
            }
            let watched = self
                .cluster
                .may_watch(&self.settings.namespace, object)
                .await;
            if let Err(problem) = watched {
                problems.push(TargetProblem::warning(
                    format!("{} can't be watched: {problem}", self.full(object)),
                    "give Tagtrail's account the rights list and watch: without them each change first reads the object, and changes by others are seen once in a minute",
                ));
            }
        }
        // An object that can't be read may run them.
        for name in unused.into_iter().filter(|_| !unread) {
            problems.push(fatal(
                format!("no container of the objects runs the image {name}"),
                "name its containers by containers, or correct objects",
            ));
        }
        problems
    }

    /// Returns a problem if no event can be recorded on an object.
    async fn may_record(&self, object: &ObjectName, value: &Value) -> Option<TargetProblem> {
        let event = Event {
            reason: "TagtrailRollout",
            warning: false,
            note: "a trial".to_owned(),
            cause: "doctor".to_owned(),
        };
        let uid = value.pointer("/metadata/uid").and_then(Value::as_str);
        let of = (object, uid.unwrap_or_default());
        let namespace = &self.settings.namespace;
        let problem = self
            .cluster
            .record(namespace, of, &event, true)
            .await
            .err()?;
        Some(TargetProblem::warning(
            format!(
                "no event can be recorded on {}: {problem}",
                self.full(object)
            ),
            "give Tagtrail's account the right create on events of events.k8s.io: without it `kubectl describe` tells nothing of rollouts and holds",
        ))
    }

    fn trouble(&self, what: &str, problem: Problem) -> TargetProblem {
        let cure = match &problem {
            Problem::NotFound(_) => "create the object, or correct objects",
            Problem::Forbidden(_) => "give Tagtrail's account the Role of docs/kubernetes.md",
            Problem::Unauthorized(_) | Problem::Access(_) => {
                "correct the entry [[cluster]], or its kubeconfig"
            }
            _ => "check that the API server is up and can be reached from here",
        };
        fatal(format!("{what}: {problem} (as manager {MANAGER})"), cure)
    }
}

fn fatal(found: String, cure: &str) -> TargetProblem {
    TargetProblem {
        fatal: true,
        found,
        cure: cure.to_owned(),
    }
}
