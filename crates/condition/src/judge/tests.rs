//! The conditions and reasons of example triggers.

use serde_json::json;

use super::*;
use tagtrail_proto::{ClosedGate, Gate};

use crate::facts::{Elsewhere, OpenAttempt, Pause, Unloaded};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const WEB: &str = "registry.example.com/shop/web:latest";

/// A trigger whose last rollout has succeeded.
fn settled() -> Facts {
    Facts {
        id: 1,
        name: "shop".to_owned(),
        configured: true,
        images: BTreeMap::from([("web".to_owned(), WEB.to_owned())]),
        policies: BTreeMap::new(),
        selections: BTreeMap::new(),
        gate_settings: serde_json::Map::new(),
        target: "webhook".to_owned(),
        broken: false,
        problem: None,
        stale: false,
        generation: 4,
        door: Some("file".to_owned()),
        labels: BTreeMap::new(),
        unloaded: None,
        paused: None,
        resuming: false,
        current: Some(rollout("succeeded")),
        last: Some(rollout("succeeded")),
        ended: false,
        next_attempt_at: None,
        begun_at: Some(NOW),
        open: None,
        in_use: 0,
        finishes: None,
        newer: 0,
        waiting: Vec::new(),
        wanted: Wanted::Last,
        reasons: Vec::new(),
        holds: Vec::new(),
        now: NOW,
    }
}

fn rollout(state: &str) -> Rollout {
    let attempts = u32::from(!matches!(state, "held" | "awaiting_approval" | "pending"));
    let digest = format!("sha256:{}", "a".repeat(64));
    serde_json::from_value(json!({
        "id": "018f2a6c-8e0b-7cc0-8000-000000000001", "trigger": "shop", "number": 7, "state": state,
        "images": { "web": {
            "image": WEB, "revision": 3, "digest": digest, "pinned": format!("registry.example.com/shop/web@{digest}"),
        } },
        "cause": { "reason": "revision", "changed": ["web"] }, "attempts": attempts,
        "created_at": "1970-01-01T00:00:00Z", "finished_at": null,
        "error": (state == "failed").then_some("the target said no"),
    }))
    .unwrap()
}

fn of_image(code: ReasonCode) -> Reason {
    Reason {
        code,
        image: Some(WEB.to_owned()),
        why: "so it is".to_owned(),
        since: Some(NOW),
        opens_at: None,
        cure: None,
    }
}

fn hold(kind: HoldKind) -> Hold {
    Hold {
        id: 5,
        kind,
        triggers: "shop".to_owned(),
        reason: Some("incident".to_owned()),
        hard: false,
        images: None,
        actor: "ann".to_owned(),
        created_at: NOW,
        until: Some(NOW + Duration::HOUR),
    }
}

fn gate(gate: Gate) -> Waiting {
    Waiting {
        gate,
        image: WEB.parse().unwrap(),
        registry: "registry.example.com".parse().unwrap(),
        why: "so it is".to_owned(),
        since: NOW,
        opens_at: Some(NOW + Duration::SECOND),
    }
}

/// Returns the condition, and the codes of the reasons.
fn judged(change: impl FnOnce(&mut Facts)) -> (Condition, Vec<ReasonCode>) {
    let mut facts = settled();
    change(&mut facts);
    let judged = judge(&facts);
    for reason in &judged.reasons {
        assert!(!reason.why.is_empty(), "{reason:?}");
    }
    let codes = judged.reasons.iter().map(|one| one.code).collect();
    (judged.condition, codes)
}

#[test]
fn a_trigger_at_its_wanted_set_is_settled_without_a_reason() {
    assert_eq!(judged(|_| {}), (Condition::Settled, vec![]));
    let new = judged(|facts| (facts.last, facts.current) = (None, None));
    assert_eq!(new, (Condition::Settled, vec![]));
}

#[test]
fn the_first_condition_that_applies_is_shown_and_all_reasons() {
    type Step = fn(&mut Facts);
    let mut steps: Vec<(Step, Condition, Option<ReasonCode>)> = vec![
        (
            |facts| facts.waiting = vec![gate(Gate::Recheck)],
            Condition::Waiting,
            Some(ReasonCode::Recheck),
        ),
        (
            |facts| facts.last = Some(rollout("pending")),
            Condition::RollingOut,
            None,
        ),
        (
            |facts| facts.holds = vec![hold(HoldKind::Freeze)],
            Condition::Held,
            Some(ReasonCode::Freeze),
        ),
        (
            |facts| facts.last = Some(rollout("failed")),
            Condition::Failing,
            Some(ReasonCode::Failed),
        ),
        (
            |facts| facts.broken = true,
            Condition::Broken,
            Some(ReasonCode::Broken),
        ),
        (|facts| facts.configured = false, Condition::Removed, None),
    ];
    let mut facts = settled();
    let mut codes = Vec::new();
    for (step, condition, code) in steps.drain(..) {
        step(&mut facts);
        codes.extend(code);
        let judged = judge(&facts);
        assert_eq!(judged.condition, condition);
        let shown: Vec<ReasonCode> = judged.reasons.iter().map(|one| one.code).collect();
        assert!(
            codes.iter().all(|code| shown.contains(code)),
            "{codes:?} {shown:?}"
        );
    }
}

