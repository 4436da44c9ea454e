//! Numbers, and text of strangers.

use std::fmt::Write as _;

use maud::{Markup, html};
use tagtrail_proto::Platform;

/// Most bytes of a text of strangers that are shown at once.
const LONGEST: usize = 4096;

/// Returns a number with commas: 10,431.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns `1 tag`, or `2 tags`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", number(count)),
    }
}

/// Returns a size in the unit that fits: 84.1 MB.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Returns a text of strangers with its control characters, and those that turn the direction of
/// text, written out: nobody can hide or turn text with them. Markup is escaped by maud.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        let turns = matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        match char {
            '\n' | '\t' => shown.push(char),
            _ if turns || char.is_control() => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(char));
            }
            _ => shown.push(char),
        }
    }
    shown
}

/// Returns a platform; its author chose the words.
pub(crate) fn platform_name(platform: &Platform) -> String {
    visible(&platform.to_string())
}

/// Returns a text of strangers, folded after 4 KiB.
pub(crate) fn foreign(text: &str) -> Markup {
    let end = text.floor_char_boundary(LONGEST);
    let (start, rest) = text.split_at(end);
    html! {
        (visible(start))
        @if !rest.is_empty() {
            details { summary { "show all" } (visible(rest)) }
        }
    }
}

/// Returns a text of Tagtrail, in which commands stand between backticks, with the parts of
/// strangers made visible.
pub(crate) fn with_code(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    let whole = parts.len() % 2 == 1;
    html! {
        @for (place, part) in parts.iter().enumerate() {
            @if place % 2 == 1 && whole { code { (visible(part)) } }
            @else {
                // A backtick without a partner stays.
                @if place > 0 && !whole { "`" }
                (visible(part))
            }
        }
    }
}

/// Returns whether a text of strangers may be the address of a link: one of a web page, whole.
pub(crate) fn is_web_address(text: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
        && text.len() <= LONGEST
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns the value of a label as a link if it is the address of a web page, and as text
/// otherwise.
pub(crate) fn link_or_text(text: &str) -> Markup {
    html! {
        @if is_web_address(text) { a href=(text) rel="noreferrer" { (text) } }
        @else { (foreign(text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_sizes_a_unit() {
        for (given, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(given), shown);
        }
        assert_eq!(size(999), "999 B");
        assert_eq!(size(84_100_000), "84.1 MB");
    }

    #[test]
    fn text_of_strangers_hides_nothing() {
        assert_eq!(visible("a\u{202e}b\u{0}c"), "a\\u{202e}b\\u{0}c");
        assert_eq!(foreign("<b>\"&'").into_string(), "&lt;b&gt;&quot;&amp;'");
        let long = foreign(&"é".repeat(4096)).into_string();
        assert!(long.contains("show all") && long.matches('é').count() == 4096);
    }

    #[test]
    fn commands_between_backticks_are_code() {
        let text = |text| with_code(text).into_string();
        assert_eq!(text("run `a <b>` now"), "run <code>a &lt;b&gt;</code> now");
        assert_eq!(text("one ` alone"), "one ` alone");
        assert_eq!(text(""), "");
    }

    #[test]
    fn only_addresses_of_web_pages_are_links() {
        let link = |text| link_or_text(text).into_string().contains("<a ");
        assert!(link("https://github.com/acme/shop") && link("http://git.example.com/x"));
        assert!(!link("javascript:alert(1)") && !link("https://x y") && !link("//example.com"));
    }
}
