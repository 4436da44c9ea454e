use tagtrail_proto::Image;

use super::*;

const SOAK: Duration = Duration::from_secs(30 * 60);

fn minute(minute: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(60) * u32::try_from(minute).unwrap()
}

fn set(n: u8) -> BTreeMap<String, RolloutImage> {
    let image: Image = "registry.example.com/shop/web:latest".parse().unwrap();
    let digest = Digest::sha256_of(&[n]);
    let image = RolloutImage {
        revision: u64::from(n),
        pinned: image.pinned(&digest),
        digest,
        image,
        actor: None,
        previous: None,
    };
    BTreeMap::from([("web".to_owned(), image)])
}

/// Successes as `(set, minute, rollback)`, numbered 1, 2, 3 …
fn history(successes: &[(u8, i64, bool)]) -> Vec<Success> {
    let numbered = successes.iter().zip(1..);
    let success = |(&(n, at, rollback), number): (&(u8, i64, bool), u64)| Success {
        number,
        images: set(n),
        at: minute(at),
        rollback,
    };
    numbered.map(success).collect()
}

fn follow(upstream: &[&str], all: bool) -> Follow {
    Follow {
        upstream: upstream.iter().map(|name| (*name).to_owned()).collect(),
        all,
        soak: SOAK,
    }
}

/// The set that a trigger with the set `last` takes over at a minute.
fn taken(follow: &Follow, of: &[&[(u8, i64, bool)]], last: Option<u8>, now: i64) -> Option<u8> {
    let past = |of: &&[(u8, i64, bool)]| {
        let mut past = history(of);
        past.retain(|success| success.at <= minute(now));
        past
    };
    let names = follow.upstream.iter().cloned();
    let successes = names.zip(of.iter().map(past)).collect();
    let last = last.map(set);
    let set = followed(follow, &successes, last.as_ref(), minute(now)).set?;
    let revision = set.images["web"].revision;
    Some(u8::try_from(revision).unwrap())
}

#[test]
fn the_newest_set_that_lasted_is_taken_over() {
    let dev = follow(&["dev"], false);
    for (history, last, now, expected) in [
        (&[][..], None, 100, None),
        (&[(1, 0, false)][..], None, 29, None),
        (&[(1, 0, false)], None, 30, Some(1)),
        // The second one has not lasted yet.
        (&[(1, 0, false), (2, 40, false)], None, 60, Some(1)),
        (&[(1, 0, false), (2, 40, false)], Some(1), 70, Some(2)),
        // One that was replaced too early never counts, unless it comes back and lasts.
        (
            &[(1, 0, false), (2, 40, false), (3, 50, false)],
            Some(1),
            60,
            Some(1),
        ),
        (&[(1, 0, false), (2, 10, false)], None, 35, None),
        (
            &[(1, 0, false), (2, 10, false), (1, 20, false)],
            None,
            45,
            None,
        ),
        (
            &[(1, 0, false), (2, 10, false), (1, 20, false)],
            None,
            50,
            Some(1),
        ),
        // Deployed again, it has been current all the time.
        (&[(1, 0, false), (1, 20, false)], None, 30, Some(1)),
    ] {
        let found = taken(&dev, &[history], last, now);
        assert_eq!(found, expected, "{history:?} at {now}");
    }
}

#[test]
fn a_rollback_revokes_the_set_that_it_leaves_and_takes_nobody_back() {
    let dev = follow(&["dev"], false);
    let history = &[(1, 0, false), (2, 40, false), (1, 100, true)][..];
    // Before the rollback the second set had lasted.
    assert_eq!(taken(&dev, &[&history[..2]], Some(1), 90), Some(2));
    assert_eq!(taken(&dev, &[history], None, 110), Some(1));
    assert_eq!(taken(&dev, &[history], Some(1), 110), Some(1));
    // The trigger that has the revoked set keeps it: no older one is offered.
    assert_eq!(taken(&dev, &[history], Some(2), 110), None);
    assert_eq!(taken(&dev, &[history], Some(2), 1000), None);
    // A set that came only by a rollback does not count, however long it lasts.
    let only = &[(2, 0, false), (1, 10, true)][..];
    assert_eq!(taken(&dev, &[only], None, 1000), None);
    // The next set counts, and so does the revoked one once it comes back by itself.
    let next = &[
        (1, 0, false),
        (2, 40, false),
        (1, 100, true),
        (3, 120, false),
    ][..];
    assert_eq!(taken(&dev, &[next], Some(2), 150), Some(3));
    let back = &[
        (1, 0, false),
        (2, 40, false),
        (1, 100, true),
        (2, 120, false),
    ][..];
    assert_eq!(taken(&dev, &[back], Some(1), 149), Some(1));
    assert_eq!(taken(&dev, &[back], Some(1), 150), Some(2));
}

