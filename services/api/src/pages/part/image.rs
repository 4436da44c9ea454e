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

/// Returns the way to a repository or folder, each step with its address: the registry, and the
/// parts of the name. A slash at the end of an address means the folder.
pub(crate) fn way(registry: &str, path: &str) -> Vec<(String, Option<String>)> {
    let mut at = format!("/i/{registry}");
    let mut steps = vec![(registry.to_owned(), Some(at.clone()))];
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        at = format!("{at}/{part}");
        let end = if parts.peek().is_some() { "/" } else { "" };
        steps.push((part.to_owned(), Some(format!("{at}{end}"))));
    }
    steps
}

/// Returns a link to a tag, with the whole name of the image.
pub(crate) fn link(image: &Image) -> Markup {
    html! { a class="im" href=(address(image)) { (image) } }
}

/// Returns a link to a tag, without the registry.
pub(crate) fn short_link(image: &Image) -> Markup {
    html! { a class="im" href=(address(image)) { (image.repository) ":" (image.tag) } }
}

/// Asks whether one of these images or repositories is meant, if there is one.
pub(crate) fn did_you_mean(similar: &[String]) -> Markup {
    html! {
        @if !similar.is_empty() {
            " Did you mean "
            @for (place, name) in similar.iter().enumerate() {
                @if place > 0 { ", " }
                a class="im" href={ "/i/" (name) } { (name) }
            }
            "?"
        }
    }
}
