//! The places of an object that name an image, and the repository that a reference names.

use serde_json::Value;
use tagtrail_proto::{Digest, Registry, Repository};

/// A place of an object that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The place of the reference, as a JSON pointer.
    pub at: String,
    /// The place and value of the name beside the reference: of the container, or of the volume.
    pub beside: Option<(String, String)>,
    /// The name of the container or volume.
    pub name: String,
    /// The reference that is there now; empty if there is none yet.
    pub image: String,
}

/// Returns the places in a pod spec that name images: containers, init containers, image volumes.
/// `at` is the place of the pod spec in the object.
#[must_use]
pub fn places(object: &Value, at: &str) -> Vec<Place> {
    const LISTS: [(&str, &str); 3] = [
        ("initContainers", "/image"),
        ("containers", "/image"),
        ("volumes", "/image/reference"),
    ];
    let mut places = Vec::new();
    for (list, rest) in LISTS {
        let found = object.pointer(&format!("{at}/{list}"));
        let entries = found.and_then(Value::as_array).into_iter().flatten();
        for (index, entry) in entries.enumerate() {
            let name = entry.get("name").and_then(Value::as_str);
            let image = match (entry.pointer(rest), list) {
                // A volume without an image is one of another kind.
                (None, "volumes") => None,
                // A `DeploymentConfig` may have no image before its trigger has found one.
                (None, _) => Some(""),
                (Some(image), _) => image.as_str(),
            };
            if let (Some(name), Some(image)) = (name, image) {
                places.push(Place {
                    at: format!("{at}/{list}/{index}{rest}"),
                    beside: Some((format!("{at}/{list}/{index}/name"), name.to_owned())),
                    name: name.to_owned(),
                    image: image.to_owned(),
                });
            }
        }
    }
    places
}

/// The parts of a reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The text before tag and digest, as written.
    pub name: String,
    /// The registry; `docker.io` if the reference names none.
    pub registry: Registry,
    /// The repository; of an official image of Docker Hub with `library/`.
    pub repository: Repository,
    /// The tag, if the reference has one.
    pub tag: Option<String>,
    /// The digest, if the reference has one.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as a kubelet does. `None`: it is none, or its digest is of an algorithm
    /// that Tagtrail does not know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Reference> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            None => (text, None),
        };
        // A colon before a slash is that of a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        let written = name.to_owned();
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        Some(Reference {
            name: written,
            registry: registry.parse().ok()?,
            repository: repository.parse().ok()?,
            tag,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_of_an_image_is_found() {
        let object = json!({"spec": {"template": {"spec": {
            "initContainers": [{"name": "migrate", "image": "a.example.com/m:1"}],
            "containers": [{"name": "web", "image": "a.example.com/w:1"}, {"name": "no-image"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "model", "image": {"reference": "a.example.com/v:1"}}],
        }}}});
        let places = places(&object, "/spec/template/spec");
        let found: Vec<(&str, &str)> = places
            .iter()
            .map(|p| (p.at.as_str(), p.image.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "/spec/template/spec/initContainers/0/image",
                    "a.example.com/m:1"
                ),
                (
                    "/spec/template/spec/containers/0/image",
                    "a.example.com/w:1"
                ),
                ("/spec/template/spec/containers/1/image", ""),
                (
                    "/spec/template/spec/volumes/1/image/reference",
                    "a.example.com/v:1"
                ),
            ]
        );
        for place in places {
            let (at, name) = place.beside.unwrap();
            assert_eq!(object.pointer(&at).unwrap(), name.as_str());
            let image = object.pointer(&place.at).and_then(Value::as_str);
            assert_eq!(image.unwrap_or_default(), place.image);
        }
    }

    #[test]
    fn references_are_read_as_a_kubelet_reads_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, registry, repository, with_digest) in [
            ("nginx", "docker.io", "library/nginx", false),
            ("nginx:1.27", "docker.io", "library/nginx", false),
            ("grafana/grafana:11", "docker.io", "grafana/grafana", false),
            ("localhost/app", "localhost", "app", false),
            (
                "localhost:5000/shop/web:v1",
                "localhost:5000",
                "shop/web",
                false,
            ),
            (
                "registry.example.com/shop/web",
                "registry.example.com",
                "shop/web",
                false,
            ),
            (
                &format!("registry.example.com/shop/web:v1@{digest}"),
                "registry.example.com",
                "shop/web",
                true,
            ),
        ] {
            let read = Reference::parse(text).unwrap();
            let parts = (
                read.registry.as_ref(),
                read.repository.as_ref(),
                read.digest.is_some(),
            );
            assert_eq!(parts, (registry, repository, with_digest), "{text}");
        }
        for text in [
            "",
            " ",
            "not an image!!",
            "r.example.com/x@sha256:abc",
            "r.example.com/",
        ] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
