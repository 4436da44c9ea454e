//! The layers and the settings of an image.

use maud::{Markup, html};
use tagtrail_proto::{ImageContents, ImageSettings};

use crate::pages::part::layer::{code_list, command, name};
use crate::pages::part::text::{counted, foreign, number, size, visible};

/// Most layers that are listed.
const LAYERS: usize = 50;

/// Returns the cards of layers and settings. `of_index`: the image is one of an index.
pub(super) fn image(image: &ImageContents, of_index: bool) -> Markup {
    html! {
        div class="g11" {
            (layers(image))
            section class="card" {
                h2 {
                    "Settings"
                    @if of_index { span class="push q" { "of the image for " (platform(image)) } }
                }
                @match &image.settings {
                    Some(of) => { (settings(of)) },
                    None => p class="q" { "Its config was not read." },
                }
            }
        }
    }
}

fn platform(image: &ImageContents) -> String {
    let platform = image.platform.as_deref();
    platform.map_or_else(|| "an unknown platform".to_owned(), visible)
}

fn layers(image: &ImageContents) -> Markup {
    let unlisted = image.layers.len().saturating_sub(LAYERS) as u64 + image.layers_left_out;
    html! {
        section class="card" {
            h2 { "Layers" span class="push q" { (platform(image)) ", " (size(image.size)) } }
            @if image.layers.is_empty() { p class="q" { "It has no layers." } }
            @else { table class="st" {
                thead { tr { th scope="col" { "Layer" } th scope="col" { "Created by" } th scope="col" class="r" { "Size" } } }
                tbody {
                    @for layer in image.layers.iter().take(LAYERS) {
                        tr {
                            th scope="row" { (name(&layer.digest)) }
                            td { (command(layer)) }
                            td class="r n" { (size(layer.size)) }
                        }
                    }
                }
            } }
            @if unlisted > 0 { p class="q" { (counted(unlisted, "layer is", "layers are")) " not listed." } }
        }
    }
}

fn settings(of: &ImageSettings) -> Markup {
    let left_out = &of.left_out;
    let list = |items: Markup, is_empty: bool, left_out: u64| {
        html! {
            @if is_empty && left_out == 0 { span class="none" { "none" } } @else { (items) }
            @if left_out > 0 { " and " (number(left_out)) " more" }
        }
    };
    // The form of Dockerfiles tells spaces within an argument from those between arguments.
    let arguments = |items: &[String], left_out| {
        let text = serde_json::to_string(items).unwrap_or_default();
        list(
            html! { code { (foreign(&text)) } },
            items.is_empty(),
            left_out,
        )
    };
    html! {
        dl class="kv" {
            dt { "User" }
            dd { @match &of.user { Some(user) => code { (foreign(user)) }, None => span class="none" { "not stated" } } }
            dt { "Ports" }
            dd { (list(code_list(&of.ports), of.ports.is_empty(), left_out.ports)) }
            dt { "Entrypoint" }
            dd { (arguments(&of.entrypoint, left_out.entrypoint)) }
            dt { "Command" }
            dd { (arguments(&of.command, left_out.command)) }
        }
        @if !of.environment.is_empty() || left_out.environment > 0 {
            details {
                summary class="s" { (counted(of.environment.len() as u64 + left_out.environment, "variable", "variables")) " of the environment" }
                dl class="kv" { @for (name, value) in &of.environment { dt class="n" { (foreign(name)) } dd { code { (foreign(value)) } } } }
                @if left_out.environment > 0 { p class="q" { (number(left_out.environment)) " more are not kept." } }
            }
        }
    }
}
