//! The selection after changes: removed and moved tags, and another rule.

use tagtrail_policy::selection::{Fault, Fit, Last, Outcome, Reason, TagHead};

use super::select::{MINUTE, NOW, head, last, policy, reason, words};

#[test]
fn a_removed_tag_is_kept_replaced_or_an_alarm() {
    let deleted = TagHead {
        digest: None,
        ..head("1.1.0", "B", 9)
    };
    let tombstone = TagHead {
        tombstone: true,
        ..head("1.1.0", "T", 9)
    };
    let (lower, higher) = (head("1.0.0", "A", 90), head("1.2.0", "C", 9));
    for (on_removed, released, alone, with_higher) in [
        ("keep", false, "keep, next 1.0.0", "Higher 1.2.0"),
        ("fall-back", false, "FallBack 1.0.0", "Higher 1.2.0"),
        ("hold", false, "hold Removed", "hold Removed"),
        ("hold", true, "keep, next 1.0.0", "Higher 1.2.0"),
    ] {
        let policy = policy(&format!("semver = \"*\"\non_removed = {on_removed:?}"));
        let selected = Last {
            released,
            ..last(&policy, "1.1.0", "B")
        };
        for removed in [Some(deleted.clone()), Some(tombstone.clone()), None] {
            let mut heads: Vec<TagHead> = removed.into_iter().chain([lower.clone()]).collect();
            let selection = policy.select(&heads, Some(&selected), NOW);
            assert_eq!(words(&selection), alone, "{on_removed}");
            heads.push(higher.clone());
            let selection = policy.select(&heads, Some(&selected), NOW);
            assert_eq!(words(&selection), with_higher, "{on_removed}");
        }
    }
    let policy = policy("semver = \"*\"");
    let selected = last(&policy, "1.1.0", "B");
    let heads = [deleted, lower];
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(reason(&selection, "1.1.0"), &Reason::Deleted);
    assert_eq!(
        reason(&selection, "1.0.0"),
        &Reason::BelowSelection("1.1.0".parse().unwrap())
    );
    let heads = [tombstone];
    let selection = policy.select(&heads, None, NOW);
    assert_eq!(words(&selection), "nothing");
    assert_eq!(reason(&selection, "1.1.0"), &Reason::Tombstone);
}

#[test]
fn a_fall_back_waits_for_its_manifest_and_age() {
    let policy = policy(
        "semver = \"*\"\non_removed = \"fall-back\"\nmin_age = \"1h\"\nplatforms = [\"linux/amd64\"]\nmetadata_wait = \"2h\"",
    );
    let selected = last(&policy, "1.1.0", "B");
    let young = [head("1.0.0", "A", 50)];
    let selection = policy.select(&young, Some(&selected), NOW);
    assert_eq!(words(&selection), "keep Removed { next: None }");
    assert_eq!(selection.again, Some(NOW + MINUTE * 10));
    let unread = [TagHead {
        fit: Fit::Unread,
        ..head("1.0.0", "A", 70)
    }];
    let selection = policy.select(&unread, Some(&selected), NOW);
    assert_eq!(words(&selection), "wait 1.0.0 50");
}

#[test]
fn a_moved_tag_is_followed_kept_or_an_alarm() {
    let heads = [head("1.1.0", "moved", 9), head("1.0.0", "A", 90)];
    let with_higher = [heads[0].clone(), heads[1].clone(), head("1.2.0", "C", 9)];
    for (on_moved, released, alone, higher) in [
        ("follow", false, "Moved 1.1.0", "Higher 1.2.0"),
        ("keep", false, "keep Moved", "Higher 1.2.0"),
        ("hold", false, "hold Moved", "hold Moved"),
        ("hold", true, "Moved 1.1.0", "Higher 1.2.0"),
    ] {
        let policy = policy(&format!("semver = \"*\"\non_moved = {on_moved:?}"));
        let selected = Last {
            released,
            ..last(&policy, "1.1.0", "B")
        };
        assert_eq!(
            words(&policy.select(&heads, Some(&selected), NOW)),
            alone,
            "{on_moved}"
        );
        let selection = policy.select(&with_higher, Some(&selected), NOW);
        assert_eq!(words(&selection), higher, "{on_moved}");
        if selection.outcome == Outcome::Hold(Fault::Moved) {
            assert_eq!(reason(&selection, "1.2.0"), &Reason::Held);
        }
    }
    // A new digest that does not fit is not followed, and the old one stays.
    let policy = policy("semver = \"*\"\nplatforms = [\"linux/amd64\"]");
    let misfit = [TagHead {
        fit: Fit::Misfit(Reason::Platform("linux/amd64".to_owned())),
        ..head("1.1.0", "moved", 9)
    }];
    let selected = last(&policy, "1.1.0", "B");
    let selection = policy.select(&misfit, Some(&selected), NOW);
    assert_eq!(words(&selection), "keep Moved");
    assert_eq!(reason(&selection, "1.1.0").code(), "platforms");
}

