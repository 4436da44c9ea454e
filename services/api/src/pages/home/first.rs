//! The page before the first event: the next two steps.

use std::net::{Ipv4Addr, SocketAddr};

use maud::{Markup, html};
use tagtrail_config::{File, SourceRegistry};

use crate::pages::part::digest::copy;

/// `gateway`: the address of the gateway, if it is known.
pub(super) fn draw(file: &File, gateway: Option<SocketAddr>) -> Markup {
    let gateway = gateway.map(address);
    let doctor = match &gateway {
        Some(gateway) => format!("tagtrail doctor --setup --gateway {gateway}"),
        None => "tagtrail doctor --setup".to_owned(),
    };
    let registry = file.source.iter().find_map(|one| match &one.registry {
        Some(SourceRegistry::Named(registry)) => Some(registry.to_string()),
        _ => None,
    });
    let registry = registry.unwrap_or_else(|| "registry.example.com".to_owned());
    html! {
        h1 { "No events yet" }
        p class="s" { "Tagtrail is ready. Reload this page after the first push." }
        div class="g11" {
            section class="card" {
                h2 { "1. Point a registry at the gateway" }
                @if file.source.is_empty() {
                    p { "The configuration of this api has no " code { "[[source]]" } ", so the gateway refuses every event. Write an entry with a secret for your registry, here Harbor, and start Tagtrail with the file:" }
                    p { code { "tagtrail init harbor=registry.example.com" } (copy("tagtrail init harbor=registry.example.com", "Copy the command")) }
                } @else {
                    p { "A registry sends its events to the gateway, at the path of its source:" }
                    ul { @for source in &file.source {
                        li { b { (source.name.get_ref()) } ", kind " (source.kind.get_ref()) ": " code { "POST " @if let Some(gateway) = &gateway { (gateway) } "/hooks/" (source.name.get_ref()) } }
                    } }
                }
                p { "Then print the settings to make in the registry, word for word, and check each part:" }
                p { code { (doctor) } (copy(&doctor, "Copy the command")) }
                @if let Some(gateway) = &gateway { p class="s" { "The gateway listens on " code { (gateway) } "; a registry on another machine needs an address that it can reach." } }
            }
            section class="card" {
                h2 { "2. Push something" }
                pre { "docker push " (registry) "/shop/web:latest" }
                p class="s" { "The push appears here as the first revision of its tag. If it does not, " code { "tagtrail doctor" } " names the part that stands in its way." }
                p class="more" { a href="/sources" { "Sources and refused bodies" } }
            }
        }
    }
}

/// Returns the address at which this machine reaches the gateway.
fn address(gateway: SocketAddr) -> String {
    match gateway.ip().is_unspecified() {
        true => format!("http://{}:{}", Ipv4Addr::LOCALHOST, gateway.port()),
        false => format!("http://{gateway}"),
    }
}