#[test]
fn all_need_the_same_set_and_any_takes_the_newest() {
    let (all, any) = (follow(&["eu", "us"], true), follow(&["eu", "us"], false));
    let eu = &[(1, 0, false), (2, 40, false)][..];
    let us = &[(1, 5, false), (2, 60, false)][..];
    assert_eq!(taken(&all, &[eu, us], None, 34), None);
    assert_eq!(taken(&all, &[eu, us], None, 35), Some(1));
    assert_eq!(taken(&all, &[eu, us], Some(1), 75), Some(1));
    assert_eq!(taken(&all, &[eu, us], Some(1), 90), Some(2));
    assert_eq!(taken(&any, &[eu, us], None, 30), Some(1));
    assert_eq!(taken(&any, &[eu, us], Some(1), 70), Some(2));
    // A rollback at one of them revokes the set there: it is no longer the set of all.
    let back = &[(1, 5, false), (2, 60, false), (1, 95, true)][..];
    assert_eq!(taken(&all, &[eu, back], None, 100), Some(1));
    assert_eq!(taken(&all, &[eu, back], Some(2), 100), None);
    // Older than the own set: not taken, also of another upstream trigger.
    assert_eq!(
        taken(&any, &[&[(1, 0, false)], &[(2, 40, false)]], Some(2), 80),
        Some(2)
    );
}

#[test]
fn the_set_that_must_still_last_is_shown_with_its_time() {
    let dev = follow(&["dev"], false);
    let of = |of: &[(u8, i64, bool)], now: i64| {
        let successes = BTreeMap::from([("dev".to_owned(), history(of))]);
        followed(&dev, &successes, None, minute(now))
    };
    let found = of(&[(1, 0, false), (2, 40, false)], 50);
    let waits = found.waits.unwrap();
    assert_eq!(
        (waits.number, waits.since, waits.opens_at),
        (2, minute(40), minute(70))
    );
    assert_eq!(waits.upstream, "dev");
    let set = found.set.unwrap();
    assert_eq!(set.from, BTreeMap::from([("dev".to_owned(), 1)]));
    assert_eq!(set.lasted_at, minute(30));
    assert_eq!(of(&[(1, 0, false)], 40).waits, None);
    // One that a rollback left waits no longer.
    assert_eq!(
        of(&[(1, 0, false), (2, 40, false), (1, 50, true)], 55).waits,
        None
    );
}

#[test]
fn a_set_is_revoked_once_rollbacks_upstream_have_left_it() {
    let revoked = |follow: &Follow, of: &[&[(u8, i64, bool)]], last: u8| {
        let names = follow.upstream.iter().cloned();
        let successes = names.zip(of.iter().map(|one| history(one))).collect();
        followed(follow, &successes, Some(&set(last)), minute(1000)).revoked_by
    };
    let (all, any) = (follow(&["eu", "us"], true), follow(&["eu", "us"], false));
    let stays = &[(1, 0, false), (2, 40, false)][..];
    let back = &[(1, 0, false), (2, 40, false), (1, 100, true)][..];
    let again = &[(2, 40, false), (1, 100, true), (2, 200, false)][..];
    assert_eq!(revoked(&all, &[stays, back], 2), ["us"]);
    assert_eq!(revoked(&all, &[back, back], 2), ["eu", "us"]);
    assert_eq!(revoked(&any, &[stays, back], 2), [""; 0]);
    assert_eq!(revoked(&any, &[back, &[]], 2), ["eu"]);
    assert_eq!(revoked(&any, &[again, &[]], 2), [""; 0]);
    // One that was replaced is not revoked, and one that upstream never had neither.
    assert_eq!(revoked(&all, &[stays, stays], 1), [""; 0]);
    assert_eq!(revoked(&all, &[back, back], 7), [""; 0]);
}

#[test]
fn settings_name_one_list_of_triggers() {
    let read = |text: &str| {
        let settings: FollowSettings = serde_json::from_str(text).unwrap();
        settings.compile().map_err(|(_, message)| message)
    };
    let dev = read(r#"{"trigger": "dev", "soak": "30m"}"#).unwrap();
    assert_eq!(dev, follow(&["dev"], false));
    let all = read(r#"{"all": ["eu", "us"], "soak": "30m"}"#).unwrap();
    assert_eq!(all, follow(&["eu", "us"], true));
    for (text, message) in [
        ("{}", "exactly one"),
        (r#"{"trigger": "a", "any": ["b"]}"#, "exactly one"),
        (r#"{"any": []}"#, "names 0 triggers"),
        (r#"{"any": ["a", "a"]}"#, "twice"),
        (r#"{"trigger": "A b"}"#, "not the name"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
