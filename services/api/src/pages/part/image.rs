//! Images: the addresses of their pages.

use maud::{Markup, html};
use tagtrail_proto::{Image, Registry, Repository};

/// Returns the address of the page of a tag.
pub(crate) fn address(image: &Image) -> String {
    format!("/i/{image}")
}

/// Returns the address of the page of a repository.
pub(crate) fn repository_address(registry: &Registry, repository: &Repository) -> String {
    format!("/i/{registry}/{repository}")
}

/// Returns a link to a tag, with the whole name of the image.
pub(crate) fn link(image: &Image) -> Markup {
    html! { a class="im" href=(address(image)) { (image) } }
}

/// Returns a link to a tag, without the registry.
pub(crate) fn short_link(image: &Image) -> Markup {
    html! { a class="im" href=(address(image)) { (image.repository) ":" (image.tag) } }
}