#[test]
fn each_reason_about_an_image_or_a_gate_has_its_condition_and_a_cure() {
    for code in [
        ReasonCode::UnknownImage,
        ReasonCode::Deleted,
        ReasonCode::NoCandidate,
        ReasonCode::NoAgreement,
        ReasonCode::MinAge,
    ] {
        let mut facts = settled();
        facts.reasons = vec![of_image(code)];
        facts.wanted = Wanted::Nothing;
        let judged = judge(&facts);
        assert_eq!(judged.condition, Condition::Waiting, "{code}");
        assert!(judged.reasons[0].cure.is_some(), "{code}");
        assert_eq!(judged.wanted, None);
    }
    let removed = judged(|facts| facts.reasons = vec![of_image(ReasonCode::Removed)]);
    assert_eq!(removed, (Condition::Settled, vec![ReasonCode::Removed]));
    for closed in Gate::ALL {
        let (_, codes) = judged(|facts| facts.waiting = vec![gate(*closed)]);
        assert_eq!(codes, [ReasonCode::from(*closed)]);
        let held = judged(|facts| {
            let mut last = rollout("held");
            let Waiting { why, since, .. } = gate(*closed);
            let opens_at = None;
            last.gates = vec![ClosedGate {
                gate: *closed,
                why,
                since,
                opens_at,
            }];
            facts.last = Some(last);
        });
        assert_eq!(held, (Condition::Held, vec![ReasonCode::from(*closed)]));
    }
    for closed in [Gate::Recheck, Gate::Manifest, Gate::Settle, Gate::Tombstone] {
        let waiting = judged(|facts| facts.waiting = vec![gate(closed)]);
        assert_eq!(waiting.0, Condition::Waiting, "{closed}");
    }
}

#[test]
fn a_pause_hides_the_gates_and_names_the_person() {
    let mut facts = settled();
    facts.waiting = vec![gate(Gate::Settle)];
    facts.newer = 2;
    facts.paused = Some(Pause {
        by: Some("ann".to_owned()),
        at: Some(NOW),
        reason: Some("move".to_owned()),
    });
    let judged = judge(&facts);
    assert_eq!(judged.condition, Condition::Paused);
    let [reason] = judged.reasons.as_slice() else {
        panic!("{judged:?}")
    };
    assert_eq!(
        (reason.code, reason.why.as_str(), reason.since),
        (
            ReasonCode::Pause,
            "paused by ann: move; 2 images are newer",
            Some(NOW)
        )
    );
}

#[test]
fn the_cure_of_a_pause_names_the_effect_of_a_resume() {
    let cure = |change: fn(&mut Facts)| {
        let mut facts = settled();
        facts.paused = Some(Pause {
            by: None,
            at: None,
            reason: None,
        });
        change(&mut facts);
        let reasons = judge(&facts).reasons;
        let paused = reasons.iter().find(|one| one.code == ReasonCode::Pause);
        paused.and_then(|one| one.cure.clone()).unwrap()
    };
    let with = |effect: &str| format!("`tagtrail resume shop` {effect}");
    let nothing = with("starts nothing: the last rollout has the present images");
    assert_eq!(cure(|_| {}), nothing);
    let out = with("rolls the present images out");
    assert_eq!(cure(|facts| facts.newer = 1), out);
    assert_eq!(cure(|facts| facts.last = None), out);
    let other = |facts: &mut Facts| facts.wanted = Wanted::Set(BTreeMap::new());
    assert_eq!(cure(other), out);
    let again = with("sends the images of #7 again");
    assert_eq!(cure(|facts| facts.last = Some(rollout("failed"))), again);
    let adopted = |facts: &mut Facts| {
        let mut last = rollout("succeeded");
        last.cause.reason = CauseReason::Adopted;
        facts.last = Some(last);
    };
    assert_eq!(cure(adopted), again);
    let goes_on = with("lets #7 go on");
    assert_eq!(cure(|facts| facts.last = Some(rollout("running"))), goes_on);
    let held = with("starts nothing before the hold ends");
    let pinned = |facts: &mut Facts| {
        facts.newer = 1;
        facts.holds = vec![hold(HoldKind::Pin)];
    };
    assert_eq!(cure(pinned), held);
}

