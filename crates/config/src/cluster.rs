//! `[[cluster]]`: the clusters that targets act on, and in which annotated objects are triggers.

use serde::Deserialize;
use tagtrail_proto::{Image, Name};
use toml::Spanned;

use crate::Secret;
use crate::file::Mistake;

/// Most triggers of the objects of a cluster, unless the entry says otherwise.
const MOST: u32 = 1000;
/// Most namespaces that are named: each has a connection for each kind of object.
const NAMESPACES: usize = 50;

/// The access to a cluster of Kubernetes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name in targets.
    pub name: Spanned<Name>,
    /// The kubeconfig. Without it: the cluster that Tagtrail runs in, by its service account.
    pub kubeconfig: Option<Secret>,
    /// The context of the kubeconfig. Without it: its current one.
    pub context: Option<Spanned<String>>,
    /// The annotations by which an object is a trigger. Without any, no object is one.
    #[serde(default)]
    pub discover: Vec<Discover>,
    /// The namespaces of these objects; `*` for all.
    #[serde(default)]
    pub namespaces: Vec<Spanned<String>>,
    /// The repository of an image stream of `OpenShift`, with `{namespace}` and `{name}`.
    #[serde(default)]
    pub imagestreams: Option<Spanned<String>>,
    /// Most triggers of the objects of the cluster.
    #[serde(default = "most")]
    pub most: u32,
}

fn most() -> u32 {
    MOST
}

/// A system of annotations. An object that several of them annotate belongs to the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discover {
    /// `tagtrail.dev/…`
    Tagtrail,
    /// `image.openshift.io/triggers`, and the triggers of a `DeploymentConfig`.
    Openshift,
    /// `keel.sh/…`
    Keel,
}

impl Discover {
    /// Returns the word in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Discover::Tagtrail => "tagtrail",
            Discover::Openshift => "openshift",
            Discover::Keel => "keel",
        }
    }
}

impl Cluster {
    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        if let (Some(context), None) = (&self.context, &self.kubeconfig) {
            return Err(Mistake {
                at: context.span().start,
                key: "cluster.context".to_owned(),
                message: "is a part of a kubeconfig, and the entry has none; add kubeconfig = { file = \"…\" }".to_owned(),
            });
        }
        let at = self.name.span().start;
        let wrong = |key: &str, message: &str| Err(Mistake::new(at, key, message));
        match (self.discover.is_empty(), self.namespaces.is_empty()) {
            (false, true) => {
                return wrong(
                    "cluster.namespaces",
                    "is missing; name the namespaces whose annotated objects are triggers, such as namespaces = [\"shop\"], or [\"*\"] for all",
                );
            }
            (true, false) => {
                return wrong(
                    "cluster.discover",
                    "is missing, so namespaces has no effect; add discover = [\"tagtrail\"]",
                );
            }
            _ => {}
        }
        if let Some(one) = self.namespaces.get(NAMESPACES) {
            let count = self.namespaces.len();
            let message = format!(
                "names {count} namespaces, and each has a watch for each kind; name at most {NAMESPACES}, or [\"*\"] for all"
            );
            return Err(Mistake::new(
                one.span().start,
                "cluster.namespaces",
                message,
            ));
        }
        for namespace in &self.namespaces {
            let text = namespace.get_ref();
            if text != "*" && !is_label(text) {
                let message = format!(
                    "{text:?} is no namespace; write its name, of a-z, 0-9 and -, or \"*\" for all"
                );
                return Err(Mistake::new(
                    namespace.span().start,
                    "cluster.namespaces",
                    message,
                ));
            }
        }
        match &self.imagestreams {
            None if self.discover.contains(&Discover::Openshift) => wrong(
                "cluster.imagestreams",
                "is missing; write the repository of an image stream, such as \"registry.example.com/{namespace}/{name}\"",
            ),
            None => Ok(()),
            Some(written) => {
                let text = written.get_ref();
                let example = image_of_stream(text, "shop", "web", "latest");
                let read = example.parse::<Image>();
                let wrong = match read {
                    _ if !text.contains("{name}") => "has no {name}".to_owned(),
                    Ok(_) => return Ok(()),
                    Err(error) => format!("makes {example:?}, which is no image: {error}"),
                };
                let message = format!(
                    "{wrong}; write a repository such as \"registry.example.com/{{namespace}}/{{name}}\""
                );
                Err(Mistake::new(
                    written.span().start,
                    "cluster.imagestreams",
                    message,
                ))
            }
        }
    }
}

/// Returns the image that a tag of an image stream stands for, by the template of the cluster.
#[must_use]
pub fn image_of_stream(template: &str, namespace: &str, name: &str, tag: &str) -> String {
    let repository = template
        .replace("{namespace}", namespace)
        .replace("{name}", name);
    format!("{repository}:{tag}")
}

/// Returns whether this is a label of DNS (RFC 1123), as every namespace is.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Discover, File};

    fn read(keys: &str) -> Result<File, String> {
        let text = format!("[[cluster]]\nname = \"prod\"\n{keys}\n");
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        match file.broken.first() {
            Some(broken) => Err(broken.problem.to_string()),
            None => Ok(file),
        }
    }

    #[test]
    fn discovery_names_its_namespaces() {
        let file = read("discover = [\"tagtrail\", \"keel\"]\nnamespaces = [\"shop\"]").unwrap();
        let cluster = &file.cluster[0];
        assert_eq!(cluster.discover, [Discover::Tagtrail, Discover::Keel]);
        assert_eq!(cluster.most, 1000);
        read("discover = [\"openshift\"]\nnamespaces = [\"*\"]\nimagestreams = \"registry.example.com/{namespace}/{name}\"").unwrap();
        assert!(read("").unwrap().cluster[0].discover.is_empty());
    }

    #[test]
    fn mistakes_name_key_and_cure() {
        let openshift = "discover = [\"openshift\"]\nnamespaces = [\"shop\"]";
        for (keys, expected) in [
            (
                "discover = [\"tagtrail\"]".to_owned(),
                "tagtrail.toml:2: cluster.namespaces: is missing; name the namespaces",
            ),
            (
                "namespaces = [\"shop\"]".to_owned(),
                "cluster.discover: is missing, so namespaces has no effect",
            ),
            (
                "discover = [\"flux\"]\nnamespaces = [\"shop\"]".to_owned(),
                "unknown variant `flux`",
            ),
            (
                "discover = [\"keel\"]\nnamespaces = [\"shop-*\"]".to_owned(),
                "tagtrail.toml:4: cluster.namespaces: \"shop-*\" is no namespace",
            ),
            (
                format!(
                    "discover = [\"keel\"]\nnamespaces = [{}]",
                    "\"shop\", ".repeat(51)
                ),
                "cluster.namespaces: names 51 namespaces, and each has a watch for each kind; name at most 50, or [\"*\"] for all",
            ),
            (openshift.to_owned(), "cluster.imagestreams: is missing"),
            (
                format!("{openshift}\nimagestreams = \"registry.example.com/{{namespace}}\""),
                "cluster.imagestreams: has no {name}",
            ),
            (
                format!("{openshift}\nimagestreams = \"not an image/{{name}}\""),
                "which is no image",
            ),
        ] {
            let error = read(&keys).unwrap_err();
            assert!(error.contains(expected), "{keys}: {error}");
        }
    }
}
