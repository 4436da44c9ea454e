//! Badges: each is a state or a kind, never both, with an icon and a word beside the colour.

use maud::{Markup, html};
use tagtrail_proto::Kind;

use crate::pages::part::icon::icon;

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Marked,
}

impl Tone {
    /// The class in the style sheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Good => "ok",
            Tone::Warning => "warn",
            Tone::Bad => "bad",
            Tone::Marked => "acc",
        }
    }
}

/// Returns a badge with an icon.
pub(crate) fn badge(tone: Tone, icon_name: &str, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (icon(icon_name)) (word) } }
}

/// Returns a badge of a word alone.
pub(crate) fn word(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (word) } }
}

/// Returns a coloured icon with a text, in a line of text.
pub(crate) fn state(tone: Tone, icon_name: &str, text: &str) -> Markup {
    html! { span class=(tone.class()) { (icon(icon_name)) " " (text) } }
}

/// Returns the badge of the kind of a revision.
pub(crate) fn kind(kind: Kind) -> Markup {
    let (tone, icon) = match kind {
        Kind::Created => (Tone::Plain, "created"),
        Kind::Moved => (Tone::Plain, "moved"),
        Kind::Reverted => (Tone::Warning, "reverted"),
        Kind::Deleted => (Tone::Bad, "deleted"),
        Kind::Recreated => (Tone::Plain, "recreated"),
    };
    badge(tone, icon, kind.as_str())
}
