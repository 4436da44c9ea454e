use std::time::Duration;

use tagtrail_proto::{Digest, Origin};
use time::OffsetDateTime;

use super::*;
use crate::begin::Approvals;
use crate::selection::ImagePolicy;
use crate::window::WindowSettings;

const DAY: i64 = 86_400;
const API: &str = "registry.example.com/shop/api";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
}

fn spec(images: &[(&str, &str)], settle: Option<u64>) -> Spec {
    let watched = |settings: &str| match settings.split_once(' ') {
        None => Watched::Tag(settings.parse().unwrap()),
        Some(_) => {
            let text = format!("repository = \"{API}\"\n{settings}");
            Watched::compile(toml::from_str::<ImagePolicy>(&text).unwrap()).unwrap()
        }
    };
    let settle = settle.map(Duration::from_secs);
    Spec {
        images: images
            .iter()
            .map(|(name, settings)| ((*name).to_owned(), watched(settings)))
            .collect(),
        agree: None,
        settle: settle.map(Settle::always),
        settle_max: settle.unwrap_or_default() * 10,
        start: Start::Now,
        partial: false,
        gates: Settings::default(),
    }
}

/// A change at a second: of a tag of the first repository, `0` for a deleted tag.
fn change(seconds: i64, tag: &str, digest: u8) -> Change {
    let tag_id = tag
        .bytes()
        .fold(7, |id, byte| id * 131 % 1_000_003 + i64::from(byte));
    Change {
        place: 0,
        tag_id,
        tag: tag.parse().unwrap(),
        revision: u64::try_from(seconds).unwrap_or(0) + 1,
        digest: (digest > 0).then(|| Digest::sha256_of(&[digest])),
        head_at: at(seconds),
        recorded_at: at(seconds),
        origin: Origin::Event,
        tombstone: false,
        created: None,
        commit: None,
        manifest: None,
    }
}

/// Replays the changes before second 0 as heads at the begin, and the others as changes.
fn replay(spec: Spec, changes: &[Change], until: i64) -> Report {
    let mut replay = Replay::new(spec, at(0));
    let (before, after): (Vec<_>, Vec<_>) = changes.iter().partition(|one| one.recorded_at < at(0));
    before.into_iter().for_each(|change| replay.apply(change));
    replay.adopt();
    for change in after {
        while replay.tick(change.recorded_at) {}
        replay.apply(change);
        replay.at(change.recorded_at);
    }
    while replay.tick(at(until)) {}
    replay.end(at(until))
}

/// Returns second, tag and kind of each rollout.
fn rollouts(report: &Report) -> Vec<(i64, String, Kind)> {
    let one = |planned: &Planned| {
        let tag = planned
            .images
            .values()
            .next()
            .unwrap()
            .image
            .tag
            .to_string();
        (planned.at.unix_timestamp(), tag, planned.kind.clone())
    };
    report.rollouts.iter().map(one).collect()
}

#[test]
fn versions_that_rise_and_pushes_of_the_same_tag_are_counted_apart() {
    let changes = [
        change(-10, "1.4.0", 1),
        change(-9, "latest", 9),
        change(10, "1.4.1", 2),
        change(20, "1.3.9", 3),
        change(30, "1.4.1", 4),
        change(40, "2.0.0", 5),
        change(50, "1.5.0", 6),
    ];
    let report = replay(spec(&[("api", "semver = \"^1.4\"")], None), &changes, 100);
    assert_eq!(
        rollouts(&report),
        [
            (10, "1.4.1".to_owned(), Kind::Move("semver")),
            (30, "1.4.1".to_owned(), Kind::RePush),
            (50, "1.5.0".to_owned(), Kind::Move("semver")),
        ]
    );
    assert_eq!(report.before.unwrap()["api"].image.tag.as_ref(), "1.4.0");
    assert_eq!((report.count, report.downgrades), (3, 0));
}

#[test]
fn a_removed_tag_prevents_a_downgrade_or_falls_back() {
    let changes = [
        change(-10, "1", 1),
        change(-9, "2", 2),
        change(10, "2", 0),
        change(20, "3", 3),
    ];
    let kept = replay(
        spec(&[("api", "numeric = \"highest\"")], None),
        &changes,
        30,
    );
    assert_eq!(rollouts(&kept).len(), 1);
    assert_eq!((kept.downgrades, kept.downgrades_prevented), (0, 1));
    let policy = "numeric = \"highest\"\non_removed = \"fall-back\"";
    let fell = replay(spec(&[("api", policy)], None), &changes, 30);
    assert_eq!(
        rollouts(&fell)[0],
        (10, "1".to_owned(), Kind::Move("numeric"))
    );
    assert_eq!((fell.downgrades, rollouts(&fell).len()), (1, 2));
}

