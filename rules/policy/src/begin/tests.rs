use tagtrail_proto::{Digest, Image};

use crate::window::{TimeZone, WindowSettings, Written};

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn at(second: i64) -> OffsetDateTime {
    NOW + time::Duration::seconds(second)
}

fn images(n: u8) -> BTreeMap<String, RolloutImage> {
    let image: Image = "registry.example.com/shop/web:latest".parse().unwrap();
    let digest = Digest::sha256_of(&[n]);
    let image = RolloutImage {
        pinned: image.pinned(&digest),
        revision: n.into(),
        digest,
        image,
        actor: None,
        previous: None,
    };
    BTreeMap::from([("web".to_owned(), image)])
}

fn hold(kind: HoldKind) -> Hold {
    Hold {
        kind,
        hard: false,
        actor: "ann".to_owned(),
        reason: Some("why".to_owned()),
        images: (kind == HoldKind::Pin).then(|| images(1)),
        until: None,
    }
}

/// A trigger without settings of gates.
static NONE: Settings = Settings {
    window: None,
    gap: None,
    group: None,
    approvals: None,
    follow: None,
};

/// The facts of a rollout that nobody ordered.
fn facts<'a>(images: &'a BTreeMap<String, RolloutImage>, holds: &'a [Hold]) -> Facts<'a> {
    Facts {
        now: NOW,
        images,
        begun: false,
        ordered: false,
        skip: &[],
        known: false,
        holds,
        settings: &NONE,
        last_begun: None,
        busy: None,
        approvals: &[],
        rejected: None,
    }
}

/// Settings of all gates: a window that is open on Fridays alone, and so from `at(86_400)` on.
fn settings() -> Settings {
    let window = WindowSettings {
        open: vec![Written::Text("fri".to_owned())],
        ..WindowSettings::default()
    };
    Settings {
        window: Some(window.compile(TimeZone::UTC).unwrap()),
        gap: Some(Duration::from_secs(60)),
        group: Some("db".to_owned()),
        approvals: Some(Approvals {
            needs: 2,
            by: vec!["release-*".to_owned()],
            within: Some(Duration::from_secs(3600)),
        }),
        follow: None,
    }
}

fn only(gate: Gate) -> Settings {
    let all = settings();
    Settings {
        window: all.window.filter(|_| gate == Gate::Window),
        gap: all.gap.filter(|_| gate == Gate::Gap),
        group: all.group.filter(|_| gate == Gate::Group),
        approvals: all.approvals.filter(|_| gate == Gate::Approval),
        follow: None,
    }
}

fn approval(actor: &str, second: i64) -> Approval {
    Approval {
        actor: actor.to_owned(),
        given_at: at(second),
    }
}

fn closed(facts: &Facts<'_>) -> Vec<Gate> {
    let verdict = evaluate(facts, &[]);
    verdict.gates.iter().map(|closed| closed.gate).collect()
}

#[test]
fn all_closed_gates_are_shown_in_the_order_of_the_table() {
    let holds = [HoldKind::Fault, HoldKind::Pin, HoldKind::Freeze].map(hold);
    let images = images(2);
    let verdict = evaluate(&facts(&images, &holds), &[]);
    let shown: Vec<_> = verdict
        .gates
        .iter()
        .map(|closed| (closed.gate, closed.why.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (Gate::Freeze, "frozen by ann: why"),
            (Gate::Pin, "pinned to other images by ann: why"),
            (Gate::Fault, "held after a fault by ann: why"),
        ]
    );
    assert_eq!(verdict.state, RolloutState::Held);
    assert_eq!(evaluate(&facts(&images, &[]), &[]), Verdict::OPEN);
}

#[test]
fn a_pin_holds_other_images_alone() {
    let holds = [hold(HoldKind::Pin)];
    assert_eq!(closed(&facts(&images(2), &holds)), [Gate::Pin]);
    assert_eq!(closed(&facts(&images(1), &holds)), []);
}

