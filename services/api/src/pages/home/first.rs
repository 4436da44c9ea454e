//! The page before the first event: the next two steps.

use maud::{Markup, html};
use tagtrail_config::File;

use crate::pages::part::digest::copy;

pub(super) fn draw(file: &File) -> Markup {
    html! {
        h1 { "No events yet" }
        p class="s" { "Tagtrail is ready. Reload this page after the first push." }
        div class="g11" {
            section class="card" {
                h2 { "1. Point a registry at it" }
                @if file.source.is_empty() {
                    p { "The configuration of this api has no " code { "[[source]]" } ". " code { "tagtrail init harbor=registry.example.com" } " writes an entry with a secret, and names the settings for the registry." }
                } @else {
                    p { "A registry sends its events to the gateway, at the path of its source:" }
                    ul { @for source in &file.source {
                        li { b { (source.name.get_ref()) } ", kind " (source.kind.get_ref()) ": " code { "POST /hooks/" (source.name.get_ref()) } }
                    } }
                }
                p { "The settings to make in the registry, word for word, and whether each part answers:" }
                p { code { "tagtrail doctor" } (copy("tagtrail doctor", "Copy the command")) }
            }
            section class="card" {
                h2 { "2. Push something" }
                pre { "docker push registry.example.com/shop/web:latest" }
                p class="s" { "The push appears here as the first revision of its tag. If it does not, " code { "tagtrail doctor" } " names the part that stands in its way." }
                p class="more" { a href="/sources" { "Sources and refused bodies" } }
            }
        }
    }
}