#[test]
fn a_person_may_go_down_by_another_rule() {
    let policy = policy("semver = \"<2\"\nmin_age = \"1h\"");
    let changed = |tag: &str, content: &str| Last {
        rule_changed: true,
        ..last(&policy, tag, content)
    };
    let heads = [
        head("1.0.0", "A", 90),
        head("1.1.0", "B", 90),
        head("2.0.0", "C", 90),
    ];
    for (tag, content, expected) in [
        ("2.0.0", "C", "Configuration { downgrade: true } 1.1.0"),
        ("1.0.0", "A", "Configuration { downgrade: false } 1.1.0"),
        // The same tag is no change, but a moved one is followed.
        ("1.1.0", "B", "keep Best"),
        ("1.1.0", "before", "Moved 1.1.0"),
    ] {
        let selection = policy.select(&heads, Some(&changed(tag, content)), NOW);
        assert_eq!(words(&selection), expected, "{tag}");
    }
    // A person who adds `min_age` does not ask for a lower tag, also while the selected one moves.
    let young = [heads[0].clone(), head("1.1.0", "B", 9)];
    for (content, expected) in [("B", "keep Best"), ("before", "keep Moved")] {
        let selection = policy.select(&young, Some(&changed("1.1.0", content)), NOW);
        assert_eq!(words(&selection), expected, "{content}");
    }
    // But a rule that the running image does not fit ends its selection.
    let misfit = TagHead {
        fit: Fit::Misfit(Reason::Label("a".to_owned())),
        ..young[1].clone()
    };
    let unfit = [heads[0].clone(), misfit];
    let selection = policy.select(&unfit, Some(&changed("1.1.0", "B")), NOW);
    assert_eq!(words(&selection), "Configuration { downgrade: true } 1.0.0");
    // Keys of two rules are not compared, and `on_moved` holds under a changed rule too.
    let other = super::select::policy("alphabetical = \"first\"");
    let selected = Last {
        key: last(&other, "1.0.0", "A").key,
        ..changed("1.0.0", "A")
    };
    assert!(selected.key > changed("1.1.0", "B").key);
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(
        words(&selection),
        "Configuration { downgrade: false } 1.1.0"
    );
    let kept = super::select::policy("numeric = \"lowest\"\non_moved = \"keep\"");
    let numbers = [head("7", "moved", 90), head("8", "C", 90)];
    let selected = Last {
        rule_changed: true,
        ..last(&other, "7", "B")
    };
    let selection = kept.select(&numbers, Some(&selected), NOW);
    assert_eq!(words(&selection), "keep Moved");
    // The selected tag is gone from the list.
    let selection = policy.select(&heads[..2], Some(&changed("2.0.0", "C")), NOW);
    assert_eq!(words(&selection), "Configuration { downgrade: true } 1.1.0");
    // No candidate: nothing is selected by the new rule, and the caller keeps the images that run.
    let young = [head("1.0.0", "A", 1)];
    let selection = policy.select(&young, Some(&changed("2.0.0", "C")), NOW);
    assert_eq!(
        (words(&selection).as_str(), selection.again),
        ("nothing", Some(NOW + MINUTE * 59))
    );
    // A key of another rule is compared with nothing: the new rule orders by time.
    let newest = super::select::policy("newest = \"pushed\"");
    let selected = Last {
        rule_changed: true,
        ..last(&policy, "1.1.0", "B")
    };
    let heads = [head("1.1.0", "B", 5), head("1.0.0", "A", 9)];
    assert_eq!(
        words(&newest.select(&heads, Some(&selected), NOW)),
        "keep Best"
    );
}

#[test]
fn within_and_suffix_follow_the_selection() {
    let policy = policy("semver = { within = \"minor\", from = \"1.2.3\", parse = \"loose\" }");
    let heads = [
        head("1.2.3", "A", 90),
        head("1.9.0", "B", 90),
        head("2.1.0", "C", 90),
        head("2.2", "D", 90),
    ];
    assert_eq!(words(&policy.select(&heads, None, NOW)), "First 1.9.0");
    let selected = last(&policy, "2.1.0", "C");
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(words(&selection), "Higher 2.2");
    assert_eq!(reason(&selection, "1.9.0"), &Reason::Within);
    // A fall-back may return to the version that ran first, and not below.
    let policy = super::select::policy(
        "semver = { within = \"minor\", from = \"1.2.3\" }\non_removed = \"fall-back\"",
    );
    let selected = last(&policy, "1.3.0", "B");
    let heads = [head("1.2.2", "Z", 90), head("1.2.3", "A", 90)];
    let selection = policy.select(&heads, Some(&selected), NOW);
    assert_eq!(words(&selection), "FallBack 1.2.3");
    assert_eq!(reason(&selection, "1.2.2"), &Reason::NotNewer);
    // After a change of the rule, `from` counts again.
    let changed = Last {
        rule_changed: true,
        ..last(&policy, "5.0.0", "E")
    };
    let heads = [head("1.2.4", "A", 90), head("5.1.0", "F", 90)];
    let selection = policy.select(&heads, Some(&changed), NOW);
    assert_eq!(words(&selection), "Configuration { downgrade: true } 1.2.4");
}
