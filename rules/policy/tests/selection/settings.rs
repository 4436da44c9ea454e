//! The settings of a policy: accepted ones, refused ones with their cause, and warnings.

use std::time::Duration;

use serde::Deserialize;
use tagtrail_policy::selection::{ImagePolicy, OneOrMany, Reason, Times, WatchedImage};
use time::OffsetDateTime;

const TIMES: Times = Times {
    pushed: OffsetDateTime::UNIX_EPOCH,
    created: None,
};

pub(super) fn read(settings: &str) -> Result<ImagePolicy, String> {
    let settings = format!("repository = \"registry.example.com/shop/api\"\n{settings}");
    toml::from_str(&settings).map_err(|error| error.message().to_owned())
}

fn reason(settings: &str, tag: &str) -> Option<&'static str> {
    let policy = read(settings).unwrap().compile().unwrap();
    let key = policy.rule().key(&tag.parse().unwrap(), TIMES);
    key.err().map(|reason| reason.code())
}

#[test]
fn an_image_is_a_reference_or_a_policy() {
    #[derive(Deserialize)]
    struct Images {
        web: WatchedImage,
        api: WatchedImage,
    }
    let images: Images = toml::from_str(
        r#"web = "registry.example.com/shop/web:latest"
        api = { repository = "registry.example.com/shop/api", semver = "^1.4", platforms = ["linux/amd64"], min_age = "3d", labels = { channel = "stable", tier = ["a", "b"] } }"#,
    )
    .unwrap();
    assert_eq!(
        images.web,
        WatchedImage::Reference("registry.example.com/shop/web:latest".to_owned())
    );
    let WatchedImage::Policy(policy) = images.api else {
        panic!("{:?}", images.api);
    };
    assert_eq!(policy.min_age, Some(Duration::from_secs(3 * 24 * 3600)));
    assert_eq!(
        policy.labels["channel"],
        OneOrMany::One("stable".to_owned())
    );
    let (registry, repository) = policy.place().unwrap();
    assert_eq!(
        format!("{registry} {repository}"),
        "registry.example.com shop/api"
    );
    policy.compile().unwrap();
}

#[test]
fn an_unknown_key_or_word_is_an_error_with_the_known_ones() {
    for (settings, part) in [
        (
            "semvr = \"1\"",
            "unknown field `semvr`, expected one of `repository`, `tag`, `semver`",
        ),
        (
            "semver = { rang = \"1\" }",
            "unknown field `rang`, expected one of `range`",
        ),
        ("semver = 1", "a string or a table"),
        (
            "numeric = \"hihgest\"",
            "unknown variant `hihgest`, expected `highest` or `lowest`",
        ),
        (
            "on_removed = \"fallback\"",
            "expected one of `keep`, `fall-back`, `hold`",
        ),
        (
            "semver = { within = \"mayor\" }",
            "expected one of `major`, `minor`, `patch`, `all`",
        ),
        (
            "semver = { parse = \"strict-w\" }",
            "`strict-v`, `strict`, `three-part`, `loose`",
        ),
        ("platforms = \"linux/amd64\"", "platforms are a list"),
        ("platforms = { all = [] }", "platforms are a list"),
        ("labels = { a = 1 }", "a value is a string"),
        ("min_age = 3", "3 has no unit"),
        ("min_age = \"400d\"", "400d is too long; write at most 365d"),
        (
            "metadata_wait = \"25h\"",
            "25h is too long; write at most 1d",
        ),
    ] {
        let error = read(settings).unwrap_err();
        assert!(error.contains(part), "{settings}: {error}");
    }
}

