//! The selection: age, waiting for manifests, times, and the reasons.

use std::time::Duration;

use tagtrail_policy::selection::{
    Change, Fit, ImagePolicy, Kept, Last, Outcome, Policy, Reason, Selection, TagHead, Times,
};
use tagtrail_proto::Digest;
use time::OffsetDateTime;
use time::macros::datetime;

pub(super) const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn policy(settings: &str) -> Policy {
    let settings = format!("repository = \"registry.example.com/shop/api\"\n{settings}");
    let policy: ImagePolicy = toml::from_str(&settings).unwrap();
    policy.compile().unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::sha256_of(text.as_bytes())
}

/// A head that was recorded a number of minutes ago.
pub(super) fn head(tag: &str, content: &str, ago: u32) -> TagHead {
    TagHead {
        tag: tag.parse().unwrap(),
        digest: Some(digest(content)),
        times: Times {
            pushed: NOW - MINUTE * ago,
            created: None,
        },
        recorded_at: NOW - MINUTE * ago,
        tombstone: false,
        fit: Fit::Fits,
    }
}

pub(super) fn last(policy: &Policy, tag: &str, content: &str) -> Last {
    let tag = tag.parse().unwrap();
    let times = head("a", "A", 60).times;
    Last {
        key: policy.rule().key_beyond_filters(&tag, times).unwrap(),
        tag,
        digest: digest(content),
        rule_changed: false,
        released: false,
    }
}

/// The outcome in a few words: the change and the tag.
pub(super) fn words(selection: &Selection<'_>) -> String {
    match &selection.outcome {
        Outcome::Nothing => "nothing".to_owned(),
        Outcome::Keep(Kept::Removed { next: Some(next) }) => format!("keep, next {next}"),
        Outcome::Keep(kept) => format!("keep {kept:?}"),
        Outcome::Select { head, change, .. } => format!("{change:?} {}", head.tag),
        Outcome::Wait { tag, until } => format!("wait {tag} {}", (*until - NOW).whole_minutes()),
        Outcome::Hold(fault) => format!("hold {fault:?}"),
    }
}

pub(super) fn reason<'a>(selection: &'a Selection<'_>, tag: &str) -> &'a Reason {
    let found = selection
        .passed_over
        .iter()
        .find(|one| one.tag.as_ref() == tag);
    &found
        .unwrap_or_else(|| panic!("{tag}: {selection:?}"))
        .reason
}

#[test]
fn the_newest_tag_that_is_old_enough_is_selected() {
    let policy = policy("semver = \"*\"\nmin_age = \"1h\"");
    let heads = [
        head("1.0.0", "A", 90),
        head("1.1.0", "B", 60),
        head("1.2.0", "C", 59),
    ];
    let selection = policy.select(&heads, None, NOW);
    assert_eq!(words(&selection), "First 1.1.0");
    assert_eq!(selection.again, Some(NOW + MINUTE));
    let expected = Reason::TooYoung {
        since: NOW - MINUTE * 59,
        opens_at: NOW + MINUTE,
    };
    assert_eq!(reason(&selection, "1.2.0"), &expected);
    assert_eq!(
        reason(&selection, "1.0.0"),
        &Reason::Lower("1.1.0".parse().unwrap())
    );
    // None has lasted: nothing, and the selected tag stays with its old digest.
    assert_eq!(words(&policy.select(&heads[2..], None, NOW)), "nothing");
    let selected = last(&policy, "1.2.0", "before");
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(words(&selection), "keep Moved");
    assert_eq!(selection.again, Some(NOW + MINUTE));
    let selection = policy.select(&heads, Some(&selected), NOW + MINUTE);
    assert_eq!(
        (words(&selection).as_str(), selection.again),
        ("Moved 1.2.0", None)
    );
    // The first of two times counts.
    let young = [head("1.0.0", "A", 10), head("1.1.0", "B", 30)];
    assert_eq!(
        policy.select(&young, None, NOW).again,
        Some(NOW + MINUTE * 30)
    );
    // A young tag below the selected one is no reason to look again.
    let selected = last(&policy, "1.3.0", "D");
    let heads = [head("1.2.0", "C", 1), head("1.3.0", "D", 90)];
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(
        (words(&selection).as_str(), selection.again),
        ("keep Best", None)
    );
}

#[test]
fn an_unread_manifest_is_waited_for_and_then_passed_over() {
    let policy = policy("semver = \"*\"\nplatforms = [\"linux/amd64\"]\nmetadata_wait = \"5m\"");
    let unread = |tag, content, ago| TagHead {
        fit: Fit::Unread,
        ..head(tag, content, ago)
    };
    let heads = [head("1.0.0", "A", 90), unread("1.1.0", "B", 3)];
    let selection = policy.select(&heads, None, NOW);
    assert_eq!(words(&selection), "wait 1.1.0 2");
    assert_eq!(selection.again, Some(NOW + MINUTE * 2));
    assert_eq!(reason(&selection, "1.0.0").code(), "waiting");
    let later = policy.select(&heads, None, NOW + MINUTE * 2);
    assert_eq!((words(&later).as_str(), later.again), ("First 1.0.0", None));
    assert_eq!(reason(&later, "1.1.0"), &Reason::Unread { until: None });
    // Below the selected tag, nothing is waited for.
    let selected = last(&policy, "1.2.0", "C");
    let heads = [unread("1.1.0", "B", 3), head("1.2.0", "C", 90)];
    assert_eq!(
        words(&policy.select(&heads, Some(&selected), NOW)),
        "keep Best"
    );
    // A moved tag waits for its new manifest.
    let heads = [unread("1.2.0", "D", 3)];
    assert_eq!(
        words(&policy.select(&heads, Some(&selected), NOW)),
        "wait 1.2.0 2"
    );
    // A misfit is passed over at once.
    let misfit = TagHead {
        fit: Fit::Misfit(Reason::Platform("linux/amd64".to_owned())),
        ..head("1.3.0", "E", 3)
    };
    let heads = [misfit, head("1.2.0", "C", 9)];
    assert_eq!(
        words(&policy.select(&heads, Some(&selected), NOW)),
        "keep Best"
    );
}

