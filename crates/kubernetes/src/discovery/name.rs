//! The name of the trigger of an object.

use tagtrail_proto::{Digest, Name};

/// Longest name of a trigger, in bytes.
const LONGEST: usize = 63;
/// Hexadecimal digits at the end of a name that was cut.
const DIGITS: usize = 8;

/// Returns the name of the trigger of an object: `<cluster>-<namespace>-<kind>-<name>`. A name that
/// is too long, has a dot, or is taken, is cut and ends in eight digits of the SHA-256 of the full
/// path. `taken`: whether something else than this object has the name.
#[must_use]
pub fn trigger_name(
    (cluster, namespace): (&str, &str),
    (kind, name): (&str, &str),
    taken: impl Fn(&str) -> bool,
) -> String {
    let plain = format!("{cluster}-{namespace}-{kind}-{name}");
    if plain.parse::<Name>().is_ok() && !taken(&plain) {
        return plain;
    }
    // A slash is in none of the parts, so no two objects have the same path.
    let path = format!("{cluster}/{namespace}/{kind}/{name}");
    let digest = Digest::sha256_of(path.as_bytes()).to_string();
    let digest = digest.trim_start_matches("sha256:");
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let plain = plain.to_ascii_lowercase();
    let mut cut: String = plain
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    cut.truncate(LONGEST - DIGITS - 1);
    format!("{}-{}", cut.trim_end_matches('-'), &digest[..DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_the_path() {
        let name = trigger_name(("prod", "shop"), ("deployment", "web"), |_| false);
        assert_eq!(name, "prod-shop-deployment-web");
    }

    #[test]
    fn other_names_are_cut_and_stay_apart() {
        let of = |name: &str, taken: bool| {
            trigger_name(("prod", "shop"), ("deployment", name), |_| taken)
        };
        let long = "a".repeat(80);
        for name in ["web.v2", "web", "web:x", &long] {
            let cut = of(name, true);
            assert!(cut.parse::<Name>().is_ok(), "{cut}");
            assert!(cut.starts_with("prod-shop-deployment-"), "{cut}");
            assert_eq!(cut, of(name, true));
        }
        assert_ne!(of("web.v2", false), of("web-v2", true));
        assert_ne!(of(&long, false), of(&format!("{long}b"), false));
        // Two objects whose paths differ in the place of a hyphen alone.
        let one = trigger_name(("a", "b-c"), ("deployment", "d"), |_| true);
        let two = trigger_name(("a-b", "c"), ("deployment", "d"), |_| true);
        assert_ne!(one, two);
    }
}
