//! Properties: bytes of keys have the order of the candidates, a selection depends on no order of
//! its input and never goes down, and no text of a person ends in a panic.

use std::cmp::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select as one_of;
use serde_json::{Value, json};
use tagtrail_policy::selection::{
    Calver, Change, ImagePolicy, Last, Outcome, Parse, Pattern, PlatformRule, Policy, Prereleases,
    Range, TagGlob, TagHead, Template, Times, parse_duration,
};
use tagtrail_proto::{Digest, Tag};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

fn policy(mut settings: Value) -> Policy {
    settings["repository"] = json!("registry.example.com/shop/api");
    let policy: ImagePolicy = serde_json::from_value(settings).unwrap();
    policy.compile().unwrap()
}

/// Compares two tags by their keys.
fn by_keys(policy: &Policy, a: &str, b: &str) -> Ordering {
    let times = Times {
        pushed: NOW,
        created: None,
    };
    let key = |tag: &str| policy.rule().key(&tag.parse().unwrap(), times).unwrap();
    let (a, b) = (key(a), key(b));
    assert_eq!(a.cmp(&b), a.as_bytes().cmp(b.as_bytes()));
    a.cmp(&b)
}

fn version() -> impl Strategy<Value = String> {
    let number = || {
        one_of(vec![
            "0",
            "1",
            "2",
            "9",
            "10",
            "255",
            "256",
            "18446744073709551615",
        ])
    };
    let identifier = one_of(vec![
        "0",
        "1",
        "9",
        "10",
        "a",
        "alpha",
        "rc",
        "rc-1",
        "A",
        "-",
        "0a",
        "99999999999999999999",
        "18446744073709551615",
    ]);
    let prerelease = proptest::collection::vec(identifier, 0..4);
    let v = one_of(vec!["", "v"]);
    (v, number(), number(), number(), prerelease).prop_map(|(v, major, minor, patch, ids)| {
        let hyphen = if ids.is_empty() { "" } else { "-" };
        format!("{v}{major}.{minor}.{patch}{hyphen}{}", ids.join("."))
    })
}

/// A decimal number, and its value times 10^5.
fn decimal() -> impl Strategy<Value = (String, i128)> {
    ("-?0{0,2}[0-9]{1,21}", "([.][0-9]{1,5})?").prop_map(|(whole, fraction)| {
        let digits = format!("{:0<5}", fraction.trim_start_matches('.'));
        let value: i128 = format!("{whole}{digits}").parse().unwrap();
        (format!("{whole}{fraction}"), value)
    })
}

