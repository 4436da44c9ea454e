//! The image policy that selects what a policy of Keel selects. Keel reads the policy from an
//! object of Kubernetes; the importer and the reader of annotations use this rule.

use serde_json::{Value, json};

/// A policy of Keel, with the settings beside it and the tag that runs.
#[derive(Debug, Clone, Copy)]
pub struct Keel<'a> {
    /// `all`, `major`, `minor`, `patch`, `force`, `glob:…` or `regexp:…`.
    pub policy: &'a str,
    /// The tag that the container runs, if its image names one.
    pub tag: Option<&'a str>,
    /// `matchTag`: with `force`, only the tag that runs counts.
    pub match_tag: bool,
    /// `matchPreRelease`: only versions with the suffix of the one that runs count.
    pub same_suffix: bool,
}

/// The reason why a policy of Keel has no counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unruled {
    /// The running tag is no version to begin with: Keel takes any tag then.
    NoVersion,
    /// Keel has no such policy, and updates nothing.
    Unknown,
}

impl Keel<'_> {
    /// Returns the settings of the image policy besides its repository, in the order in which
    /// people write them.
    ///
    /// # Errors
    /// If there is no image policy with the same effect.
    pub fn settings(&self) -> Result<Vec<(&'static str, Value)>, Unruled> {
        let policy = self.policy;
        if let Some(glob) = policy.strip_prefix("glob:") {
            return Ok(vec![("glob", json!(glob)), ("alphabetical", json!("last"))]);
        }
        if let Some(given) = policy.strip_prefix("regexp:") {
            let named = given.contains("(?P<compare>") || given.contains("(?<compare>");
            let order = match named {
                true => ("order", json!(["compare:text"])),
                false => ("alphabetical", json!("last")),
            };
            return Ok(vec![("match", json!(given)), order]);
        }
        match policy {
            "major" | "minor" | "patch" | "all" => {
                let tag = self.tag.filter(|tag| tag.contains('.'));
                let tag = tag.ok_or(Unruled::NoVersion)?;
                let mut semver = json!({"within": policy, "from": tag, "parse": "loose"});
                match (policy, self.same_suffix) {
                    ("all", _) => {}
                    (_, true) => semver["suffix"] = json!("same"),
                    (_, false) => semver["prereleases"] = json!("all"),
                }
                // To Keel, a text without a dot is no version.
                Ok(vec![("semver", semver), ("match", json!(r"\."))])
            }
            "force" if self.match_tag => Ok(vec![("tag", json!(self.tag.unwrap_or("latest")))]),
            "force" => Ok(vec![("newest", json!("pushed"))]),
            _ => Err(Unruled::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::ImagePolicy;

    fn settings(policy: &str, tag: Option<&str>) -> Result<Value, Unruled> {
        let keel = Keel {
            policy,
            tag,
            match_tag: false,
            same_suffix: true,
        };
        let settings = keel.settings()?;
        let settings = settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Ok(Value::Object(settings.collect()))
    }

    #[test]
    fn each_policy_of_keel_is_an_image_policy_that_can_be_used() {
        for policy in [
            "all",
            "major",
            "minor",
            "patch",
            "force",
            "glob:build-*",
            "regexp:^build-(?P<compare>[0-9]+)$",
            "regexp:^v",
        ] {
            let mut settings = settings(policy, Some("1.2.3")).unwrap();
            settings["repository"] = json!("registry.example.com/shop/web");
            let read: ImagePolicy = serde_json::from_value(settings).unwrap();
            read.compile().unwrap();
        }
    }

    #[test]
    fn a_policy_of_versions_begins_with_a_version() {
        assert_eq!(settings("minor", Some("latest")), Err(Unruled::NoVersion));
        assert_eq!(settings("minor", None), Err(Unruled::NoVersion));
        assert_eq!(settings("newest", Some("1.2.3")), Err(Unruled::Unknown));
    }

    #[test]
    fn settings_beside_the_policy_count() {
        let keel = Keel {
            policy: "minor",
            tag: Some("1.2.3-rc1"),
            match_tag: true,
            same_suffix: false,
        };
        let semver = &keel.settings().unwrap()[0].1;
        assert_eq!(semver["prereleases"], "all");
        assert_eq!(semver.get("suffix"), None);
        let force = Keel {
            policy: "force",
            tag: None,
            ..keel
        };
        assert_eq!(force.settings().unwrap(), [("tag", json!("latest"))]);
    }
}
