//! Digests: each has a hue and a mark made from its own bytes, and always its first digits beside
//! them. The picture tells digests apart; only the text says that two are the same.

use maud::{Markup, html};
use tagtrail_proto::Digest;

use crate::pages::part::icon::icon;

/// Returns the hexadecimal digits of a digest.
fn hex(digest: &Digest) -> String {
    let text = digest.to_string();
    match text.split_once(':') {
        Some((_, hex)) => hex.to_owned(),
        None => text,
    }
}

/// Returns the first eight digits.
pub(crate) fn short(digest: &Digest) -> String {
    digits(digest, 8)
}

/// Returns the first digits, as many as asked for.
pub(crate) fn digits(digest: &Digest, count: usize) -> String {
    hex(digest).chars().take(count).collect()
}

/// Returns the classes of the colour: one of twelve hues, and of two tones.
pub(crate) fn hue(digest: &Digest) -> String {
    let [first, second, _] = picture(digest);
    let tone = match second & 1 {
        1 => " v",
        _ => "",
    };
    format!("d{}{tone}", first % 12)
}

/// The first three bytes of the hash.
fn picture(digest: &Digest) -> [u8; 3] {
    let hex = hex(digest);
    let byte = |at: usize| {
        let pair = hex.get(2 * at..2 * at + 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or_default()
    };
    [byte(0), byte(1), byte(2)]
}

/// Returns the coloured square with the mark.
pub(crate) fn swatch(digest: &Digest) -> Markup {
    swatch_of(digest, "")
}

/// As [`swatch`], large, for the head of a page.
pub(crate) fn big_swatch(digest: &Digest) -> Markup {
    swatch_of(digest, " big")
}

fn swatch_of(digest: &Digest, more: &str) -> Markup {
    let [.., third] = picture(digest);
    html! {
        svg class={ "sw " (hue(digest)) (more) } viewBox="0 0 16 16" aria-hidden="true" {
            rect width="16" height="16" rx="4" {}
            use href={ "#g" (third % 8) } {}
        }
    }
}

/// Returns the address of the page of a digest.
pub(crate) fn address(digest: &Digest) -> String {
    format!("/d/{digest}")
}

/// Returns a link to a digest, with its first eight digits.
pub(crate) fn link(digest: &Digest) -> Markup {
    link_with(digest, 8)
}

/// As [`link`], with this many digits: twelve where two digests are compared.
pub(crate) fn link_with(digest: &Digest, count: usize) -> Markup {
    html! { a class="dg" href=(address(digest)) { (swatch(digest)) code { (digits(digest, count)) } } }
}

/// Returns a link to a digest, or the word for none.
pub(crate) fn link_or(digest: Option<&Digest>, none: &str) -> Markup {
    html! {
        @match digest {
            Some(digest) => { (link(digest)) },
            None => { span class="none" { (none) } },
        }
    }
}

/// Returns the change from one digest to another. `None`: the tag had no digest.
pub(crate) fn change(from: Option<&Digest>, to: Option<&Digest>) -> Markup {
    html! {
        @if let Some(from) = from { (link(from)) }
        @if from.is_some() && to.is_some() { " " (super::icon::icon_for("moved", "to")) " " }
        @if let Some(to) = to { (link(to)) }
    }
}

/// Returns a button that copies a text, such as a pinned reference.
pub(crate) fn copy(text: &str, label: &str) -> Markup {
    html! {
        button class="ghost" type="button" data-copy=(text) aria-label=(label) { (icon("copy")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_of_a_digest_is_that_of_the_script() {
        let digest: Digest =
            "sha256:7fbebf62335085373d1fdc4fddb2405d376bf0660b71f0e7090f4d2da321ab18"
                .parse()
                .unwrap();
        // The mock-ups show this digest as hue 7, first tone, mark 7.
        assert_eq!(hue(&digest), "d7");
        assert!(swatch(&digest).into_string().contains("\"#g7\""));
        assert_eq!(short(&digest), "7fbebf62");
    }
}
