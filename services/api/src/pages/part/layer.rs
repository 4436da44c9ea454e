//! Layers and settings of images.

use maud::{Markup, html};
use tagtrail_proto::{Digest, Layer};

use crate::pages::part::digest::{digits, swatch};
use crate::pages::part::text::foreign;

/// Returns a layer's digest. It has no page: tags and triggers have digests of manifests.
pub(crate) fn name(digest: &Digest) -> Markup {
    html! { span class="dg" { (swatch(digest)) code { (digits(digest, 8)) } } }
}

/// Returns the command that created a layer, without the words that builders put around it.
pub(crate) fn command(layer: &Layer) -> Markup {
    let Some(text) = &layer.created_by else {
        return html! { span class="none" { "not stated" } };
    };
    let text = text.strip_prefix("/bin/sh -c ").unwrap_or(text);
    let text = text.strip_prefix("#(nop) ").unwrap_or(text);
    let text = text.strip_suffix("# buildkit").unwrap_or(text);
    html! { code { (foreign(text.trim())) } }
}

/// Returns a list of texts without spaces, such as ports.
pub(crate) fn code_list(items: &[String]) -> Markup {
    html! { @for (place, item) in items.iter().enumerate() { @if place > 0 { ", " } code { (foreign(item)) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_without_the_words_of_its_builder() {
        let shown = |text: &str| {
            let layer = Layer {
                digest: Digest::sha256_of(b"layer"),
                size: 1,
                created_by: Some(text.to_owned()),
            };
            command(&layer).into_string()
        };
        for (text, expected) in [
            ("COPY /app /app # buildkit", "COPY /app /app"),
            ("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /"),
            ("/bin/sh -c make", "make"),
            ("RUN /bin/sh -c make # buildkit", "RUN /bin/sh -c make"),
            ("<b>", "&lt;b&gt;"),
        ] {
            assert_eq!(shown(text), format!("<code>{expected}</code>"));
        }
    }
}
