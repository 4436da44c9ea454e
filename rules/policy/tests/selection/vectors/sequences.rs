//! Selections over time, with a planner as small as possible around `Policy::select`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tagtrail_policy::selection::{Change, Fault, Last, Outcome, TagHead};

use super::policies::{NOW, compile, head};

struct Planner {
    settings: Value,
    /// By each tag its digest, whether the head is imported, and whether it was recorded before the
    /// trigger.
    heads: BTreeMap<String, (String, bool, bool)>,
    /// The last selection, and the rule that made it.
    last: Option<(Last, String)>,
    /// The rolled out digests, and `hold`.
    rollouts: Vec<String>,
    /// True if the first sight adopts heads from before the trigger.
    next: bool,
    configured: bool,
}

pub(super) fn run(given: &Value) -> Value {
    let mut settings = given.clone();
    let fields = settings.as_object_mut().unwrap();
    let steps: Vec<String> = serde_json::from_value(fields.remove("steps").unwrap()).unwrap();
    let start = fields.remove("start");
    let mut planner = Planner {
        settings,
        heads: BTreeMap::new(),
        last: None,
        rollouts: Vec::new(),
        next: start.is_some_and(|start| start == "next"),
        configured: !steps.iter().any(|step| step == "trigger"),
    };
    for (number, step) in steps.iter().enumerate() {
        planner.step(step);
        // The imports of one pass over a registry are planned together.
        let imports = |step: Option<&String>| step.is_some_and(|step| step.starts_with("import "));
        let more = imports(Some(step)) && imports(steps.get(number + 1));
        if planner.configured && !more {
            planner.plan();
        }
    }
    json!(planner.rollouts)
}

impl Planner {
    fn step(&mut self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match (verb, rest.split_once('=')) {
            ("push" | "import", Some((tag, digest))) => {
                let head = (digest.to_owned(), verb == "import", !self.configured);
                self.heads.insert(tag.to_owned(), head);
            }
            ("delete", None) => assert!(self.heads.remove(rest).is_some()),
            ("list", None) => self.heads.clear(),
            ("trigger", None) => self.configured = true,
            ("config", Some(("ignore", glob))) => self.settings["ignore"] = json!([glob]),
            ("config", None) => self.settings["semver"] = json!(rest),
            _ => panic!("{step}"),
        }
    }

    fn plan(&mut self) {
        if self.rollouts.last().is_some_and(|last| last == "hold") {
            return;
        }
        let policy = compile(self.settings.clone()).unwrap();
        let heads: Vec<TagHead> = self
            .heads
            .iter()
            .map(|(tag, (digest, ..))| head(&policy, tag, Some(digest), 0))
            .collect();
        let canonical = policy.rule().canonical().to_owned();
        let last = self.last.as_ref().map(|(last, rule)| Last {
            rule_changed: *rule != canonical,
            ..last.clone()
        });
        match policy.select(&heads, last.as_ref(), NOW).outcome {
            Outcome::Select { head, key, change } => {
                let (name, imported, before) = &self.heads[head.tag.as_ref()];
                let adopted = last.is_none() && (*imported || (self.next && *before));
                let digest = head.digest.clone().unwrap();
                if !adopted && last.as_ref().is_none_or(|last| last.digest != digest) {
                    self.rollouts.push(name.clone());
                }
                check(change, last.as_ref(), head);
                let last = Last {
                    tag: head.tag.clone(),
                    key,
                    digest,
                    rule_changed: false,
                    released: false,
                };
                self.last = Some((last, canonical));
            }
            Outcome::Hold(Fault::Removed | Fault::Moved) => self.rollouts.push("hold".to_owned()),
            Outcome::Keep(_) | Outcome::Nothing => {}
            Outcome::Wait { .. } => panic!("nothing to wait for"),
        }
    }
}

/// The change names the reason: a lower version in these vectors is a fall-back, or a downgrade by
/// a person.
fn check(change: Change, last: Option<&Last>, head: &TagHead) {
    let lower = last.is_some_and(|last| last.tag > head.tag);
    match change {
        Change::First => assert!(last.is_none()),
        Change::Higher => assert!(!lower),
        Change::Moved => assert_eq!(last.map(|last| &last.tag), Some(&head.tag)),
        Change::FallBack => assert!(lower),
        Change::Configuration { downgrade } => assert_eq!(downgrade, lower),
    }
}
