//! The rule that judges the facts about a trigger. Pure.

use std::collections::BTreeMap;

use tagtrail_proto::{
    CauseReason, Condition, Reason, ReasonCode, Rollout, RolloutImage, RolloutState, Waiting,
};
use time::{Duration, OffsetDateTime};

use crate::facts::{Facts, Unloaded, Wanted};
use crate::hold::{Hold, HoldKind};
use crate::resumption::Resumption;

/// The time for which a due attempt may wait for its begin without a reason.
const DUE: Duration = Duration::seconds(2);

/// The standing of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The condition.
    pub condition: Condition,
    /// The reasons, those about the whole trigger first.
    pub reasons: Vec<Reason>,
    /// The set that the trigger wants; `None` if an image stands for no digest: a reason names it.
    pub wanted: Option<BTreeMap<String, RolloutImage>>,
}

/// Judges the facts about a trigger.
#[must_use]
pub fn judge(facts: &Facts) -> Judged {
    let reasons = reasons(facts);
    let wanted = match &facts.wanted {
        Wanted::Nothing => None,
        Wanted::Set(images) => Some(images.clone()),
        Wanted::Last => facts.last.as_ref().map(|last| last.images.clone()),
    };
    Judged {
        condition: condition(facts, &reasons),
        reasons,
        wanted,
    }
}

fn condition(facts: &Facts, reasons: &[Reason]) -> Condition {
    use RolloutState::{AwaitingApproval, Failed, Held, Pending, Running, Watching};
    let state = facts.last.as_ref().map(|last| last.state);
    let error = facts.last.as_ref().and_then(|last| last.error.as_ref());
    if !facts.configured {
        return Condition::Removed;
    }
    if facts.broken {
        return Condition::Broken;
    }
    if facts.paused.is_some() {
        return Condition::Paused;
    }
    if state == Some(Failed) || state == Some(Running) && error.is_some() {
        return Condition::Failing;
    }
    let has = |codes: &[ReasonCode]| reasons.iter().any(|one| codes.contains(&one.code));
    if has(&[ReasonCode::OtherGeneration]) && matches!(state, Some(Pending | Running | Watching)) {
        return Condition::Waiting;
    }
    let differs = facts.newer > 0 || matches!(facts.wanted, Wanted::Set(_));
    let attempted = facts.last.as_ref().is_some_and(|last| last.attempts > 0);
    if matches!(state, Some(Held | AwaitingApproval | Pending)) && !attempted {
        return match state {
            Some(Held) => Condition::Held,
            // A rollout of the pinned set is not held by its pin.
            _ if has(&[ReasonCode::Freeze, ReasonCode::Fault]) => Condition::Held,
            Some(Pending) => Condition::RollingOut,
            _ => Condition::Waiting,
        };
    }
    if matches!(state, Some(Pending | Running | Watching)) {
        return Condition::RollingOut;
    }
    if differs && has(&[ReasonCode::Pin]) || has(&[ReasonCode::Fault]) {
        return Condition::Held;
    }
    if facts.resuming {
        return Condition::RollingOut;
    }
    if reasons.iter().any(|one| holds_up(one.code)) {
        return Condition::Waiting;
    }
    // The planner has not looked at the newest heads yet.
    if differs && facts.wanted != Wanted::Nothing {
        return Condition::RollingOut;
    }
    Condition::Settled
}

/// Returns whether a trigger with this reason waits for something.
fn holds_up(code: ReasonCode) -> bool {
    use ReasonCode as Code;
    match code {
        Code::UnknownImage
        | Code::Deleted
        | Code::Tombstone
        | Code::NoCandidate
        | Code::MetadataWait
        | Code::NoAgreement
        | Code::Adopting
        | Code::Recheck
        | Code::Upstream
        | Code::Settle
        | Code::Manifest
        | Code::MinAge
        | Code::Window
        | Code::Gap
        | Code::Group
        | Code::Approval
        | Code::OtherGeneration => true,
        Code::Broken
        | Code::Pause
        | Code::Freeze
        | Code::Pin
        | Code::Fault
        | Code::Removed
        | Code::Retrying
        | Code::Failed
        | Code::Ended
        | Code::Slots
        | Code::Finish
        | Code::Ending
        | Code::Adopted => false,
    }
}