#[test]
fn a_gate_keeps_its_time_and_opens_with_its_last_hold() {
    let holds = [Some(at(50)), Some(at(20))].map(|until| Hold {
        until,
        ..hold(HoldKind::Freeze)
    });
    let images = images(2);
    let first = evaluate(&facts(&images, &holds), &[]);
    assert_eq!((first.opens_at, first.again), (Some(at(50)), Some(at(50))));
    let later = Facts {
        now: at(10),
        ..facts(&images, &holds)
    };
    assert_eq!(evaluate(&later, &first.gates), first);
    assert_eq!(evaluate(&later, &[]).gates[0].since, at(10));
    // Of several gates, one without a known end leaves the whole open.
    let holds = [holds[0].clone(), hold(HoldKind::Fault)];
    let both = evaluate(&facts(&images, &holds), &[]);
    let soon = at(0) + std::time::Duration::from_millis(500);
    assert_eq!((both.opens_at, both.again), (None, Some(soon)));
}

/// The column *order* of each gate: which orders pass.
#[test]
fn orders_pass_the_gates_that_the_table_names() {
    let images = images(2);
    let hard = Hold {
        hard: true,
        ..hold(HoldKind::Freeze)
    };
    // Gate, holds, and whether an order passes: any, for known images, with `skip`.
    let cells = [
        (
            Gate::Freeze,
            vec![hold(HoldKind::Freeze)],
            [false, true, false],
        ),
        (Gate::Freeze, vec![hold(HoldKind::Freeze), hard], [false; 3]),
        (Gate::Pin, vec![hold(HoldKind::Pin)], [false; 3]),
        (
            Gate::Fault,
            vec![hold(HoldKind::Fault)],
            [false, true, false],
        ),
        (Gate::Window, vec![], [false, true, true]),
        (Gate::Gap, vec![], [true; 3]),
        (Gate::Group, vec![], [false; 3]),
        (Gate::Approval, vec![], [false, true, false]),
    ];
    for row in TABLE {
        assert!(
            cells.iter().any(|(gate, ..)| *gate == row.gate),
            "{}",
            row.gate
        );
    }
    for (gate, holds, [any, known, skip]) in cells {
        let (settings, word) = (only(gate), [gate.as_str().to_owned()]);
        let automatic = Facts {
            known: true,
            skip: &word,
            settings: &settings,
            last_begun: Some(NOW),
            busy: Some("blog"),
            ..facts(&images, &holds)
        };
        assert_eq!(closed(&automatic), [gate], "nobody ordered");
        let order = Facts {
            ordered: true,
            known: false,
            skip: &[],
            ..automatic.clone()
        };
        let passes = |facts: &Facts<'_>| closed(facts).is_empty();
        assert_eq!(passes(&order), any, "{gate}: an order");
        let of_known = Facts {
            known: true,
            ..order.clone()
        };
        assert_eq!(passes(&of_known), known, "{gate}: known images");
        let skips = Facts {
            skip: &word,
            ..order
        };
        assert_eq!(passes(&skips), skip, "{gate}: --skip");
    }
}

#[test]
fn a_window_holds_further_attempts_too_and_closes_at_its_end() {
    let (images, settings) = (images(2), only(Gate::Window));
    let state = |second, begun| {
        let facts = Facts {
            now: at(second),
            begun,
            settings: &settings,
            ..facts(&images, &[])
        };
        let verdict = evaluate(&facts, &[]);
        (verdict.state, verdict.opens_at, verdict.closes_at)
    };
    let day = 86_400;
    let (held, open) = (RolloutState::Held, RolloutState::Pending);
    for begun in [false, true] {
        assert_eq!(state(5, begun), (held, Some(at(day)), Some(at(5))));
        assert_eq!(state(day, begun), (open, None, Some(at(2 * day))));
    }
    // An order that passes the gate is not bound by its end.
    let order = Facts {
        now: at(day),
        ordered: true,
        known: true,
        settings: &settings,
        ..facts(&images, &[])
    };
    assert_eq!(evaluate(&order, &[]), Verdict::OPEN);
}

