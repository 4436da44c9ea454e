//! The layers of two images: changed ones first, shared ones folded.

use maud::{Markup, html};
use tagtrail_proto::Layer;

use crate::operations::compare::{LayerComparison, LayerSet};
use crate::pages::part::icon::icon_for;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::layer::{command, name};
use crate::pages::part::text::{counted, size, visible};

/// Most layers that are listed, of those that differ and of those that are shared.
const LAYERS: usize = 50;

/// A layer of the image before, of the image after, or one that took the place of another.
type Row<'a> = (Option<&'a Layer>, Option<&'a Layer>);

/// Returns the layers that differ. A layer takes the place of the one that the same command
/// created.
fn rows(compared: &LayerComparison) -> Vec<Row<'_>> {
    let mut gone: Vec<&Layer> = compared.only_a.layers.iter().collect();
    let mut rows = Vec::new();
    for new in &compared.only_b.layers {
        let same = |old: &&Layer| old.created_by.is_some() && old.created_by == new.created_by;
        let old = gone.iter().position(same).map(|place| gone.remove(place));
        rows.push((old, Some(new)));
    }
    rows.extend(gone.into_iter().map(|old| (Some(old), None)));
    rows
}

/// Returns the card of layers. `of`: the platform of the images.
pub(super) fn layers(compared: &LayerComparison, of: Option<&str>) -> Markup {
    let rows = rows(compared);
    let LayerComparison {
        shared,
        only_a,
        only_b,
    } = compared;
    let sum = |set: &LayerSet, word: &str| {
        let layers = counted(set.layers.len() as u64, "layer", "layers");
        html! { tr { th scope="row" { (word) } td { (layers) } td class="r n" { (size(set.size)) } td {} } }
    };
    html! {
        section class="card" {
            h2 { "Layers" span class="push q" { @if let Some(of) = of { (visible(of)) "; " } "shared layers are pulled once" } }
            table class="st" {
                thead { tr {
                    th scope="col" { "Layer" }
                    th scope="col" { "Created by" }
                    th scope="col" class="r" { "Size" }
                    td class="w8" {}
                } }
                tbody {
                    @for row in rows.iter().take(LAYERS) { (differs(row)) }
                    @if rows.len() > LAYERS { tr { td colspan="4" class="q" { (counted((rows.len() - LAYERS) as u64, "more layer differs", "more layers differ")) } } }
                    (sum(only_a, "Only before"))
                    (sum(only_b, "Only after"))
                    (sum(shared, "In both"))
                }
            }
            @if !shared.layers.is_empty() {
                details {
                    summary class="s" { (counted(shared.layers.len() as u64, "layer is", "layers are")) " the same" }
                    dl class="kv" { @for layer in shared.layers.iter().take(LAYERS) {
                        dt { (name(&layer.digest)) " " span class="n" { (size(layer.size)) } }
                        dd { (command(layer)) }
                    } }
                }
            }
        }
    }
}

fn differs((old, new): &Row<'_>) -> Markup {
    let badge = match (old, new) {
        (Some(_), Some(_)) => badge(Tone::Marked, "moved", "changed"),
        (None, _) => badge(Tone::Good, "created", "added"),
        (_, None) => badge(Tone::Bad, "deleted", "gone"),
    };
    let shown = new.or(*old);
    html! {
        tr {
            td {
                @if let Some(old) = old { (name(&old.digest)) }
                @if old.is_some() && new.is_some() { " " (icon_for("moved", "became")) " " }
                @if let Some(new) = new { (name(&new.digest)) }
            }
            @if let Some(layer) = shown { td { (command(layer)) } td class="r n" { (size(layer.size)) } }
            td { (badge) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tagtrail_proto::Digest;

    #[test]
    fn a_layer_takes_the_place_of_the_one_of_the_same_command() {
        let layer = |content: &str, command: Option<&str>| Layer {
            digest: Digest::sha256_of(content.as_bytes()),
            size: 1,
            created_by: command.map(str::to_owned),
        };
        let set = |layers: &[Layer]| LayerSet {
            size: 0,
            layers: layers.to_vec(),
        };
        let [base, app, plain] = [("a", Some("FROM x")), ("b", Some("COPY app")), ("c", None)]
            .map(|(content, command)| layer(content, command));
        let [new_app, new_plain] = [("d", Some("COPY app")), ("e", None)]
            .map(|(content, command)| layer(content, command));
        let compared = LayerComparison {
            shared: set(&[]),
            only_a: set(&[base.clone(), app.clone(), plain.clone()]),
            only_b: set(&[new_app.clone(), new_plain.clone()]),
        };
        let expected = [
            (Some(&app), Some(&new_app)),
            (None, Some(&new_plain)),
            (Some(&base), None),
            (Some(&plain), None),
        ];
        assert_eq!(rows(&compared), expected);
    }
}
