use tagtrail_proto::{Digest, Image};

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

/// The facts of a rollout of the images 2 that nobody ordered.
fn facts<'a>(images: &'a BTreeMap<String, RolloutImage>, holds: &'a [Hold]) -> Facts<'a> {
    Facts {
        now: NOW,
        images,
        begun: false,
        ordered: false,
        skip: &[],
        known: false,
        holds,
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
    assert_eq!((both.opens_at, both.again), (None, Some(at(50))));
}

/// The column *order* of each gate: which orders pass.
#[test]
fn orders_pass_the_gates_that_the_table_names() {
    let images = images(2);
    let hard = Hold {
        hard: true,
        ..hold(HoldKind::Freeze)
    };
    for (gate, holds, known_passes, skip_passes) in [
        (Gate::Freeze, vec![hold(HoldKind::Freeze)], true, false),
        (
            Gate::Freeze,
            vec![hold(HoldKind::Freeze), hard],
            false,
            false,
        ),
        (Gate::Pin, vec![hold(HoldKind::Pin)], false, false),
        (Gate::Fault, vec![hold(HoldKind::Fault)], true, false),
    ] {
        let skip = [gate.as_str().to_owned()];
        let automatic = Facts {
            known: true,
            skip: &skip,
            ..facts(&images, &holds)
        };
        assert_eq!(closed(&automatic), [gate], "nobody ordered");
        let order = Facts {
            ordered: true,
            known: false,
            skip: &[],
            ..automatic.clone()
        };
        assert_eq!(closed(&order), [gate], "an order alone");
        let known = Facts {
            known: true,
            ..order.clone()
        };
        assert_eq!(closed(&known).is_empty(), known_passes, "{gate}: known");
        let skips = Facts {
            skip: &skip,
            ..order
        };
        assert_eq!(closed(&skips).is_empty(), skip_passes, "{gate}: skip");
    }
}