#[test]
fn every_filter_names_itself() {
    let signature = format!("sha256-{}", "0".repeat(64));
    for (settings, tag, code) in [
        ("tag = \"latest\"", "stable", Some("other_tag")),
        ("tag = \"latest\"", "latest", None),
        ("alphabetical = \"last\"", &*signature, Some("signature")),
        ("newest = \"pushed\"", &*signature, Some("signature")),
        ("alphabetical = \"last\"\nglob = \"v*\"", "w1", Some("glob")),
        (
            "alphabetical = \"last\"\nignore = [\"x\", \"v*\"]",
            "v1",
            Some("ignore"),
        ),
        (
            "alphabetical = \"last\"\nignore_match = [\"v[0-9]\"]",
            "xv1",
            Some("ignore_match"),
        ),
        (
            "alphabetical = \"last\"\nmatch = \"v[0-9]\"",
            "v",
            Some("match"),
        ),
        (
            "alphabetical = \"last\"\nmatch = \"(v)\"\nextract = \"$1\"",
            "w",
            Some("match"),
        ),
        (
            "match = \"(?<n>[0-9]+)\"\norder = [\"n\"]",
            "w",
            Some("match"),
        ),
        (
            "match = \"^(?<n>[0-9.]+)\"\norder = [\"n\"]",
            "1.5",
            Some("order"),
        ),
        (
            "match = \"^a(?<n>[0-9]+)?\"\norder = [\"n\"]",
            "a",
            Some("order"),
        ),
        (
            "match = \"^(?<v>.*)$\"\norder = [\"v:semver\"]",
            "1.5",
            Some("order"),
        ),
        ("semver = \"1\"", "1.5", Some("no_version")),
        ("semver = \"1\"", "2.0.0", Some("range")),
        ("semver = \"1\"", "1.5.0-rc.1", Some("prerelease")),
        ("semver = \"1\"", "2.5.0-rc.1", Some("range")),
        (
            "semver = { within = \"minor\", from = \"1.2.3\" }",
            "1.2.3",
            Some("from"),
        ),
        (
            "semver = { within = \"minor\", from = \"1.2.3\" }",
            "1.2.4",
            None,
        ),
        (
            "semver = { within = \"minor\", from = \"1.2.3\" }",
            "2.0.0",
            Some("within"),
        ),
        (
            "semver = { within = \"minor\", from = \"1.2.3\" }",
            "1.3.0-rc.1",
            Some("prerelease"),
        ),
        (
            "semver = { within = \"all\", from = \"1.2.3\" }",
            "2.0.0-rc.1",
            None,
        ),
        (
            "semver = { suffix = \"same\", from = \"1.2.3-alpine\" }",
            "2.0.0",
            Some("suffix"),
        ),
        (
            "semver = { suffix = \"same\", from = \"1.2.3-alpine\" }",
            "2.0.0-alpine",
            None,
        ),
        (
            "semver = { range = \"*\", suffix = \"same\", from = \"1.2.3-alpine\" }",
            "2.0.0-alpine",
            Some("prerelease"),
        ),
        ("calver = \"YY.0M\"", "26.1", Some("calver")),
        ("numeric = \"lowest\"", "1.", Some("numeric")),
        ("numeric = \"lowest\"", "1.2.3", Some("numeric")),
        ("newest = \"created\"", "a", Some("no_created")),
    ] {
        assert_eq!(reason(settings, tag), code, "{settings}: {tag}");
    }
}

#[test]
fn the_build_data_of_a_chart_is_read_behind_an_underscore() {
    for (parse, tag, taken) in [
        ("strict-v", "1.2.3_build.5", true),
        ("strict-v", "1.2.3-rc.1_build.5", true),
        ("three-part", "1.2.3_build.5", true),
        ("loose", "1.2_build.5", true),
        ("strict", "1.2.3_build.5", false),
        ("strict-v", "1.2.3_build_5", false),
        ("strict-v", "1.2.3_", false),
        ("strict-v", "1.2_build.5", false),
    ] {
        let settings = format!("semver = {{ range = \"*-0\", parse = {parse:?} }}");
        assert_eq!(reason(&settings, tag).is_none(), taken, "{parse} {tag}");
    }
}

