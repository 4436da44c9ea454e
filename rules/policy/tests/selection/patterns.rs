//! Ranges, expressions, globs, calendar versions and durations alone.

use std::time::Duration;

use tagtrail_policy::selection::{
    Calver, Parse, Pattern, PlatformRule, Prereleases, Range, TagGlob, parse_duration,
};

use crate::platform;

#[test]
fn a_caret_keeps_the_first_number_that_is_not_zero() {
    for (range, version, expected) in [
        ("^1.2.3", "1.9.0", true),
        ("^0.1.2", "0.1.3", true),
        ("^0.1.2", "0.2.0", false),
        ("^0.0.1", "0.0.2", false),
    ] {
        let version = Parse::Strict.version(version).unwrap();
        let range = Range::parse(range).unwrap();
        assert_eq!(
            range.has(&version, Prereleases::Range),
            expected,
            "{version}"
        );
    }
}

#[test]
fn a_platform_has_the_variant_that_the_rule_names() {
    for (rule, image, expected) in [
        ("linux/arm64/v8", "linux/arm64", true),
        ("linux/arm64/v8", "linux/arm64/", true),
        ("linux/arm64/v9", "linux/arm64", false),
        ("linux/arm64", "linux/arm64/v9", true),
        ("linux/arm/v7", "linux/arm", false),
        ("linux/amd64/v2", "linux/amd64", false),
        ("linux/amd64", "windows/amd64", false),
    ] {
        let parsed = PlatformRule::parse(rule).unwrap();
        assert_eq!(parsed.takes(&platform(image)), expected, "{rule} {image}");
        assert_eq!(parsed.to_string(), rule);
    }
}

#[test]
fn ranges_that_surprise_are_warned_of() {
    for (range, part) in [
        ("^*", "takes 0.0.0 alone"),
        ("^x", "takes 0.0.0 alone"),
        ("<=*", "takes 0.0.x alone"),
        ("<*", "takes no version"),
        ("!=*", "all versions but 0.0.0"),
        ("~0.0.0", "takes every version"),
        ("1.*.3", "numbers after a wildcard"),
        ("*.2.3", "numbers after a wildcard"),
        ("0.5||1 - 2", "is read as \">=0.5\""),
        (
            ">=1.0.0-0 <2.0.0",
            "\"<2.0.0\" takes prereleases of 2.0.0; write \"<2.0.0-0\"",
        ),
        (">=1.0.0-0, <2", "\"<2\" takes prereleases of 2.0.0"),
    ] {
        let warnings = Range::parse(range).unwrap().warnings(Prereleases::Range);
        assert!(
            warnings.len() == 1 && warnings[0].contains(part),
            "{range}: {warnings:?}"
        );
    }
    for range in [
        "^1.2",
        ">=1.0.0 <2.0.0",
        ">=1.0.0-0 <2.0.0-0",
        "*",
        "~0.0",
        "=0.0.0",
        "5 || 1.1 - 2",
        "1.x.x",
    ] {
        let warnings = Range::parse(range).unwrap().warnings(Prereleases::Range);
        assert!(warnings.is_empty(), "{range}: {warnings:?}");
    }
    assert_eq!(
        Range::parse("<2").unwrap().warnings(Prereleases::All).len(),
        1
    );
}

#[test]
fn an_expression_has_the_meaning_of_go_or_is_refused() {
    for (pattern, tag, expected) in [
        (r"^\Q1.2\E$", "1.2", true),
        (r"^\Q1.2\E$", "1x2", false),
        (r"^a\Q.", "a.", true),
        (r"^a\Q.", "ab", false),
        (r"^[[:digit:].]+$", "1.2", true),
        (r"^[]a]$", "a", true),
        (r"^[^]a]$", "a", false),
        (r"^[]a]&&b$", "a&&b", true),
        (r"^[\]\[a-c]$", "b", true),
        (r"^[&~]?a$", "a", true),
        (r"^\w+$", "a_b", true),
        (r"^\W$", "_", false),
        (r"(?i)^REL$", "rel", true),
        (r"^a\.b$", "axb", false),
    ] {
        let compiled = Pattern::parse(pattern).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(compiled.is_match(tag), expected, "{pattern} {tag}");
    }
    for pattern in [
        "[a-c&&b]",
        "[a-c--b]",
        "[a-c~~b]",
        "[a[b]]",
        "[[a]",
        "[]&&a]",
        "[^]&&a]",
        r"\<a",
        r"a\>",
        r"\b{start}",
        "a{,2}",
        "a{",
        r"\pL",
        "é",
        r"\Qa\E\1",
        "[",
        "\\",
    ] {
        assert!(Pattern::parse(pattern).is_err(), "{pattern}");
    }
    assert!(Pattern::parse(&"a".repeat(1025)).is_err());
}

#[test]
fn a_glob_is_over_the_whole_tag() {
    for (glob, tag, expected) in [
        ("v1.*", "v1.2", true),
        ("v1.*", "v12", false),
        ("v1.*", "xv1.2", false),
        ("v?", "v", false),
        ("[!ab]*", "c1", true),
        ("[^ab]*", "a1", false),
        ("[0-9a-f]", "b", true),
        ("[a.-]", "-", true),
        ("{dev,main}-{1,2}", "main-2", true),
        ("{dev,main}-{1,2}", "main-3", false),
        ("{a,b{c,d}}", "bd", true),
        ("a.b", "axb", false),
    ] {
        assert_eq!(
            TagGlob::parse(glob).unwrap().matches(tag),
            expected,
            "{glob} {tag}"
        );
    }
    for glob in [
        "", "[", "[]", "[a", "[z-a]", "{a", "a}", "a,b", "a b", r"a\*", "[a--b]", "[a&&b]",
    ] {
        assert!(TagGlob::parse(glob).is_err(), "{glob}");
    }
}

#[test]
fn a_calendar_version_has_parts_that_may_be_missing() {
    for (form, text, expected) in [
        ("YY.0M[.MICRO]", "22.04", true),
        ("YY.0M[.MICRO]", "22.04.1", true),
        ("YY.0M[.MICRO]", "22.04.01", false),
        ("YY.MINOR.MICRO", "106.0.12", true),
        ("0Y.MM", "106.1", true),
        ("YYYY0M0D", "20260131", true),
        ("YYYY0M0D", "20260230", false),
        ("YYYY.WW", "2026.53", true),
        ("YYYY.WW", "2026.0", false),
        ("release-YYYY_MM_DD", "release-2024_2_29", true),
        ("release-YYYY_MM_DD", "release-2026_2_29", false),
        ("YY.0M.0D", "24.02.29", true),
        ("YYYY.MICRO", "2026.123456789012345678901234567890", true),
    ] {
        assert_eq!(
            Calver::parse(form).unwrap().is_match(text),
            expected,
            "{form} {text}"
        );
    }
}

#[test]
fn a_duration_has_a_unit_and_a_bound() {
    let most = Duration::from_secs(3 * 24 * 3600);
    for (text, seconds) in [("0s", 0), ("2m", 120), ("1h", 3600), ("3d", 259_200)] {
        assert_eq!(
            parse_duration(text, most),
            Ok(Duration::from_secs(seconds)),
            "{text}"
        );
    }
    assert_eq!(
        parse_duration("500ms", most),
        Ok(Duration::from_millis(500))
    );
    for text in [
        "",
        "5",
        "d",
        "-1s",
        "1.5d",
        "4d",
        "73h",
        "1 d",
        "18446744073709551616s",
        "18446744073709551615d",
    ] {
        assert!(parse_duration(text, most).is_err(), "{text}");
    }
}
