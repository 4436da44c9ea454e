//! The messages of commits.

use std::fmt::Write as _;

use tagtrail_proto::{Rollout, clean_text};

use crate::store::background::Background;

/// Most bytes of a message, and of its first line.
const LONGEST: usize = 16 * 1024;
const SUBJECT: usize = 200;
/// Most bytes of the name of a person, and most people of a list.
const PERSON: usize = 200;
const PEOPLE: usize = 20;

/// A rollout of a commit, with its own text if its settings have a template.
pub(super) struct Part<'a> {
    pub(super) rollout: &'a Rollout,
    /// The people behind the rollout.
    pub(super) background: &'a Background,
    pub(super) own: Option<String>,
}

/// The trailer with the commit that a proposal is made from.
pub(super) const BASE: &str = "Tagtrail-Base: ";

/// Returns the message of a commit for these rollouts. `base`: the commit that it is made from, if
/// it is a proposal that the next one may replace.
pub(super) fn message(parts: &[Part<'_>], base: Option<&str>) -> String {
    let mut message = match parts {
        [Part { own: Some(own), .. }] => own.clone(),
        [Part { rollout, .. }] => subject(rollout),
        parts => {
            let names = parts.iter().map(|part| {
                let rollout = part.rollout;
                format!("{} #{}", rollout.trigger, rollout.number)
            });
            let names: Vec<String> = names.collect();
            format!("Roll out {}", names.join(", "))
        }
    };
    message = clean(&message);
    let alone = parts.len() == 1;
    for part in parts {
        match &part.own {
            Some(_) if alone => {}
            Some(own) => {
                let _ = write!(message, "\n\n{}", clean(own));
            }
            None => {
                let _ = write!(message, "\n\n{}", body(part, alone));
            }
        }
        if message.len() > LONGEST {
            break;
        }
    }
    message.push_str("\n\n");
    for part in parts {
        let _ = writeln!(message, "Tagtrail-Rollout: {}", part.rollout.id);
    }
    if let Some(base) = base {
        let _ = writeln!(message, "{BASE}{base}");
    }
    message
}

fn subject(rollout: &Rollout) -> String {
    let images = rollout.images.values();
    let images: Vec<String> = images.map(|image| image.image.to_string()).collect();
    let (trigger, number) = (&rollout.trigger, rollout.number);
    let whole = format!("Roll out {trigger} #{number}: {}", images.join(", "));
    clean_text(&whole, SUBJECT)
}

/// The images of a rollout, with the people who pushed them, and those who approved them.
fn body(
    Part {
        rollout,
        background,
        ..
    }: &Part<'_>,
    alone: bool,
) -> String {
    let mut body = match alone {
        true => String::new(),
        false => format!("{} #{}:\n", rollout.trigger, rollout.number),
    };
    for (name, image) in &rollout.images {
        let changed = match rollout.cause.changed.contains(name) {
            true => "",
            false => " (as before)",
        };
        let (revision, pinned) = (image.revision, &image.pinned);
        let pusher = background.pushers.get(name);
        let pusher = pusher.map(|one| format!(", pushed by {}", clean_text(one, PERSON)));
        let _ = writeln!(
            body,
            "{name}: {}, revision {revision}{changed}{}\n  {pinned}",
            image.image,
            pusher.unwrap_or_default()
        );
    }
    let approvers = background.approvers.iter().take(PEOPLE);
    let approvers: Vec<String> = approvers.map(|one| clean_text(one, PERSON)).collect();
    if !approvers.is_empty() {
        let _ = writeln!(body, "approved by {}", approvers.join(", "));
    }
    body.truncate(body.trim_end().len());
    body
}

/// Returns foreign text without characters that control a terminal, within bounds.
fn clean(text: &str) -> String {
    let lines = text.lines().map(|line| clean_text(line, LONGEST));
    let lines: Vec<String> = lines.collect();
    let text = lines.join("\n");
    let text = text.trim();
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}