#[test]
fn holds_matter_where_something_is_held() {
    for (kind, code) in [
        (HoldKind::Freeze, ReasonCode::Freeze),
        (HoldKind::Pin, ReasonCode::Pin),
    ] {
        let nothing = judged(|facts| facts.holds = vec![hold(kind)]);
        assert_eq!(nothing, (Condition::Settled, vec![code]));
    }
    let fault = judged(|facts| facts.holds = vec![hold(HoldKind::Fault)]);
    assert_eq!(fault, (Condition::Held, vec![ReasonCode::Fault]));
    let frozen = judged(|facts| {
        facts.holds = vec![hold(HoldKind::Freeze)];
        facts.last = Some(rollout("held"));
    });
    assert_eq!(frozen.0, Condition::Held);
    // A pin does not hold a rollout of the pinned set.
    let pinned = judged(|facts| {
        facts.holds = vec![hold(HoldKind::Pin)];
        facts.last = Some(rollout("pending"));
    });
    assert_eq!(pinned.0, Condition::RollingOut);
    let newer = judged(|facts| {
        facts.holds = vec![hold(HoldKind::Pin)];
        facts.wanted = Wanted::Set(rollout("pending").images);
    });
    assert_eq!(newer.0, Condition::Held);
    let reason = &judge(&Facts {
        holds: vec![hold(HoldKind::Freeze)],
        ..settled()
    })
    .reasons[0];
    assert_eq!(reason.opens_at, Some(NOW + Duration::HOUR));
    assert_eq!(reason.cure.as_deref(), Some("tagtrail thaw 5 ends it"));
}

#[test]
fn attempts_are_shown_with_the_answer_and_the_next_one() {
    let failing = |state: &str, ended: bool| {
        let mut facts = settled();
        let mut last = rollout(state);
        last.error = Some("the target said no".to_owned());
        (facts.last, facts.ended) = (Some(last), ended);
        facts.next_attempt_at = (!ended).then_some(NOW + Duration::MINUTE);
        judge(&facts)
    };
    for (state, ended, code) in [
        ("running", false, ReasonCode::Retrying),
        ("failed", false, ReasonCode::Failed),
        ("failed", true, ReasonCode::Ended),
    ] {
        let judged = failing(state, ended);
        assert_eq!(judged.condition, Condition::Failing);
        let reason = &judged.reasons[0];
        assert_eq!(reason.code, code);
        assert_eq!(
            reason.why,
            "rollout 7: attempt 1 failed: the target said no"
        );
        assert_eq!(reason.opens_at.is_none(), ended);
        let cure = reason.cure.as_deref().unwrap();
        assert!(cure.contains("tagtrail retry shop"), "{cure}");
    }
}

#[test]
fn a_due_attempt_that_does_not_begin_waits_for_a_slot_or_for_an_end() {
    let due = |in_use: u32, since: Duration| {
        judged(|facts| {
            facts.last = Some(rollout("pending"));
            facts.next_attempt_at = Some(NOW - since);
            facts.in_use = in_use;
        })
    };
    assert_eq!(
        due(64, Duration::SECOND * 5),
        (Condition::RollingOut, vec![ReasonCode::Slots])
    );
    assert_eq!(due(64, Duration::SECOND), (Condition::RollingOut, vec![]));
    assert_eq!(
        due(0, Duration::SECOND * 5),
        (Condition::RollingOut, vec![]),
        "no attempt runs"
    );
    let open = |is_live| {
        judged(|facts| {
            facts.last = Some(rollout("pending"));
            facts.open = Some(OpenAttempt {
                rollout: 6,
                number: 1,
                started_at: NOW,
                is_live,
            });
        })
    };
    assert_eq!(
        open(false),
        (Condition::RollingOut, vec![ReasonCode::Ending])
    );
    assert_eq!(open(true), (Condition::RollingOut, vec![]));
}

#[test]
fn a_trigger_is_not_settled_before_the_planner_has_looked() {
    let resumed = judged(|facts| facts.resuming = true);
    assert_eq!(resumed, (Condition::RollingOut, vec![]));
    let newer = judged(|facts| facts.newer = 1);
    assert_eq!(newer, (Condition::RollingOut, vec![]));
}

#[test]
fn an_adopted_set_is_settled_and_shown() {
    let adopted = judged(|facts| {
        let mut last = rollout("succeeded");
        last.cause.reason = CauseReason::Adopted;
        facts.last = Some(last);
    });
    assert_eq!(adopted, (Condition::Settled, vec![ReasonCode::Adopted]));
}

#[test]
fn settings_that_no_process_has_make_the_trigger_wait() {
    let unloaded = |facts: &mut Facts| {
        let process = |pid, generation| Elsewhere { pid, generation };
        facts.unloaded = Some(Unloaded {
            since: NOW,
            processes: vec![process(7, Some(3)), process(8, None)],
        });
    };
    let expected = (Condition::Waiting, vec![ReasonCode::OtherGeneration]);
    assert_eq!(judged(unloaded), expected);
    for state in ["pending", "running", "watching"] {
        let live = judged(|facts| {
            unloaded(facts);
            facts.last = Some(rollout(state));
        });
        assert_eq!(live, expected, "{state}");
    }
    let mut facts = settled();
    unloaded(&mut facts);
    let why = judge(&facts).reasons[0].why.clone();
    assert!(
        why.contains("generation 4") && why.contains("process 7 has 3, process 8 has settings"),
        "{why}"
    );
}
