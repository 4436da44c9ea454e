//! The names of objects, and the kinds that Tagtrail knows by itself.

use std::fmt;
use std::str::FromStr;

/// An object of one namespace as people write it: `deployment/web`, or
/// `rollout.argoproj.io/api` for a kind of a custom resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The kind in lower case, singular for the kinds of [`BuiltIn`].
    pub kind: String,
    /// The API group of a custom resource.
    pub group: Option<String>,
    /// Name of the object.
    pub name: String,
}

impl FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<ObjectName, String> {
        let error = || {
            format!(
                "{text:?} is no object; write kind/name, such as \"deployment/web\", or kind.group/name, such as \"rollout.argoproj.io/api\""
            )
        };
        let (kind, name) = text.split_once('/').ok_or_else(error)?;
        let (kind, group) = match kind.split_once('.') {
            Some((kind, group)) => (kind, Some(group.to_ascii_lowercase())),
            None => (kind, None),
        };
        let kind = kind.to_ascii_lowercase();
        let is_word = |text: &str, others: &str| {
            let known =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c);
            !text.is_empty() && text.len() <= 253 && text.chars().all(known)
        };
        let groups = group.as_deref().is_none_or(|group| is_word(group, ".-"));
        if !is_word(&kind, "") || !is_word(name, ".-:") || !groups {
            return Err(error());
        }
        let name = name.to_owned();
        if let Some(group) = group.filter(|group| !BuiltIn::GROUPS.contains(&group.as_str())) {
            let group = Some(group);
            return Ok(ObjectName { kind, group, name });
        }
        if ["job", "jobs", "job.batch"].contains(&kind.as_str()) {
            return Err(format!(
                "{text:?}: the pod template of a Job never changes; name the CronJob, or start a Job by a command"
            ));
        }
        let known = BuiltIn::named(&kind).ok_or_else(|| {
            let known = BuiltIn::ALL.map(|kind| kind.singular).join(", ");
            format!(
                "{text:?}: {kind:?} is no kind that Tagtrail knows; known are {known}, and kind.group for custom resources"
            )
        })?;
        Ok(ObjectName {
            kind: known.singular.to_owned(),
            group: None,
            name,
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}.{group}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// A kind that every cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// The word before the slash.
    pub singular: &'static str,
    /// The word in the address.
    pub plural: &'static str,
    /// The short word of kubectl.
    short: &'static str,
    /// The kind in messages of the API server.
    pub kind: &'static str,
    /// The API group, whose version is `v1`.
    pub group: &'static str,
}

impl BuiltIn {
    /// All kinds, whose pods are made from a template that may change.
    pub const ALL: [BuiltIn; 4] = [
        BuiltIn::new("deployment", "deployments", "deploy", "Deployment", "apps"),
        BuiltIn::new("statefulset", "statefulsets", "sts", "StatefulSet", "apps"),
        BuiltIn::new("daemonset", "daemonsets", "ds", "DaemonSet", "apps"),
        BuiltIn::new("cronjob", "cronjobs", "cj", "CronJob", "batch"),
    ];
    const GROUPS: [&str; 2] = ["apps", "batch"];

    const fn new(
        singular: &'static str,
        plural: &'static str,
        short: &'static str,
        kind: &'static str,
        group: &'static str,
    ) -> BuiltIn {
        BuiltIn {
            singular,
            plural,
            short,
            kind,
            group,
        }
    }

    /// Returns the kind with this word: singular, plural or short, in lower case.
    #[must_use]
    pub fn named(word: &str) -> Option<BuiltIn> {
        let is = |kind: &BuiltIn| [kind.singular, kind.plural, kind.short].contains(&word);
        BuiltIn::ALL.into_iter().find(is)
    }
}

/// The place of the pod spec in an object of this kind, as a JSON pointer (RFC 6901).
#[must_use]
pub fn pod_spec(kind: &str) -> &'static str {
    match kind {
        "cronjob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_written_as_for_kubectl() {
        for (text, expected) in [
            ("deployment/web", "deployment/web"),
            ("deploy/web", "deployment/web"),
            ("Deployment/web", "deployment/web"),
            ("deployments.apps/web", "deployment/web"),
            ("sts/db-1", "statefulset/db-1"),
            ("cronjob.batch/nightly", "cronjob/nightly"),
            ("rollout.argoproj.io/api", "rollout.argoproj.io/api"),
            (
                "DeploymentConfig.apps.openshift.io/web",
                "deploymentconfig.apps.openshift.io/web",
            ),
        ] {
            let object: ObjectName = text.parse().unwrap();
            assert_eq!(object.to_string(), expected);
            assert_eq!(expected.parse::<ObjectName>().unwrap(), object);
        }
    }

    #[test]
    fn a_wrong_object_is_refused_with_a_cure() {
        for (text, expected) in [
            ("web", "write kind/name"),
            ("deployment/", "write kind/name"),
            ("deployment/a/b", "write kind/name"),
            ("deployment/../../secrets/x", "write kind/name"),
            ("deployment/web?x=1", "write kind/name"),
            ("job/once", "name the CronJob"),
            ("pod/web", "known are deployment, statefulset"),
        ] {
            let error = text.parse::<ObjectName>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
