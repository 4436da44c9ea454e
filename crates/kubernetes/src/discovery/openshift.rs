//! `image.openshift.io/triggers`, and the triggers of a `DeploymentConfig`.

use serde_json::Value;

use super::{Annotated, Wish};

/// Returns whether an object may have triggers of `OpenShift`.
pub(super) fn asks(_kind: &str, _metadata: &Value) -> bool {
    false
}

/// Reads the triggers of an object. `None`: it has none.
pub(super) fn read(_annotated: &Annotated<'_>) -> Option<Result<Wish, String>> {
    None
}