#[test]
fn gap_group_and_approval_hold_the_first_attempt_alone() {
    let images = images(2);
    for gate in [Gate::Gap, Gate::Group, Gate::Approval] {
        let settings = only(gate);
        let facts = Facts {
            settings: &settings,
            last_begun: Some(NOW),
            busy: Some("blog"),
            ..facts(&images, &[])
        };
        assert_eq!(closed(&facts), [gate]);
        let begun = Facts {
            begun: true,
            ..facts
        };
        assert_eq!(closed(&begun), []);
    }
}

#[test]
fn the_gap_counts_from_the_begin_of_the_last_rollout() {
    let (images, settings) = (images(2), only(Gate::Gap));
    for (now, last_begun, opens_at) in [
        (NOW, None, None),
        (NOW, Some(at(-20)), Some(at(40))),
        (NOW, Some(at(-60)), None),
    ] {
        let facts = Facts {
            now,
            last_begun,
            settings: &settings,
            ..facts(&images, &[])
        };
        assert_eq!(evaluate(&facts, &[]).opens_at, opens_at);
    }
}

#[test]
fn a_gate_without_a_known_opening_is_looked_at_again_after_growing_pauses() {
    let (images, settings) = (images(2), only(Gate::Group));
    let mut verdict = Verdict::OPEN;
    for (second, pause) in [(0, 500), (8, 2000), (3600, 5000)] {
        let facts = Facts {
            now: at(second),
            busy: Some("blog"),
            settings: &settings,
            ..facts(&images, &[])
        };
        verdict = evaluate(&facts, &verdict.gates);
        let again = verdict.again.unwrap() - at(second);
        assert_eq!(again.whole_milliseconds(), pause);
    }
    assert_eq!(verdict.gates[0].why, "blog of the group db is rolled out");
}

#[test]
fn approvals_count_once_for_each_person_who_may_give_them_and_for_their_time() {
    let (images, settings) = (images(2), only(Gate::Approval));
    let verdict = |now, approvals: &[Approval]| {
        let facts = Facts {
            now,
            settings: &settings,
            approvals,
            ..facts(&images, &[])
        };
        evaluate(&facts, &[])
    };
    let few = [
        approval("release-ann", 0),
        approval("release-ann", 10),
        approval("bob", 20),
    ];
    let waits = verdict(at(30), &few);
    assert_eq!(waits.state, RolloutState::AwaitingApproval);
    assert_eq!(waits.gates[0].why, "1 of 2 approvals by release-*");
    let enough = [few.as_slice(), &[approval("release-cat", 30)]].concat();
    let approved = verdict(at(40), &enough);
    assert_eq!(approved.state, RolloutState::Pending);
    // The first of the two that count ends an hour later; attempts go on.
    assert_eq!((approved.again, approved.closes_at), (Some(at(3610)), None));
    let ended = verdict(at(3610), &enough);
    assert_eq!(ended.state, RolloutState::AwaitingApproval);
    // Together with another closed gate the rollout is held.
    let holds = [hold(HoldKind::Freeze)];
    let frozen = Facts {
        settings: &settings,
        ..facts(&images, &holds)
    };
    assert_eq!(evaluate(&frozen, &[]).state, RolloutState::Held);
}

#[test]
fn a_rejection_ends_a_rollout_that_has_not_begun() {
    let images = images(2);
    let rejected = Facts {
        rejected: Some("rejected by ann: no"),
        ..facts(&images, &[])
    };
    let verdict = evaluate(&rejected, &[]);
    assert_eq!(verdict.state, RolloutState::Rejected);
    assert_eq!(verdict.rejected.as_deref(), Some("rejected by ann: no"));
    let begun = Facts {
        begun: true,
        ..rejected
    };
    assert_eq!(evaluate(&begun, &[]), Verdict::OPEN);
}
