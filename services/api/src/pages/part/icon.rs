//! Icons, drawn once at the end of a page and referred to where they are used.

use maud::{Markup, PreEscaped, html};

/// The icons: name, and path in a square of 16.
const ICONS: &[(&str, &str)] = &[
    (
        "box",
        "M2.5 5L8 2l5.5 3v6L8 14l-5.5-3zM2.5 5L8 8l5.5-3M8 8v6",
    ),
    ("copy", "M6 2h7v9H6zM3 5v9h7"),
    ("created", "M8 3v10M3 8h10"),
    ("deleted", "M4 4l8 8M12 4l-8 8"),
    ("ext", "M7 3H3v10h10V9M9.5 3H13v3.5M13 3L7.5 8.5"),
    (
        "fail",
        "M5.2 2h5.6L14 5.2v5.6L10.8 14H5.2L2 10.8V5.2zM6 6l4 4M10 6l-4 4",
    ),
    ("hold", "M4 7.5h8V14H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5"),
    ("late", "M8 2a6 6 0 1 1-.01 0M8 4.8V8l2.4 1.5"),
    ("moved", "M2 8h11M9 4l4 4-4 4"),
    ("ok", "M3 8.6l3.4 3.4L13 4.6"),
    ("pause", "M5.5 3.5v9M10.5 3.5v9"),
    ("play", "M5 3l8 5-8 5z"),
    ("quiet", "M3 8h10"),
    ("recreated", "M8 2a6 6 0 1 0 6 6M8 5v6M5 8h6"),
    ("reverted", "M3.2 6A5.2 5.2 0 1 1 3 9.6M3 2.6V6h3.4"),
    ("run", "M8 2a6 6 0 1 1-6 6"),
    ("search", "M7 2.5a4.5 4.5 0 1 1-.01 0M10.4 10.4L14 14"),
    ("sup", "M3 4l4 4-4 4M9 4l4 4-4 4"),
    ("theme", "M8 2a6 6 0 1 1-.01 0M8 2v12M8 5h4M8 8h5M8 11h4"),
    (
        "user",
        "M8 2.5a2.6 2.6 0 1 1-.01 0M3 14c.6-3 2.4-4.6 5-4.6s4.4 1.6 5 4.6",
    ),
    ("warn", "M8 2.2l6.3 11.3H1.7zM8 6.5v3.2M8 11.6v.1"),
];
/// The marks of digests, by number.
const MARKS: [&str; 8] = [
    "M4 8h8",
    "M8 4v8",
    "M4.5 11.5l7-7",
    "M4.5 4.5l7 7",
    "M4.5 4.5l7 7M11.5 4.5l-7 7",
    "M8 4.6a3.4 3.4 0 1 1-.01 0",
    "M4 10.5l4-5 4 5",
    "M5 5h6v6H5z",
];

/// Returns an icon beside a word that says the same: nobody reads it aloud.
pub(crate) fn icon(name: &str) -> Markup {
    html! { svg class="i" aria-hidden="true" { use href={ "#i-" (name) } {} } }
}

/// Returns an icon that stands for a word.
pub(crate) fn icon_for(name: &str, word: &str) -> Markup {
    html! { svg class="i" role="img" aria-label=(word) { use href={ "#i-" (name) } {} } }
}

/// Returns the drawings of the icons and marks to which a page refers.
pub(crate) fn drawings(page: &str) -> Markup {
    let symbol = |id: String, path: &str| {
        let used = page.contains(&format!("\"#{id}\""));
        html! {
            @if used {
                (PreEscaped(format!("<symbol id=\"{id}\" viewBox=\"0 0 16 16\"><path d=\"{path}\"/></symbol>")))
            }
        }
    };
    html! {
        svg class="defs" aria-hidden="true" {
            @for (number, path) in MARKS.iter().enumerate() { (symbol(format!("g{number}"), path)) }
            @for (name, path) in ICONS { (symbol(format!("i-{name}"), path)) }
        }
    }
}
