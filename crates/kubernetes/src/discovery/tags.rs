//! The tags that containers run.

use serde_json::{Map, Value, json};

use super::Annotated;
use crate::images::{Place, Reference, places};
use crate::object::pod_spec;

/// A container, an init container or an image volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    /// The list that has the container.
    pub(super) list: List,
    /// The reference as written.
    pub(super) image: String,
}

/// A list of a pod that names images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Containers,
    InitContainers,
    Volumes,
}

/// Returns all containers of an object, init containers and image volumes among them.
pub(super) fn containers(annotated: &Annotated<'_>) -> Vec<Container> {
    let places = places(annotated.object, pod_spec(annotated.kind)).into_iter();
    let list = |place: &Place| match place.at.as_str() {
        at if at.contains("/initContainers/") => List::InitContainers,
        at if at.contains("/volumes/") => List::Volumes,
        _ => List::Containers,
    };
    places
        .map(|place| Container {
            list: list(&place),
            name: place.name,
            image: place.image,
        })
        .collect()
}

/// The image of a container: its repository with the registry, and the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) repository: String,
    /// The tag that the container names. `None`: it names a digest alone.
    pub(super) tag: Option<String>,
}

/// Reads the image of a container. An error names the cure.
pub(super) fn running(container: &Container) -> Result<Running, String> {
    let Container { name, image, .. } = container;
    let read = Reference::parse(image).ok_or_else(|| {
        format!("container {name} runs {image:?}, which is no image that can be followed; write its registry, repository and tag")
    })?;
    let tag = match (&read.tag, &read.digest) {
        (Some(tag), _) => Some(tag.clone()),
        (None, None) => Some("latest".to_owned()),
        (None, Some(_)) => None,
    };
    Ok(Running {
        repository: format!("{}/{}", read.registry, read.repository),
        tag,
    })
}

impl Running {
    /// Returns the tag that the container names, or named before a rollout gave it a digest.
    pub(super) fn tag_now_or_before(
        &self,
        name: &str,
        earlier: &Map<String, Value>,
    ) -> Option<String> {
        self.tag.clone().or_else(|| {
            let (repository, tag) = followed(earlier.get(name)?)?;
            (repository == self.repository).then_some(tag)
        })
    }

    /// Returns the image with the tag that the container names, or named before.
    pub(super) fn followed(
        &self,
        container: &Container,
        annotated: &Annotated<'_>,
    ) -> Result<Value, String> {
        let Container { name, image, .. } = container;
        let tag = self.tag_now_or_before(name, annotated.earlier);
        let tag = tag.ok_or_else(|| {
            format!("container {name} runs {image}, which names no tag to follow; name one by the annotation tagtrail.dev/follow.{name}, such as {}:latest", self.repository)
        })?;
        Ok(json!(format!("{}:{tag}", self.repository)))
    }
}

/// Returns repository and tag of an image that was followed before: of a text its tag, of a policy
/// the version that it began with.
fn followed(image: &Value) -> Option<(String, String)> {
    if let Some(text) = image.as_str() {
        let (repository, tag) = text.rsplit_once(':')?;
        return (!tag.contains('/')).then(|| (repository.to_owned(), tag.to_owned()));
    }
    let repository = image.get("repository")?.as_str()?.to_owned();
    let tag = image.get("tag").or_else(|| image.pointer("/semver/from"));
    Some((repository, tag?.as_str()?.to_owned()))
}
