//! An event of ROLLOUTS, and the content of a message about it.

use serde_json::{Value, json};
use tagtrail_proto::{
    Condition, ConditionChange, Event, Held, HoldChange, Rollout, RolloutState, clean_text,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most images, most closed gates and most reasons that a message shows.
const IMAGES: usize = 8;
const GATES: usize = 2;
const REASONS: usize = 3;
/// Most bytes of one fact, and of the text.
const FACT: usize = 300;
const TEXT: usize = 1000;

/// An event that makes a message.
#[derive(Debug)]
pub(super) enum Told {
    /// A rollout has reached a state.
    Rollout(Box<Event<Rollout>>),
    /// A freeze, a pin or a fault has changed.
    Hold(Box<Event<Held>>),
    /// The condition of a trigger has changed.
    Condition(Box<Event<ConditionChange>>),
}

/// The content of a message, for people. All texts are within bounds; characters that control a
/// terminal or hide others are replaced.
#[derive(Debug)]
pub(super) struct Notice {
    /// The trigger, and its state.
    pub(super) title: String,
    pub(super) tone: Tone,
    pub(super) facts: Vec<(String, String)>,
    /// The error or the reason.
    pub(super) text: Option<String>,
    pub(super) time: OffsetDateTime,
}

/// The kind of the news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Bad,
    Waits,
    Good,
    Plain,
}

impl Told {
    /// Reads the body of a message in ROLLOUTS.
    pub(super) fn read(payload: &[u8]) -> Result<Told, String> {
        /// The field that names the kind of an event.
        #[derive(serde::Deserialize)]
        struct Typed {
            r#type: String,
        }
        let read = || -> serde_json::Result<Option<Told>> {
            let Typed { r#type } = serde_json::from_slice(payload)?;
            Ok(match r#type.as_str() {
                Rollout::TYPE => Some(Told::Rollout(serde_json::from_slice(payload)?)),
                Held::TYPE => Some(Told::Hold(serde_json::from_slice(payload)?)),
                ConditionChange::TYPE => Some(Told::Condition(serde_json::from_slice(payload)?)),
                _ => None,
            })
        };
        let read = read().map_err(|error| error.to_string())?;
        read.ok_or_else(|| "it is of an unknown type".to_owned())
    }

    /// Returns the id of the event.
    pub(super) fn id(&self) -> &str {
        match self {
            Told::Rollout(event) => &event.id,
            Told::Hold(event) => &event.id,
            Told::Condition(event) => &event.id,
        }
    }

    pub(super) fn time(&self) -> OffsetDateTime {
        match self {
            Told::Rollout(event) => event.time,
            Told::Hold(event) => event.time,
            Told::Condition(event) => event.time,
        }
    }

    /// Returns the id of the rollout that has failed.
    pub(super) fn failed_rollout(&self) -> Option<&str> {
        match self {
            Told::Rollout(event) => {
                let failed = event.data.state == RolloutState::Failed;
                failed.then_some(event.data.id.as_str())
            }
            Told::Hold(_) | Told::Condition(_) => None,
        }
    }

    /// Returns the values of a template, as the data of an event: the fields of the event's data,
    /// `event` with the kind of the event, and `title`.
    pub(super) fn for_template(&self) -> Result<Vec<u8>, String> {
        let (kind, data) = match self {
            Told::Rollout(event) => ("rollout", serde_json::to_value(&event.data)),
            Told::Hold(event) => ("hold", serde_json::to_value(&event.data)),
            Told::Condition(event) => ("condition", serde_json::to_value(&event.data)),
        };
        let mut data = data.map_err(|error| error.to_string())?;
        if let Value::Object(fields) = &mut data {
            fields.insert("event".to_owned(), kind.into());
            fields.insert("title".to_owned(), self.notice().title.into());
        }
        serde_json::to_vec(&json!({ "data": data })).map_err(|error| error.to_string())
    }

    pub(super) fn notice(&self) -> Notice {
        match self {
            Told::Rollout(event) => of_rollout(event),
            Told::Hold(event) => of_hold(event),
            Told::Condition(event) => of_condition(event),
        }
    }
}

