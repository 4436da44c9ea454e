//! Tries to follow the annotated objects of a cluster, for `tagtrail doctor`.

use tagtrail_config::File;
use tagtrail_kubernetes::Problem;

use super::scopes;
use crate::settings::discovering;
use crate::target::{Clusters, TargetProblem};

/// Tries to follow the annotated objects of the cluster at this place in the file, without an
/// effect. `None`: the cluster discovers nothing.
pub async fn inspect_cluster(file: &File, place: usize) -> Option<Vec<TargetProblem>> {
    let name = file.cluster.get(place)?.name.get_ref().to_string();
    let entry = discovering(file).remove(&name)?;
    let cluster = Clusters::of(file, None).named(&name).ok()?;
    let mut problems = Vec::new();
    for (scope, further) in scopes(&entry) {
        let Err(problem) = cluster.may_follow(&scope).await else {
            continue;
        };
        if further && matches!(problem, Problem::NotFound(_) | Problem::Forbidden(_)) {
            continue;
        }
        let (kind, namespace) = (&scope.kind, scope.namespace.as_deref());
        let namespace = namespace.map_or_else(
            || "all namespaces".to_owned(),
            |name| format!("namespace {name}"),
        );
        let is_right = matches!(problem, Problem::Forbidden(_));
        let cure = match is_right {
            true => "give Tagtrail's account the rights of deploy/kubernetes/discover.yaml",
            false => "correct the entry, or start the API server",
        };
        problems.push(TargetProblem {
            fatal: true,
            found: format!(
                "annotated objects of kind {kind} in {namespace} can't be followed: {problem}"
            ),
            cure: cure.to_owned(),
        });
        if !is_right {
            break;
        }
    }
    Some(problems)
}
