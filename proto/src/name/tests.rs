use proptest::prelude::*;

use super::*;

fn registry() -> impl Strategy<Value = String> {
    prop_oneof![
        r"[a-zA-Z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){1,3}(:[1-9][0-9]{0,3})?",
        r"[a-z0-9]{1,10}:[1-9][0-9]{0,3}",
        Just("localhost".to_owned()),
        Just("[::1]:5000".to_owned()),
        Just("[2001:db8::1]".to_owned()),
    ]
}

const REPOSITORY: &str = r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}){0,4}";
const TAG: &str = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,40}";
const DIGEST: &str = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}";

fn round_trip<T: FromStr<Err = NameError> + fmt::Display + PartialEq + fmt::Debug>(
    text: &str,
) -> T {
    let once: T = text.parse().unwrap();
    let printed = once.to_string();
    assert_eq!(printed.parse::<T>().unwrap(), once);
    once
}

proptest! {
    #[test]
    fn a_printed_name_parses_to_the_same_name(registry in registry(), repository in REPOSITORY, tag in TAG, digest in DIGEST) {
        prop_assert_eq!(round_trip::<Registry>(&registry).to_string(), registry.to_lowercase());
        prop_assert_eq!(round_trip::<Repository>(&repository).to_string(), repository.clone());
        prop_assert_eq!(round_trip::<Tag>(&tag).to_string(), tag.clone());
        prop_assert_eq!(round_trip::<Digest>(&digest).to_string(), digest.clone());
        let image = round_trip::<Image>(&format!("{registry}/{repository}:{tag}"));
        let pinned = image.pinned(&digest.parse().unwrap());
        prop_assert_eq!(round_trip::<Pinned>(&pinned.to_string()), pinned);
    }

    #[test]
    fn hostile_text_neither_panics_nor_passes(text in any::<String>()) {
        check_hostile(&text);
    }

    #[test]
    fn nearly_valid_text_is_checked_to_the_last_byte(text in r"[a-zA-Z0-9._/:@\-\[\] %*>\x00\n]{0,40}") {
        check_hostile(&text);
    }

    #[test]
    fn cleaned_text_is_within_bounds_and_free_of_control_characters(text in any::<String>(), max in 0..50_usize) {
        let clean = clean_text(&text, max);
        prop_assert!(clean.len() <= max);
        prop_assert!(!clean.chars().any(char::is_control));
    }
}

#[test]
fn text_that_deceives_a_reader_is_cleaned() {
    // "Trojan source": shown as another text, or hidden.
    let text =
        "bob\u{202e}nimda \u{2066}x\u{2069} \u{200b}\u{feff}a\u{2028}b \u{e0041}\u{9b}31m\u{7f}";
    assert_eq!(
        clean_text(text, 100),
        "bob\u{fffd}nimda \u{fffd}x\u{fffd} \u{fffd}\u{fffd}a\u{fffd}b \u{fffd}\u{fffd}31m\u{fffd}"
    );
    // Persian with a joiner, Hebrew, a family, an accent as a character of its own.
    let text = "می\u{200c}خواهم שלום 👨\u{200d}👩 e\u{301}";
    assert_eq!(clean_text(text, 100), text);
}

