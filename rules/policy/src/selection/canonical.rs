//! The canonical form of a rule.

use std::collections::BTreeMap;

use serde::Serialize;

use super::compile::{Refused, texts};
use super::spec::{Alphabetical, ImagePolicy, Newest, Numeric, Platforms, SemverRule};

/// Returns the settings that decide which tags are candidates, as JSON.
pub(super) fn canonical(policy: &ImagePolicy) -> Result<String, Refused> {
    let canonical = Canonical {
        tag: &policy.tag,
        semver: &policy.semver,
        calver: &policy.calver,
        numeric: policy.numeric,
        alphabetical: policy.alphabetical,
        order: &policy.order,
        newest: policy.newest,
        r#match: &policy.r#match,
        extract: policy.extract.as_deref().filter(|text| !text.is_empty()),
        glob: &policy.glob,
        ignore: &policy.ignore,
        ignore_match: &policy.ignore_match,
        platforms: &policy.platforms,
        labels: texts("labels", &policy.labels)?,
        annotations: texts("annotations", &policy.annotations)?,
    };
    serde_json::to_string(&canonical)
        .map_err(|error| Refused::new("repository", format!("no JSON: {error}")))
}

/// The settings that decide which tags are candidates, and in which order.
#[derive(Serialize)]
struct Canonical<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semver: &'a Option<SemverRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calver: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    numeric: Option<Numeric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alphabetical: Option<Alphabetical>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: &'a Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Newest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#match: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extract: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    glob: &'a Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ignore: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ignore_match: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    platforms: &'a Option<Platforms>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, Vec<String>>,
}