#[test]
fn a_manifest_is_unread_only_for_a_rule_that_asks_for_one() {
    for (settings, fit) in [
        ("", Fit::Fits),
        ("platforms = [\"linux/amd64\"]", Fit::Unread),
        ("platforms = { any = [\"linux/amd64\"] }", Fit::Unread),
        ("labels = { a = \"b\" }", Fit::Unread),
        ("annotations = { a = \"b\" }", Fit::Unread),
    ] {
        let policy = policy(&format!("semver = \"*\"\n{settings}"));
        assert_eq!(policy.rule().fit(None), fit, "{settings}");
        assert_eq!(
            policy.rule().needs_manifest(),
            fit == Fit::Unread,
            "{settings}"
        );
    }
}

#[test]
fn a_shared_time_of_the_build_selects_nothing() {
    let policy = policy("newest = \"created\"");
    let built = |tag, content, day: u8| TagHead {
        times: Times {
            created: Some(datetime!(2025-01-01 00:00 UTC).replace_day(day).unwrap()),
            ..head(tag, content, 9).times
        },
        ..head(tag, content, 9)
    };
    let heads = [
        built("a", "A", 1),
        built("b", "B", 2),
        built("c", "C", 2),
        built("d", "C", 2),
    ];
    let selection = policy.select(&heads, None, NOW);
    assert_eq!(words(&selection), "nothing");
    assert_eq!(
        reason(&selection, "b"),
        &Reason::SharedCreated("d".parse().unwrap())
    );
    assert_eq!(
        reason(&selection, "c"),
        &Reason::SharedCreated("b".parse().unwrap())
    );
    assert_eq!(
        reason(&selection, "a"),
        &Reason::Lower("d".parse().unwrap())
    );
    // With one digest, the tags mean one image.
    assert_eq!(words(&policy.select(&heads[2..], None, NOW)), "First d");
    // A tag that cannot be selected makes no other one doubtful.
    let mut unfit = heads.clone();
    unfit[1].fit = Fit::Misfit(Reason::Label("a".to_owned()));
    assert_eq!(words(&policy.select(&unfit, None, NOW)), "First d");
    // The last selection stays, and a tag below loses to it.
    let heads = [
        heads.as_slice(),
        &[TagHead {
            times: Times {
                created: Some(datetime!(2024-01-01 00:00 UTC)),
                ..heads[0].times
            },
            ..head("z", "Z", 9)
        }],
    ]
    .concat();
    let times = heads[0].times;
    let selected = Last {
        key: policy.rule().key(&heads[0].tag, times).unwrap(),
        ..last(&self::policy("alphabetical = \"last\""), "a", "A")
    };
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(words(&selection), "keep Best");
    assert_eq!(
        reason(&selection, "z"),
        &Reason::Lower("a".parse().unwrap())
    );
}

#[test]
fn the_newest_push_counts_by_its_time_at_the_selection() {
    let policy = policy("newest = \"pushed\"\non_moved = \"keep\"");
    let selected = Last {
        key: policy
            .rule()
            .key(&"a".parse().unwrap(), head("a", "A", 50).times)
            .unwrap(),
        ..last(&self::policy("alphabetical = \"last\""), "a", "A")
    };
    // The selected tag moved last of all, and its first digest stays; b was pushed since.
    let heads = [
        head("a", "moved", 10),
        head("b", "B", 30),
        head("c", "C", 70),
    ];
    assert_eq!(
        words(&policy.select(&heads, Some(&selected), NOW)),
        "Higher b"
    );
    // The same digest again, at a later time: the tag is still the newest.
    let heads = [head("a", "A", 10), head("b", "B", 30)];
    assert_eq!(
        words(&policy.select(&heads, Some(&selected), NOW)),
        "keep Best"
    );
    let followed = self::policy("newest = \"pushed\"");
    let heads = [head("a", "moved", 40), head("b", "B", 30)];
    assert_eq!(
        words(&followed.select(&heads, Some(&selected), NOW)),
        "Higher b"
    );
    let heads = [head("a", "moved", 30), head("b", "B", 40)];
    assert_eq!(
        words(&followed.select(&heads, Some(&selected), NOW)),
        "Moved a"
    );
}

#[test]
fn every_tag_but_the_selected_one_has_a_reason() {
    let policy = policy("semver = \"*\"");
    let heads = [
        head("latest", "A", 9),
        head("1.0.0", "B", 9),
        head("dev", "C", 9),
    ];
    let selection = policy.select(&heads, None, NOW);
    assert!(matches!(
        selection.outcome,
        Outcome::Select {
            change: Change::First,
            ..
        }
    ));
    let tags: Vec<&str> = selection
        .passed_over
        .iter()
        .map(|one| one.tag.as_ref())
        .collect();
    assert_eq!(tags, ["dev", "latest"]);
    assert_eq!(
        reason(&selection, "dev").to_string(),
        "\"dev\" is no version"
    );
}