/// Compares the parsers with the regular expressions of the specifications.
fn check_hostile(text: &str) {
    let matches = |pattern: &str| regex::Regex::new(pattern).unwrap().is_match(text);
    let component = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*";
    assert_eq!(
        text.parse::<Repository>().is_ok(),
        text.len() <= 255 && matches(&format!(r"\A{component}(?:/{component})*\z"))
    );
    assert_eq!(
        text.parse::<Tag>().is_ok(),
        matches(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\z")
    );
    assert_eq!(
        text.parse::<Digest>().is_ok(),
        matches(r"\A(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\z")
    );
    assert_eq!(
        text.parse::<Name>().is_ok(),
        matches(r"\A[a-z0-9][a-z0-9-]{0,62}\z")
    );
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    if text.parse::<Registry>().is_ok() {
        assert!(
            matches(&format!(
                r"\A(?:{label}(?:\.{label})*|\[[a-fA-F0-9:.]+\])(?::[0-9]+)?\z"
            )),
            "{text:?}"
        );
    }
    let _ = (text.parse::<Image>(), text.parse::<Pinned>());
}

#[test]
fn harmful_names_are_refused() {
    for hostile in [
        "",
        "..",
        "a/../b",
        "/a",
        "a/",
        "a//b",
        "A",
        "a%2e",
        "a b",
        "a\0b",
        "a\nb",
        "ä",
        "a_",
        "a___b",
        "a.-b",
        &"a".repeat(256),
    ] {
        assert!(hostile.parse::<Repository>().is_err(), "{hostile:?}");
    }
    for hostile in [
        "",
        ".",
        "-a",
        "a b",
        "a:b",
        "a/b",
        "ä",
        "a\0",
        &"a".repeat(129),
    ] {
        assert!(hostile.parse::<Tag>().is_err(), "{hostile:?}");
    }
    for hostile in [
        "",
        "registry",
        "-a.b",
        "a..b",
        "a.b:",
        "a.b:99999",
        "a.b:-1",
        "http://a.b",
        "u@a.b",
        "[::1",
        "[::1%eth0]",
        "[a.b]:1",
        "a.b/c",
        "[::1]x",
    ] {
        assert!(hostile.parse::<Registry>().is_err(), "{hostile:?}");
    }
    for hostile in [
        "foo/bar:latest",
        "registry.example.com",
        "registry.example.com/foo@sha256:00",
        "registry.example.com/foo:bar:baz",
    ] {
        assert!(hostile.parse::<Image>().is_err(), "{hostile:?}");
    }
}

#[test]
fn a_reference_without_a_tag_is_latest() {
    assert_eq!(
        "registry.example.com/foo/bar"
            .parse::<Image>()
            .unwrap()
            .to_string(),
        "registry.example.com/foo/bar:latest"
    );
}

#[test]
fn an_error_names_the_text_and_the_rule() {
    insta::assert_snapshot!("Foo/bar".parse::<Repository>().unwrap_err(), @r#"the repository "Foo/bar" is not valid: it must be lower-case letters and digits, with single `.`, `_`, `__` or hyphens inside, in parts joined by `/`"#);
    insta::assert_snapshot!("sha256:12".parse::<Digest>().unwrap_err(), @r#"the digest "sha256:12" is not valid: it must be sha256: and 64, or sha512: and 128 lower-case hex digits"#);
}

#[test]
fn tags_that_are_named_after_a_digest_are_no_images() {
    let hex = "0123456789abcdef".repeat(4);
    for signature in [
        format!("sha256-{hex}"),
        format!("sha256-{hex}.sig"),
        format!("sha256-{hex}.att"),
        format!("sha256-{hex}.sbom"),
        format!("sha512-{hex}"),
    ] {
        assert!(
            signature.parse::<Tag>().unwrap().is_signature(),
            "{signature}"
        );
    }
    for image in [
        "latest".to_owned(),
        format!("sha256-{}", &hex[1..]),
        format!("sha256-{hex}0"),
        format!("sha256-{hex}."),
        format!("sha256-{}", hex.to_uppercase()),
        format!("sha256-{hex}-amd64"),
        format!("v-sha256-{hex}"),
        format!("sha384-{hex}"),
    ] {
        assert!(!image.parse::<Tag>().unwrap().is_signature(), "{image}");
    }
}

#[test]
fn a_url_in_place_of_a_registry_is_refused_with_names_that_are_taken() {
    for wrong in [
        "https://registry.example.com",
        "http://localhost:5000/",
        "HTTPS://registry.example.com:443",
        "registry.example.com/shop",
    ] {
        let error = wrong.parse::<Registry>().unwrap_err().to_string();
        let (_, examples) = error.split_once("such as ").unwrap();
        for example in examples.split(" or ") {
            assert!(example.parse::<Registry>().is_ok(), "{error}");
        }
    }
    let image = "https://registry.example.com/shop/web".parse::<Image>();
    let error = image.unwrap_err().to_string();
    assert!(error.contains("without https://"), "{error}");
}