fn reasons(facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(broken(facts));
    reasons.extend(unloaded(facts));
    reasons.extend(paused(facts));
    reasons.extend(facts.holds.iter().map(|hold| held(hold, &facts.name)));
    reasons.extend(facts.last.as_ref().and_then(|last| attempted(facts, last)));
    reasons.extend(working(facts));
    // Gates decide about the present heads, which a paused trigger does not roll out.
    let gates = facts.waiting.iter().filter(|_| facts.paused.is_none());
    reasons.extend(gates.map(|gate| closed(gate, &facts.name)));
    for gate in facts.last.iter().flat_map(|last| &last.gates) {
        let code = ReasonCode::from(gate.gate);
        // A hold is shown as such, with the person and the cure.
        if reasons.iter().all(|one| one.code != code) {
            reasons.push(Reason {
                since: Some(gate.since),
                opens_at: gate.opens_at,
                cure: gate_cure(code, &facts.name),
                ..Reason::new(code, gate.why.clone())
            });
        }
    }
    for reason in &facts.reasons {
        let mut reason = reason.clone();
        let cure = image_cure(reason.code, &facts.name);
        reason.cure = reason.cure.or(cure);
        reasons.push(reason);
    }
    reasons.extend(facts.last.as_ref().and_then(|last| adopted(facts, last)));
    reasons
}

