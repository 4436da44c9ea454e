//! Events as they may be, to try a template or a receiver with.

use std::collections::BTreeMap;

use tagtrail_config::NotifyOn;
use tagtrail_proto::{Cause, CauseReason, Digest, Image, Rollout, RolloutImage, RolloutState};
use tagtrail_proto::{Condition, ConditionChange, Held, HoldChange, Reason, ReasonCode};
use time::OffsetDateTime;

/// Returns the body of an event about this trigger, as of now.
pub(super) fn event(on: NotifyOn, trigger: &str) -> Result<Vec<u8>, String> {
    let now = OffsetDateTime::now_utc();
    let body = match on {
        NotifyOn::Rollout(state) => serde_json::to_vec(&rollout(state, trigger, now)?.event(now)),
        NotifyOn::Hold => serde_json::to_vec(&hold(trigger, now).event(now)),
        NotifyOn::Condition(is) => serde_json::to_vec(&condition(is, trigger).event(now)),
    };
    body.map_err(|error| error.to_string())
}

fn condition(condition: Condition, trigger: &str) -> ConditionChange {
    let code = match condition {
        Condition::Broken => ReasonCode::Broken,
        Condition::Paused => ReasonCode::Pause,
        Condition::Failing => ReasonCode::Retrying,
        Condition::Held => ReasonCode::Fault,
        Condition::Waiting => ReasonCode::Settle,
        Condition::Removed | Condition::RollingOut | Condition::Settled => ReasonCode::Adopted,
    };
    let why = "this is a sample by `tagtrail notify test`: no trigger has changed".to_owned();
    ConditionChange {
        trigger: trigger.to_owned(),
        condition,
        before: Some(match condition {
            Condition::Settled => Condition::RollingOut,
            _ => Condition::Settled,
        }),
        reasons: vec![Reason::new(code, why)],
    }
}

fn hold(trigger: &str, now: OffsetDateTime) -> Held {
    Held {
        id: 1,
        change: HoldChange::Set,
        kind: "freeze".to_owned(),
        triggers: trigger.to_owned(),
        reason: Some("this is a sample by `tagtrail notify test`: nothing is frozen".to_owned()),
        hard: false,
        actor: "sample".to_owned(),
        released_by: None,
        created_at: now,
        until: None,
    }
}

fn rollout(state: RolloutState, trigger: &str, now: OffsetDateTime) -> Result<Rollout, String> {
    let digest = Digest::sha256_of(b"a sample");
    let image: Image = "registry.example.com/shop/web:1.4.0"
        .parse()
        .map_err(|_| "the sample has no image".to_owned())?;
    let image = RolloutImage {
        revision: 1,
        pinned: image.pinned(&digest),
        digest,
        image,
        actor: None,
        previous: None,
    };
    let error = (state == RolloutState::Failed)
        .then(|| "this is a sample by `tagtrail notify test`: nothing has failed".to_owned());
    Ok(Rollout {
        id: uuid::Uuid::now_v7().to_string(),
        trigger: trigger.to_owned(),
        number: 1,
        epoch: OffsetDateTime::UNIX_EPOCH,
        state,
        images: BTreeMap::from([("web".to_owned(), image)]),
        cause: Cause {
            reason: CauseReason::Revision,
            changed: vec!["web".to_owned()],
            not_adopted: None,
        },
        attempts: 1,
        created_at: now,
        finished_at: None,
        error,
        gates: Vec::new(),
        opens_at: None,
    })
}
