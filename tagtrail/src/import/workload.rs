//! The containers of Deployments and other workloads.

use super::objects::{Object, list};

/// A container of a workload.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) init: bool,
}

/// Returns the pod of a workload, as a JSON pointer.
pub(super) fn pod(object: &Object) -> &'static str {
    match object.kind.as_str() {
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        "Pod" => "/spec",
        _ => "/spec/template/spec",
    }
}

/// Returns the containers of a workload, those of the start last.
pub(super) fn containers(object: &Object) -> Vec<Container> {
    let mut all = Vec::new();
    for (key, init) in [("containers", false), ("initContainers", true)] {
        for container in list(object.get(&format!("{}/{key}", pod(object)))) {
            let text = |key: &str| container[key].as_str().map(str::to_owned);
            if let (Some(name), Some(image)) = (text("name"), text("image")) {
                all.push(Container { name, image, init });
            }
        }
    }
    all
}
