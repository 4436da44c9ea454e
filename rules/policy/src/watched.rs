//! The images that a trigger watches: a tag, or a policy over the tags of a repository.

use std::fmt;
use std::sync::Arc;

use tagtrail_proto::{Image, Registry, Repository};

use crate::selection::{ImagePolicy, Policy, Refused};

/// An image of a trigger.
#[derive(Debug, Clone)]
pub enum Watched {
    /// This tag; its digest is followed.
    Tag(Image),
    /// The tag that a policy selects.
    Policy(Arc<WatchedPolicy>),
}

/// A policy over the tags of a repository.
#[derive(Debug)]
pub struct WatchedPolicy {
    /// The registry of the repository.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    /// The settings as written, with the name of the registry in place of an alias.
    pub settings: ImagePolicy,
    /// The compiled settings.
    pub policy: Policy,
}

impl Watched {
    /// Compiles a policy. A policy that names a tag and nothing else is that tag.
    ///
    /// # Errors
    /// For a setting that cannot be used.
    pub fn compile(settings: ImagePolicy) -> Result<Watched, Refused> {
        let (registry, repository) = settings.place()?;
        let policy = settings.compile()?;
        if let Some(tag) = settings.only_tag() {
            return Ok(Watched::Tag(Image {
                registry,
                repository,
                tag,
            }));
        }
        Ok(Watched::Policy(Arc::new(WatchedPolicy {
            registry,
            repository,
            settings,
            policy,
        })))
    }

    /// Returns a policy of a tag alone. It can keep a digest that the tag no longer has.
    #[must_use]
    pub fn into_policy(self) -> Watched {
        let Watched::Tag(image) = &self else {
            return self;
        };
        let settings = ImagePolicy {
            repository: format!("{}/{}", image.registry, image.repository),
            tag: Some(image.tag.to_string()),
            ..ImagePolicy::default()
        };
        match settings.compile() {
            Ok(policy) => Watched::Policy(Arc::new(WatchedPolicy {
                registry: image.registry.clone(),
                repository: image.repository.clone(),
                settings,
                policy,
            })),
            // Every tag is a policy.
            Err(_) => self,
        }
    }

    /// Returns the registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        match self {
            Watched::Tag(image) => &image.registry,
            Watched::Policy(policy) => &policy.registry,
        }
    }

    /// Returns the repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        match self {
            Watched::Tag(image) => &image.repository,
            Watched::Policy(policy) => &policy.repository,
        }
    }

    /// Returns the image, if the trigger names its tag.
    #[must_use]
    pub fn tag(&self) -> Option<&Image> {
        match self {
            Watched::Tag(image) => Some(image),
            Watched::Policy(_) => None,
        }
    }

    /// Returns the policy, if there is one.
    #[must_use]
    pub fn policy(&self) -> Option<&Arc<WatchedPolicy>> {
        match self {
            Watched::Tag(_) => None,
            Watched::Policy(policy) => Some(policy),
        }
    }

    /// Returns true if this may stand for the image: for this tag, or any tag of this repository.
    #[must_use]
    pub fn covers(&self, image: &Image) -> bool {
        match self {
            Watched::Tag(tag) => tag == image,
            Watched::Policy(policy) => {
                policy.registry == image.registry && policy.repository == image.repository
            }
        }
    }
}

/// The image; of a policy, the repository with the rule, such as `…/shop/api (semver ^1.4)`.
impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Watched::Tag(image) => image.fmt(f),
            Watched::Policy(policy) => policy.fmt(f),
        }
    }
}

impl fmt::Display for WatchedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, repository) = (&self.registry, &self.repository);
        write!(
            f,
            "{registry}/{repository} ({})",
            self.settings.order_text()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(settings: &str) -> Watched {
        let text = format!("repository = \"registry.example.com/shop/api\"\n{settings}");
        Watched::compile(toml::from_str(&text).unwrap()).unwrap()
    }

    #[test]
    fn a_policy_of_a_tag_alone_is_that_tag() {
        let tag = watched("tag = \"latest\"");
        assert_eq!(tag.to_string(), "registry.example.com/shop/api:latest");
        assert!(tag.tag().is_some());
        assert!(
            watched("tag = \"latest\"\non_moved = \"keep\"")
                .tag()
                .is_none()
        );
    }

    #[test]
    fn a_policy_is_described_by_its_order() {
        for (settings, text) in [
            ("semver = \"^1.4\"", "semver ^1.4"),
            (
                "semver = { within = \"minor\", from = \"1.2.3\" }",
                "semver within minor",
            ),
            ("numeric = \"highest\"", "numeric highest"),
            ("alphabetical = \"first\"", "alphabetical first"),
            ("newest = \"pushed\"", "newest pushed"),
            ("calver = \"YYYY.0M\"", "calver YYYY.0M"),
            ("tag = \"x\"\nmin_age = \"1d\"", "tag x"),
            ("match = \"^b-(?<n>[0-9]+)$\"\norder = [\"n\"]", "order n"),
        ] {
            let described = format!("registry.example.com/shop/api ({text})");
            assert_eq!(watched(settings).to_string(), described);
        }
    }

    #[test]
    fn settings_that_are_written_as_json_are_read_back() {
        let watched = watched(
            "semver = { range = \"^1.4\", prereleases = \"all\" }\nmin_age = \"36h\"\nmetadata_wait = \"1500ms\"\n\
             ignore = [\"*-rc\"]\nplatforms = { any = [\"linux/amd64\"] }\nlabels = { team = [\"a\", \"b\"] }\non_removed = \"fall-back\"",
        );
        let settings = &watched.policy().unwrap().settings;
        let json = serde_json::to_string(settings).unwrap();
        assert_eq!(
            serde_json::from_str::<ImagePolicy>(&json).unwrap(),
            *settings
        );
        assert!(
            json.contains("\"min_age\":\"36h\"") && !json.contains("glob"),
            "{json}"
        );
    }
}