fn of_rollout(event: &Event<Rollout>) -> Notice {
    let rollout = &event.data;
    let (tone, words) = match rollout.state {
        RolloutState::Failed => (Tone::Bad, "failed"),
        RolloutState::Rejected => (Tone::Bad, "was rejected"),
        RolloutState::Held => (Tone::Waits, "waits for a gate"),
        RolloutState::AwaitingApproval => (Tone::Waits, "awaits approval"),
        RolloutState::Succeeded => (Tone::Good, "succeeded"),
        RolloutState::Pending => (Tone::Plain, "is about to begin"),
        RolloutState::Running => (Tone::Plain, "has begun"),
        RolloutState::Watching => (Tone::Plain, "is being watched"),
        RolloutState::Superseded => (Tone::Plain, "was superseded"),
        RolloutState::Cancelled => (Tone::Plain, "was cancelled"),
    };
    let mut facts = Vec::new();
    for (name, image) in rollout.images.iter().take(IMAGES) {
        facts.push(fact(name, &format!("{} {}", image.image, image.digest)));
    }
    if let Some(more @ 1..) = rollout.images.len().checked_sub(IMAGES) {
        facts.push(fact("images", &format!("and {more} more")));
    }
    let changed = rollout.cause.changed.join(", ");
    let cause = match changed.is_empty() {
        true => rollout.cause.reason.to_string(),
        false => format!("{}: {changed}", rollout.cause.reason),
    };
    facts.push(fact("cause", &cause));
    for closed in rollout.gates.iter().take(GATES) {
        facts.push(fact(closed.gate.as_str(), &closed.why));
    }
    if rollout.attempts > 0 {
        facts.push(fact("attempts", &rollout.attempts.to_string()));
    }
    Notice {
        title: title(&format!("{} #{} {words}", rollout.trigger, rollout.number)),
        tone,
        facts,
        text: rollout.error.as_deref().map(text),
        time: event.time,
    }
}

fn of_hold(event: &Event<Held>) -> Notice {
    let hold = &event.data;
    let (kind, triggers) = (&hold.kind, &hold.triggers);
    let (tone, words) = match hold.change {
        HoldChange::Set => (Tone::Waits, "is in force"),
        HoldChange::Released => (Tone::Good, "was released"),
        HoldChange::Expired => (Tone::Good, "has ended"),
    };
    let hard = if hold.hard { "hard " } else { "" };
    let mut facts = vec![fact("set by", &hold.actor)];
    if let Some(released_by) = &hold.released_by {
        facts.push(fact("released by", released_by));
    }
    if let Some(until) = hold.until.and_then(|until| until.format(&Rfc3339).ok()) {
        facts.push(fact("until", &until));
    }
    Notice {
        title: title(&format!("{triggers}: a {hard}{kind} {words}")),
        tone,
        facts,
        text: hold.reason.as_deref().map(text),
        time: event.time,
    }
}

/// Returns whether a trigger in this condition needs a person: receivers are told of the end too.
pub(super) fn needs_a_person(condition: Condition) -> bool {
    match condition {
        Condition::Broken | Condition::Paused | Condition::Failing => true,
        Condition::Removed
        | Condition::Held
        | Condition::RollingOut
        | Condition::Waiting
        | Condition::Settled => false,
    }
}

fn of_condition(event: &Event<ConditionChange>) -> Notice {
    let change = &event.data;
    let (tone, words) = match change.condition {
        Condition::Broken => (Tone::Bad, "is broken"),
        Condition::Failing => (Tone::Bad, "is failing"),
        Condition::Paused => (Tone::Waits, "is paused"),
        Condition::Held => (Tone::Waits, "is held"),
        Condition::Waiting => (Tone::Waits, "is waiting"),
        Condition::RollingOut => (Tone::Plain, "is rolling out"),
        Condition::Removed => (Tone::Plain, "was removed"),
        Condition::Settled => (Tone::Good, "is settled"),
    };
    let before = change.before.filter(|before| needs_a_person(*before));
    let ended = before.map_or(String::new(), |before| format!(", no longer {before}"));
    let mut facts = Vec::new();
    let mut reasons = change.reasons.iter();
    let first = reasons.next();
    if let Some(cure) = first.and_then(|first| first.cure.as_deref()) {
        facts.push(fact("cure", cure));
    }
    for reason in reasons.take(REASONS) {
        facts.push(fact(reason.code.as_str(), &reason.why));
    }
    Notice {
        title: title(&format!("{} {words}{ended}", change.trigger)),
        tone,
        facts,
        text: first.map(|first| text(&first.why)),
        time: event.time,
    }
}

fn title(title: &str) -> String {
    clean_text(title, 140)
}

fn fact(name: &str, value: &str) -> (String, String) {
    (clean_text(name, 64), clean_text(value, FACT))
}

fn text(text: &str) -> String {
    clean_text(text, TEXT)
}