/// Returns a reason about the whole trigger.
fn whole(code: ReasonCode, why: String, since: Option<OffsetDateTime>, cure: String) -> Reason {
    Reason {
        code,
        image: None,
        why,
        since,
        opens_at: None,
        cure: Some(cure),
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map_or(String::new(), |reason| format!(": {reason}"))
}

fn broken(facts: &Facts) -> Option<Reason> {
    let problem = facts.problem.clone().unwrap_or_default();
    let cure = "correct the entry, which is read again by itself".to_owned();
    facts
        .broken
        .then(|| whole(ReasonCode::Broken, problem, None, cure))
}

/// Returns the reason of a trigger whose recorded settings no running process has.
fn unloaded(facts: &Facts) -> Option<Reason> {
    /// Most processes that are named.
    const NAMED: usize = 3;
    let Unloaded { since, processes } = facts.unloaded.as_ref()?;
    let named = processes
        .iter()
        .take(NAMED)
        .map(|one| match one.generation {
            Some(generation) => format!("process {} has {generation}", one.pid),
            None => format!("process {} has settings that are not recorded", one.pid),
        });
    let named: Vec<String> = named.collect();
    let more = match processes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let why = format!(
        "no running process of the trigger service has generation {}, so no attempt begins: {}{more}",
        facts.generation,
        named.join(", ")
    );
    let cure = "give all processes of the trigger service the same files, which they read again within seconds".to_owned();
    Some(whole(ReasonCode::OtherGeneration, why, Some(*since), cure))
}

fn paused(facts: &Facts) -> Option<Reason> {
    let pause = facts.paused.as_ref()?;
    let by = pause.by.as_ref();
    let by = by.map_or(String::new(), |by| format!(" by {by}"));
    let mut why = format!("paused{by}{}", because(pause.reason.as_deref()));
    match facts.newer {
        0 => {}
        1 => why += "; 1 image is newer",
        newer => why += &format!("; {newer} images are newer"),
    }
    let differs = facts.newer > 0 || matches!(facts.wanted, Wanted::Set(_));
    let after = Resumption::of(differs, facts.last.as_ref(), !facts.holds.is_empty());
    let cure = format!("`tagtrail resume {}` {after}", facts.name);
    Some(whole(ReasonCode::Pause, why, pause.at, cure))
}

fn held(hold: &Hold, name: &str) -> Reason {
    let Hold { id, actor, .. } = hold;
    let because = because(hold.reason.as_deref());
    let release = format!("`tagtrail release {name}` ends it");
    let (code, why, cure) = match hold.kind {
        HoldKind::Freeze => {
            let hard = if hold.hard { "hard " } else { "" };
            let why = format!("a {hard}freeze by {actor} is in force{because}");
            (
                ReasonCode::Freeze,
                why,
                format!("tagtrail thaw {id} ends it"),
            )
        }
        HoldKind::Pin => (
            ReasonCode::Pin,
            format!("pinned by {actor}{because}"),
            release,
        ),
        HoldKind::Fault => {
            let why = format!("held after a fault by {actor}{because}");
            (ReasonCode::Fault, why, release)
        }
    };
    let mut reason = whole(code, why, Some(hold.created_at), cure);
    reason.opens_at = hold.until;
    reason
}

/// Returns the reason of a closed gate.
fn closed(waiting: &Waiting, name: &str) -> Reason {
    Reason {
        code: waiting.gate.into(),
        image: Some(waiting.image.to_string()),
        why: waiting.why.clone(),
        since: Some(waiting.since),
        opens_at: waiting.opens_at,
        cure: gate_cure(waiting.gate.into(), name),
    }
}

/// Returns the remedy against a closed gate: one line for each.
fn gate_cure(gate: ReasonCode, name: &str) -> Option<String> {
    use ReasonCode as Code;
    match gate {
        Code::Recheck | Code::Manifest | Code::Window | Code::Upstream => {
            Some(skip(gate.as_str(), name))
        }
        Code::Settle | Code::Gap => Some(format!("`tagtrail rollout {name}` does not wait")),
        Code::Tombstone => Some("push the tag again".to_owned()),
        Code::Approval => Some("people must approve the images".to_owned()),
        Code::Pin | Code::Fault => Some(format!("`tagtrail release {name}` ends it")),
        Code::Freeze => {
            Some("`tagtrail holds` shows the freeze; `tagtrail thaw` ends it".to_owned())
        }
        Code::Pause => Some(format!("`tagtrail resume {name}`")),
        _ => None,
    }
}

fn skip(gate: &str, name: &str) -> String {
    format!("tagtrail rollout {name} --skip {gate} --reason R does not wait")
}

/// Returns the remedy against a reason of the planner about an image.
fn image_cure(code: ReasonCode, name: &str) -> Option<String> {
    match code {
        ReasonCode::UnknownImage => Some("push the image, or correct its name".to_owned()),
        ReasonCode::Deleted => Some("push the tag again".to_owned()),
        ReasonCode::Removed => {
            Some("push a higher tag, or set on_removed = \"fall-back\" of the image".to_owned())
        }
        ReasonCode::NoCandidate | ReasonCode::NoAgreement => Some(format!(
            "`tagtrail explain {name}` lists the best tags with their reasons"
        )),
        ReasonCode::Adopting => Some(format!(
            "make the target answer; `tagtrail rollout {name}` rolls the present images out without asking"
        )),
        ReasonCode::MinAge => {
            Some("wait until opens_at, or set a shorter min_age of the image".to_owned())
        }
        ReasonCode::Fault => Some(format!("`tagtrail release {name}` ends it")),
        _ => None,
    }
}

/// Returns the reason of a rollout whose last attempt failed.
fn attempted(facts: &Facts, last: &Rollout) -> Option<Reason> {
    let name = &facts.name;
    let error = last.error.as_deref();
    let (code, cure) = match last.state {
        RolloutState::Failed if facts.ended => (
            ReasonCode::Ended,
            format!("`tagtrail retry {name}` orders another attempt"),
        ),
        RolloutState::Failed => (
            ReasonCode::Failed,
            format!("`tagtrail retry {name}` makes the next attempt now"),
        ),
        RolloutState::Running if error.is_some() => (
            ReasonCode::Retrying,
            format!("`tagtrail retry {name}` makes the next attempt now"),
        ),
        _ => return None,
    };
    let attempts = last.attempts;
    let why = format!(
        "rollout {}: attempt {attempts} failed{}",
        last.number,
        because(error)
    );
    let mut reason = whole(code, why, facts.begun_at, cure);
    reason.opens_at = facts.next_attempt_at;
    Some(reason)
}

/// Returns the reason for which a due attempt does not begin.
fn working(facts: &Facts) -> Option<Reason> {
    let name = &facts.name;
    if let Some(open) = facts.open {
        let why = format!(
            "attempt {} at rollout {} is being ended",
            open.number, open.rollout
        );
        let cure = format!("`tagtrail attempts {name}` shows what the target said");
        let ending = whole(ReasonCode::Ending, why, Some(open.started_at), cure);
        return (!open.is_live).then_some(ending);
    }
    let due = facts.next_attempt_at?;
    let last = facts.last.as_ref()?;
    if let Some(number) = facts.finishes.filter(|_| facts.paused.is_none()) {
        let why =
            format!("waits for the result of rollout {number}, as concurrency = \"finish\" says");
        let cure = format!("`tagtrail rollout {name}` does not wait");
        return Some(whole(ReasonCode::Finish, why, Some(last.created_at), cure));
    }
    let waits = matches!(
        last.state,
        RolloutState::Pending | RolloutState::Running | RolloutState::Failed
    );
    let held = facts.paused.is_some() || !facts.holds.is_empty() || facts.broken;
    if !waits || held || facts.in_use == 0 || due + DUE > facts.now {
        return None;
    }
    let why = format!(
        "due, and {} attempts at targets of kind {} run: no slot is free",
        facts.in_use, facts.target
    );
    let setting = match facts.target.as_str() {
        "command" => "TAGTRAIL_COMMANDS",
        _ => "TAGTRAIL_ATTEMPTS",
    };
    let cure = format!("set {setting} of the trigger service higher, or start another one");
    Some(whole(ReasonCode::Slots, why, Some(due), cure))
}

fn adopted(facts: &Facts, last: &Rollout) -> Option<Reason> {
    let adopted =
        last.cause.reason == CauseReason::Adopted && last.state == RolloutState::Succeeded;
    let why = "the images were there before the trigger, and were never sent to the target";
    let cure = format!("`tagtrail rollout {}` sends them", facts.name);
    adopted.then(|| {
        let at = Some(last.created_at);
        whole(ReasonCode::Adopted, why.to_owned(), at, cure)
    })
}

#[cfg(test)]
mod tests;