fn bytes(a: &str, b: &str) -> Ordering {
    a.as_bytes().cmp(b.as_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn keys_of_versions_have_their_precedence(a in version(), b in version()) {
        let policy = policy(json!({ "semver": "*-0" }));
        let version = |tag| Parse::StrictV.version(tag).unwrap();
        let expected = version(&a).cmp(&version(&b)).then_with(|| bytes(&a, &b));
        prop_assert_eq!(by_keys(&policy, &a, &b), expected);
    }

    #[test]
    fn keys_of_numbers_have_their_values(a in decimal(), b in decimal(), small in any::<bool>()) {
        // Small numbers, so that equal values are frequent.
        let cut = |(text, value): (String, i128)| if small {
            let digit = text.chars().last().unwrap();
            let sign = if text.starts_with('-') { -100_000 } else { 100_000 };
            let text = format!("{}{}{digit}", &text[..usize::from(sign < 0)], "0".repeat(text.len() % 2));
            (text, sign * i128::from(digit.to_digit(10).unwrap()))
        } else {
            (text, value)
        };
        let ((a, x), (b, y)) = (cut(a), cut(b));
        let (a, b) = (format!("n{a}"), format!("n{b}"));
        let settings = |order| json!({ "numeric": order, "match": "^n(.*)$", "extract": "$1" });
        let highest = by_keys(&policy(settings("highest")), &a, &b);
        prop_assert_eq!(highest, x.cmp(&y).then_with(|| bytes(&a, &b)));
        let lowest = by_keys(&policy(settings("lowest")), &a, &b);
        prop_assert_eq!(lowest, y.cmp(&x).then_with(|| bytes(&a, &b)));
    }

    #[test]
    fn keys_of_texts_have_their_bytes(a in "[a-c.]{0,4}", x in "[a-c]{1,3}", b in "[a-c.]{0,4}", y in "[a-c]{1,3}") {
        let (tag, other) = (format!("{x}_{a}"), format!("{y}_{b}"));
        let settings = |order| json!({ "alphabetical": order, "match": "_(.*)$", "extract": "$1" });
        let last = by_keys(&policy(settings("last")), &tag, &other);
        prop_assert_eq!(last, bytes(&a, &b).then_with(|| bytes(&tag, &other)));
        let first = by_keys(&policy(settings("first")), &tag, &other);
        prop_assert_eq!(first, bytes(&b, &a).then_with(|| bytes(&tag, &other)));
    }

    #[test]
    fn keys_of_calendar_versions_have_their_fields(
        a in (2024..2026, 1..13, 0..120, proptest::option::of(1..12)),
        b in (2024..2026, 1..13, 0..120, proptest::option::of(1..12)),
    ) {
        let policy = policy(json!({ "calver": "YYYY.MM.MICRO[-MODIFIER]" }));
        let tag = |(year, month, micro, rc): (i32, i32, i32, Option<i32>)| {
            let rc = rc.map(|rc| format!("-rc.{rc}")).unwrap_or_default();
            format!("{year}.{month}.{micro}{rc}")
        };
        // No modifier is above every modifier.
        let place = |(year, month, micro, rc): (i32, i32, i32, Option<i32>)| {
            (year, month, micro, rc.is_none(), rc)
        };
        prop_assert_eq!(by_keys(&policy, &tag(a), &tag(b)), place(a).cmp(&place(b)));
    }

    #[test]
    fn keys_of_groups_compare_group_by_group(
        a in ("[a-b]{1,3}", 0..30, 0..3),
        b in ("[a-b]{1,3}", 0..30, 0..3),
    ) {
        let policy = policy(json!({
            "match": "^(?<t>[a-z]+)-(?<n>[0-9]+)-(?<v>.*)$", "order": ["t:text", "n:int", "v:semver"],
        }));
        let tag = |(t, n, v): &(String, i32, i32)| format!("{t}-{n}-1.{v}.0");
        prop_assert_eq!(by_keys(&policy, &tag(&a), &tag(&b)), a.cmp(&b));
    }

    #[test]
    fn keys_of_times_have_their_order(a in -9..9_i64, b in -9..9_i64, x in 0..3_i64, y in 0..3_i64) {
        let at = |seconds: i64| OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(seconds);
        let built = |days: i64| NOW + time::Duration::days(days);
        let times = |pushed, created| Times { pushed: at(pushed), created: Some(built(created)) };
        let tag: Tag = "a".parse().unwrap();
        let pushed = policy(json!({ "newest": "pushed" }));
        let key = |policy: &Policy, times| policy.rule().key(&tag, times).unwrap();
        prop_assert_eq!(key(&pushed, times(a, x)).cmp(&key(&pushed, times(b, y))), a.cmp(&b));
        let created = policy(json!({ "newest": "created" }));
        let order = key(&created, times(a, x)).cmp(&key(&created, times(b, y)));
        prop_assert_eq!(order, (x, a).cmp(&(y, b)));
    }
}

/// Heads of a few versions, each with one of a few digests or deleted.
fn heads() -> impl Strategy<Value = Vec<TagHead>> {
    let tags = [
        "1.0.0",
        "v1.0.0",
        "1.1.0",
        "1.2.0-rc.1",
        "1.2.0",
        "2.0.0",
        "latest",
    ];
    let head = (proptest::option::of(0..3_u8), 0..600_u64);
    proptest::collection::vec(head, tags.len()).prop_map(move |heads| {
        let heads = tags.iter().zip(heads);
        heads
            .map(|(tag, (digest, ago))| TagHead {
                tag: tag.parse().unwrap(),
                digest: digest.map(|digest| Digest::sha256_of(&[digest])),
                times: Times {
                    pushed: NOW,
                    created: None,
                },
                recorded_at: NOW - Duration::from_secs(ago),
                tombstone: false,
                fit: tagtrail_policy::selection::Fit::Fits,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_selection_depends_on_no_order_and_never_goes_down(
        before in heads(),
        after in heads(),
        shuffled in Just((0..7_usize).collect::<Vec<_>>()).prop_shuffle(),
        on_removed in one_of(vec!["keep", "fall-back", "hold"]),
        on_moved in one_of(vec!["follow", "keep", "hold"]),
        min_age in one_of(vec!["0s", "5m"]),
    ) {
        let policy = policy(json!({
            "semver": "<2", "on_removed": on_removed, "on_moved": on_moved, "min_age": min_age,
        }));
        let first = policy.select(&before, None, NOW).outcome;
        let Outcome::Select { head, key, change: Change::First } = first else {
            prop_assert_eq!(first, Outcome::Nothing);
            return Ok(());
        };
        let last = Last {
            tag: head.tag.clone(),
            key,
            digest: head.digest.clone().unwrap(),
            rule_changed: false,
            released: false,
        };
        let selection = policy.select(&after, Some(&last), NOW);
        let other: Vec<TagHead> = shuffled.iter().map(|n| after[*n].clone()).collect();
        prop_assert_eq!(&selection, &policy.select(&other, Some(&last), NOW));
        match &selection.outcome {
            Outcome::Select { key, change: Change::FallBack, .. } => {
                prop_assert_eq!(on_removed, "fall-back");
                prop_assert!(*key < last.key);
            }
            Outcome::Select { key, change: Change::Higher, .. } => prop_assert!(*key > last.key),
            Outcome::Select { head, key, change: Change::Moved } => {
                prop_assert_eq!(on_moved, "follow");
                prop_assert_eq!((&head.tag, key), (&last.tag, &last.key));
            }
            Outcome::Keep(_) | Outcome::Hold(_) => {}
            other => prop_assert!(false, "{:?}", other),
        }
        // Without a fault, the best tag that is old enough and not below the last one is wanted.
        let same = after.iter().any(|head| head.tag == last.tag && head.digest == Some(last.digest.clone()));
        let able = |head: &&TagHead| head.digest.is_some()
            && (min_age == "0s" || head.recorded_at + Duration::from_secs(300) <= NOW);
        let best = after.iter().filter(able)
            .filter_map(|head| policy.rule().key(&head.tag, head.times).ok()).max();
        if same {
            let wanted = match &selection.outcome {
                Outcome::Select { key, .. } => key,
                _ => &last.key,
            };
            prop_assert_eq!(wanted, best.as_ref().unwrap_or(&last.key).max(&last.key));
        }
    }

    #[test]
    fn a_range_without_prereleases_takes_less_and_with_all_more(
        range in "[<>=^~!]{0,2}[0-2](.[0-2x])?(.[0-2])?(-0)?( (<|>=)[0-3])?",
        version in version(),
    ) {
        if let Ok(range) = Range::parse(&range) {
            let version = Parse::StrictV.version(&version).unwrap();
            let has = |prereleases| range.has(&version, prereleases);
            prop_assert!(has(Prereleases::None) <= has(Prereleases::Range));
            prop_assert!(has(Prereleases::Range) <= has(Prereleases::All));
            prop_assert!(version.is_release() || !has(Prereleases::None));
            if version.is_release() {
                prop_assert_eq!(has(Prereleases::None), has(Prereleases::All));
            }
        }
    }

    #[test]
    fn a_template_expands_as_in_go(template in r"[$${}a0-2_x.]{0,12}", tag in "[a-b]{0,3}-[0-9]{1,3}") {
        let pattern = Pattern::parse(r"^(?<a>[a-b]*)-(?:([0-4]+)|(?<a1>[5-9]+))").unwrap();
        let ours = Template::parse(&template, &pattern).unwrap();
        let captures = regex::Regex::new(r"^(?<a>[a-b]*)-(?:([0-4]+)|(?<a1>[5-9]+))").unwrap();
        let expected = captures.captures(&tag).map(|captures| go_expand(&template, &captures));
        prop_assert_eq!(ours.expand(&pattern, &tag).map(std::borrow::Cow::into_owned), expected);
    }

    #[test]
    fn a_glob_matches_as_by_its_definition(glob in "[ab*?]{1,6}", tag in "[ab]{1,6}") {
        fn matches(glob: &[u8], tag: &[u8]) -> bool {
            match (glob, tag) {
                ([], tag) => tag.is_empty(),
                ([b'*', rest @ ..], _) => (0..=tag.len()).any(|n| matches(rest, &tag[n..])),
                ([b'?', rest @ ..], [_, tag @ ..]) => matches(rest, tag),
                ([a, rest @ ..], [b, tag @ ..]) => a == b && matches(rest, tag),
                _ => false,
            }
        }
        let expected = matches(glob.as_bytes(), tag.as_bytes());
        prop_assert_eq!(TagGlob::parse(&glob).unwrap().matches(&tag), expected);
    }

    #[test]
    fn no_text_ends_in_a_panic(text in r"[\\\[\]{}()<>=~^!|&,.*?$:+ 0-9a-zA-Zé-]{0,24}", other in any::<String>()) {
        let pattern = Pattern::parse("(a)").unwrap();
        for text in [&text, &other] {
            let _ = Pattern::parse(text).map(|pattern| pattern.is_match("1.2.3"));
            let _ = TagGlob::parse(text).map(|glob| glob.matches("1.2.3"));
            let _ = Range::parse(text).map(|range| range.warnings(Prereleases::All));
            let _ = Calver::parse(text).map(|calver| calver.is_match("2026.1.1"));
            let _ = Template::parse(text, &pattern);
            let _ = PlatformRule::parse(text);
            let _ = parse_duration(text, Duration::MAX);
            for parse in [Parse::Strict, Parse::StrictV, Parse::ThreePart, Parse::Loose] {
                let _ = parse.version_of_tag(text);
            }
        }
    }
}

/// `Regexp.expand` and `extract` of Go's `regexp` package, line by line.
fn go_expand(template: &str, captures: &regex::Captures<'_>) -> String {
    let (mut out, mut template) = (String::new(), template);
    while let Some((before, after)) = template.split_once('$') {
        out.push_str(before);
        template = after;
        if let Some(rest) = template.strip_prefix('$') {
            out.push('$');
            template = rest;
            continue;
        }
        let Some((name, number, rest)) = go_extract(template) else {
            out.push('$');
            continue;
        };
        template = rest;
        let found = match number {
            Some(number) => captures.get(number),
            None => captures.name(name),
        };
        out.push_str(found.map_or("", |found| found.as_str()));
    }
    out + template
}

fn go_extract(text: &str) -> Option<(&str, Option<usize>, &str)> {
    let brace = text.starts_with('{');
    let text = if brace { &text[1..] } else { text };
    let length = text
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count();
    if length == 0 {
        return None;
    }
    let (name, mut rest) = text.split_at(length);
    if brace {
        rest = rest.strip_prefix('}')?;
    }
    let mut number = Some(0);
    for digit in name.bytes() {
        match number {
            Some(value) if digit.is_ascii_digit() && value < 100_000_000 => {
                number = Some(value * 10 + usize::from(digit - b'0'));
            }
            _ => number = None,
        }
    }
    if name.starts_with('0') && name.len() > 1 {
        number = None;
    }
    Some((name, number, rest))
}