#[test]
fn the_times_that_builders_make_up_are_no_time_of_a_build() {
    let policy = read("newest = \"created\"").unwrap().compile().unwrap();
    let usable = |text: &str| {
        let times = Times {
            created: tagtrail_proto::instant::parse(text),
            ..TIMES
        };
        assert!(times.created.is_some(), "{text}");
        policy.rule().key(&"a".parse().unwrap(), times) != Err(Reason::NoCreated)
    };
    for (text, expected) in [
        ("0001-01-01T00:00:00Z", false),
        ("1970-01-01T00:00:00Z", false),
        ("1970-01-01T23:59:59Z", false),
        ("1970-01-02T00:00:00Z", true),
        ("1980-01-01T00:00:00Z", false),
        ("1980-01-01T00:00:01Z", false),
        ("1980-02-01T00:00:00Z", true),
        ("1981-01-01T00:00:00Z", true),
        ("2026-01-01T00:00:00Z", true),
    ] {
        assert_eq!(usable(text), expected, "{text}");
    }
}

#[test]
fn spellings_with_one_meaning_are_one_rule() {
    let canonical = |settings: &str| {
        let policy = read(settings).unwrap().compile().unwrap();
        policy.rule().canonical().to_owned()
    };
    let rule = canonical("semver = \"^1\"");
    assert_eq!(
        canonical("semver = { range = \"^1\" }\nmin_age = \"3d\"\non_moved = \"keep\""),
        rule
    );
    assert_eq!(
        canonical(
            "semver = { range = \"^1\", parse = \"strict-v\" }\nignore = []\non_removed = \"hold\""
        ),
        rule
    );
    for other in [
        "semver = \"^2\"",
        "semver = { range = \"^1\", parse = \"loose\" }",
        "semver = \"^1\"\nignore = [\"a\"]",
        "semver = \"^1\"\nplatforms = [\"linux/amd64\"]",
        "semver = \"^1\"\nplatforms = { any = [\"linux/amd64\"] }",
        "semver = \"^1\"\nlabels = { a = \"b\" }",
        "semver = \"^1\"\nannotations = { a = \"b\" }",
        "semver = \"^1\"\nmatch = \"a\"",
        "semver = \"^1\"\nglob = \"a\"",
        "semver = \"^1\"\nignore_match = [\"a\"]",
        "newest = \"created\"",
    ] {
        assert_ne!(canonical(other), rule, "{other}");
    }
    let one = canonical("tag = \"a\"\nlabels = { a = \"b\" }");
    assert_eq!(canonical("tag = \"a\"\nlabels = { a = [\"b\"] }"), one);
}

#[test]
fn a_reference_to_an_unknown_group_is_warned_of() {
    for (extract, unknown) in [("$1x", "1x"), ("$2", "2"), ("$01", "01"), ("${y}", "y")] {
        let settings = format!("alphabetical = \"last\"\nmatch = \"x(.*)\"\nextract = {extract:?}");
        let warnings = read(&settings)
            .unwrap()
            .compile()
            .unwrap()
            .rule()
            .warnings();
        assert!(
            warnings[0].contains(&format!("{unknown:?}")),
            "{warnings:?}"
        );
    }
    let known = "alphabetical = \"last\"\nmatch = \"x(.*)\"\nextract = \"$0$1$$\"";
    let warnings = read(known).unwrap().compile().unwrap().rule().warnings();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn calendar_versions_ascend_field_by_field() {
    let policy = read("calver = \"YY.0M[.MICRO][-MODIFIER]\"")
        .unwrap()
        .compile()
        .unwrap();
    let key = |tag: &str| policy.rule().key(&tag.parse().unwrap(), TIMES).unwrap();
    let ascending = [
        "9.12",
        "22.04-rc.9",
        "22.04-rc.10",
        "22.04",
        "22.04.0",
        "22.04.9",
        "22.04.10",
    ];
    assert!(ascending.is_sorted_by_key(|tag| key(tag)));
}

#[test]
fn equal_numbers_are_one_value_in_both_orders() {
    for order in ["highest", "lowest"] {
        let policy = read(&format!("numeric = {order:?}"))
            .unwrap()
            .compile()
            .unwrap();
        let key = |tag: &str| policy.rule().key(&tag.parse().unwrap(), TIMES).unwrap();
        assert!(key("1.50") > key("1.5"), "{order}");
        assert!(key("7") > key("007"), "{order}");
        assert!(key("0.0") > key("0"), "{order}");
    }
}