#[test]
fn an_image_that_does_not_last_is_counted_and_one_that_lasts_waits_for_its_age() {
    let policy = "semver = \"*\"\nmin_age = \"3d\"";
    let changes = [
        change(-10 * DAY, "1.0.0", 1),
        change(DAY, "1.1.0", 2),
        change(2 * DAY, "1.1.0", 3),
        change(9 * DAY, "1.2.0", 4),
        change(10 * DAY, "1.2.0", 0),
    ];
    let report = replay(spec(&[("api", policy)], None), &changes, 20 * DAY);
    assert_eq!(
        rollouts(&report),
        [(5 * DAY, "1.1.0".to_owned(), Kind::Move("semver"))]
    );
    assert_eq!(report.too_short, 2);
    let held = report.held["min_age"].as_secs();
    assert_eq!(i64::try_from(held).unwrap(), (1 + 3 + 1) * DAY);
}

#[test]
fn settle_joins_pushes_and_opens_at_the_latest_after_its_longest_time() {
    let web = "registry.example.com/shop/api:web";
    let mut changes = vec![
        change(-100, "web", 1),
        change(10, "web", 2),
        change(15, "web", 3),
    ];
    let settled = replay(spec(&[("web", web)], Some(10)), &changes, 500);
    let kinds = |report: &Report| {
        rollouts(report)
            .into_iter()
            .map(|one| one.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&settled), [25]);
    assert_eq!(settled.held["settle"], Duration::from_secs(15));
    changes.extend((0..40).map(|n| change(20 + n * 5, "web", u8::try_from(n + 4).unwrap())));
    let busy = replay(spec(&[("web", web)], Some(10)), &changes, 500);
    assert_eq!(kinds(&busy), [110, 215]);
}

#[test]
fn without_a_tag_nothing_starts_and_the_image_is_named() {
    let images = [
        ("api", "semver = \"^9\""),
        ("web", "registry.example.com/shop/api:1.0.0"),
    ];
    let changes = [change(-5, "1.0.0", 1), change(5, "1.0.0", 2)];
    let report = replay(spec(&images, None), &changes, 100);
    assert_eq!((report.count, report.before.is_none()), (0, true));
    let mut later = changes.to_vec();
    later.push(change(50, "9.0.0", 3));
    let started = replay(spec(&images, None), &later, 100);
    assert_eq!(rollouts(&started), [(50, "9.0.0".to_owned(), Kind::Start)]);
}

/// Settings of gates, for an image whose tag moves at these seconds.
fn gated(gates: Settings, busy: Vec<Busy>, seconds: &[i64]) -> Report {
    let web = "registry.example.com/shop/api:web";
    let spec = Spec {
        gates,
        ..spec(&[("web", web)], None)
    };
    let mut replay = Replay::new(spec, at(0));
    replay.set_busy(busy);
    replay.apply(&change(-100, "web", 1));
    replay.adopt();
    for (place, second) in seconds.iter().enumerate() {
        while replay.tick(at(*second)) {}
        replay.apply(&change(*second, "web", u8::try_from(place + 2).unwrap()));
        replay.at(at(*second));
    }
    while replay.tick(at(1000)) {}
    replay.end(at(1000))
}

fn begins(report: &Report) -> Vec<i64> {
    rollouts(report).into_iter().map(|one| one.0).collect()
}

#[test]
fn a_gap_spaces_rollouts_and_the_sets_between_give_way() {
    let gates = Settings {
        gap: Some(Duration::from_secs(60)),
        ..Settings::default()
    };
    let report = gated(gates, Vec::new(), &[10, 20, 30, 200]);
    assert_eq!(begins(&report), [10, 70, 200]);
    assert_eq!((report.gave_way, report.count), (1, 3));
    assert_eq!(report.held["gap"], Duration::from_secs(50));
    assert_eq!(report.rollouts[1].held["gap"], Duration::from_secs(50));
    let summary = report.summary();
    assert!(
        summary.contains("held 50 s by gap; 1 held rollout gave way"),
        "{summary}"
    );
}

#[test]
fn a_window_holds_rollouts_in_its_zone_and_the_last_one_at_the_end() {
    let window = |open: &str, zone: &str| {
        let written: WindowSettings =
            toml::from_str(&format!("open = [\"{open}\"]\nzone = \"{zone}\"")).unwrap();
        let zone = crate::window::TimeZone::get(zone).unwrap();
        Settings {
            window: Some(written.compile(zone).unwrap()),
            ..Settings::default()
        }
    };
    // 1970-01-01 00:05 UTC is 05:35 in Kolkata.
    let report = gated(
        window("05:35-06:00", "Asia/Kolkata"),
        Vec::new(),
        &[10, 20, 400],
    );
    assert_eq!(begins(&report), [300, 400]);
    assert_eq!(report.held["window"], Duration::from_secs(290));
    assert!(report.waits.is_none());
    let held = gated(window("05:35-06:00", "UTC"), Vec::new(), &[10]);
    assert_eq!(
        (held.count, held.waits.unwrap().gates[0].gate),
        (0, Gate::Window)
    );
}

#[test]
fn a_group_waits_for_the_recorded_rollouts_of_others() {
    let gates = Settings {
        group: Some("db".to_owned()),
        ..Settings::default()
    };
    let busy = |from, until| Busy {
        trigger: "blog".to_owned(),
        from: at(from),
        until: at(until),
    };
    // Nothing announces the end: the gate is looked at again after growing pauses.
    let report = gated(gates, vec![busy(500, 520), busy(5, 40)], &[10, 100, 510]);
    let begins = begins(&report);
    assert!(
        (40..46).contains(&begins[0]) && begins[1] == 100,
        "{begins:?}"
    );
    assert!((520..526).contains(&begins[2]), "{begins:?}");
}

#[test]
fn rollouts_that_wait_for_approval_are_marked_until_the_approval_ends() {
    let approvals = |by: &[&str]| Settings {
        approvals: Some(Approvals {
            needs: 2,
            by: by.iter().map(|one| (*one).to_owned()).collect(),
            within: Some(Duration::from_secs(100)),
        }),
        ..Settings::default()
    };
    let report = gated(approvals(&["release-*"]), Vec::new(), &[10, 20]);
    assert_eq!((begins(&report), report.approvals), (vec![10, 20], 2));
    assert!(
        report
            .rollouts
            .iter()
            .all(|one| one.approval_at == Some(one.at))
    );
    assert!(
        report.summary().contains("; 2 wait for approval;"),
        "{}",
        report.summary()
    );
    // One person can't give two approvals.
    let alone = gated(approvals(&["ann"]), Vec::new(), &[10]);
    assert_eq!(
        (alone.count, alone.waits.unwrap().gates[0].gate),
        (0, Gate::Approval)
    );
}

#[test]
fn without_images_at_the_begin_the_trigger_starts_as_its_settings_say() {
    let web = "registry.example.com/shop/api:web";
    let api = "semver = \"*\"\nmin_age = \"100s\"";
    let started = |start, changes: &[Change]| {
        let spec = Spec {
            start,
            ..spec(&[("api", api), ("web", web)], None)
        };
        replay(spec, changes, 500)
    };
    // The version is old enough only after the begin, and was there before.
    let before = [change(-50, "1.0.0", 1), change(-10, "web", 2)];
    let kinds =
        |report: &Report| -> Vec<Kind> { rollouts(report).into_iter().map(|one| one.2).collect() };
    assert_eq!(kinds(&started(Start::Now, &before)), [Kind::Start]);
    assert_eq!(kinds(&started(Start::Next, &before)), [Kind::Adopted]);
    let paused = started(Start::Paused, &before);
    assert_eq!((paused.count, paused.paused), (0, true));
    assert!(
        paused.summary().ends_with("nobody resumes it"),
        "{}",
        paused.summary()
    );
    let later = [change(-500, "1.0.0", 1), change(10, "web", 2)];
    assert_eq!(kinds(&started(Start::Next, &later)), [Kind::Start]);

    // The target, whose images decide, is not asked: the rollout is there, with a reservation.
    let adopt = started(Start::Adopt, &before);
    assert_eq!((kinds(&adopt), adopt.unreported), (vec![Kind::Start], true));
    let why = adopt.rollouts[0].cause.not_adopted.as_deref();
    assert!(
        why.is_some_and(|why| why.contains("does not ask")),
        "{why:?}"
    );
    assert_eq!(
        adopt.summary(),
        "1 rollout (the first one); held 50 s by min_age; 0 images never lasted 100 s; \
         0 downgrades (0 prevented); the first one only if the target runs other images"
    );
    assert!(!started(Start::Now, &before).unreported);
}

#[test]
fn a_relative_rule_follows_its_last_selection() {
    let policy = "semver = { within = \"minor\", from = \"1.2.3\" }";
    let changes = [
        change(-5, "1.2.3", 1),
        change(10, "1.3.0", 2),
        change(20, "1.2.4", 3),
        change(30, "2.0.0", 4),
    ];
    let report = replay(spec(&[("api", policy)], None), &changes, 100);
    let tags: Vec<String> = rollouts(&report).into_iter().map(|one| one.1).collect();
    assert_eq!(tags, ["1.3.0"]);
}
