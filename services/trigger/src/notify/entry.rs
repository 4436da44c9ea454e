//! An entry `[[notify]]`, ready to be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tagtrail_config::{Broken, File, Notify, NotifyFormat, NotifyOn, Table, TriggerGlob};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{CONTENT_TYPE, Subject};

use super::format;
use super::notice::{Told, needs_a_person};
use super::sample;
use crate::target::{Caller, Said, Settings, TargetProblem, Template, Words};

/// The words of errors about an entry.
const WORDS: Words = Words {
    receiver: "the receiver",
    one: "the message",
    many: "messages",
    key: "the [[notify]] entry",
};
/// Most subjects that the server compares for one entry.
const MOST_FILTERS: usize = 100;

/// The entries that can be used, by name.
pub(crate) type Entries = BTreeMap<String, Arc<Entry>>;

/// An entry, ready to be used.
pub(crate) struct Entry {
    pub(super) name: String,
    on: Vec<NotifyOn>,
    triggers: Vec<TriggerGlob>,
    pub(super) max_age: Duration,
    format: NotifyFormat,
    template: Option<Template>,
    caller: Caller,
}

/// One request about an event.
#[derive(Debug)]
pub(super) struct Message {
    /// The id, the same at each attempt.
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

/// Makes all entries of the file, except those that `kept` has. One that can't be made is broken,
/// and stops no other.
pub(crate) fn entries(
    file: &File,
    kept: impl Fn(&String) -> Option<Arc<Entry>>,
) -> (Entries, Vec<Broken>) {
    let (mut entries, mut broken) = (Entries::new(), Vec::new());
    for written in &file.notify {
        let name = written.name.get_ref().to_string();
        let entry = match kept(&name) {
            Some(entry) => Ok(entry),
            None => Entry::new(written).map(Arc::new),
        };
        match entry {
            Ok(entry) => drop(entries.insert(name, entry)),
            Err(why) => broken.push(Broken::new(Table::Notify, name, written.error(why))),
        }
    }
    (entries, broken)
}

/// Returns a line about each entry.
pub(crate) fn describe(file: &File) -> Vec<String> {
    let line = |entry: &Notify| {
        let on: Vec<&str> = entry.on().into_iter().map(NotifyOn::as_str).collect();
        let triggers: Vec<&str> = entry.triggers().iter().map(AsRef::as_ref).collect();
        let of = match triggers.is_empty() {
            true => "of all triggers".to_owned(),
            false => format!("of {}", triggers.join(", ")),
        };
        format!(
            "notify {}: tells {of} when {}, by {}",
            entry.name.get_ref(),
            on.join(", "),
            entry.format().as_str()
        )
    };
    file.notify.iter().map(line).collect()
}

/// Judges the settings of all entries, without a request. Returns a line for each problem.
pub(crate) fn warnings(entries: &Entries) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, entry) in entries {
        for TargetProblem { found, cure, .. } in entry.caller.judge() {
            lines.push(format!("warning: notify {name}: {found}; {cure}"));
        }
    }
    lines
}

impl Entry {
    /// Reads the settings and all secrets. An error names the cure, and no secret.
    pub(super) fn new(written: &Notify) -> Result<Entry, String> {
        let mut request = written.request.clone();
        if request.contains_key("body") {
            return Err("body: the key of [[notify]] is template".to_owned());
        }
        if request.contains_key("done") {
            return Err(
                "done: a receiver of messages reports no result; remove the key".to_owned(),
            );
        }
        if let Some(template) = &written.template {
            request.insert("body".to_owned(), template.get_ref().clone().into());
        }
        let settings = Settings::parse(&toml::Value::Table(request), written.folder())?;
        let format = written.format();
        let usual = match format {
            NotifyFormat::CloudEvents | NotifyFormat::CdEvents => CONTENT_TYPE,
            _ => "application/json",
        };
        let on = written.on();
        let template = settings.template(usual, || {
            let samples = on.iter().map(|on| {
                let event = sample::event(*on, "sample")?;
                Told::read(&event)?.for_template()
            });
            samples.collect()
        });
        let template = template.map_err(|why| match why.strip_prefix("body: ") {
            Some(why) => format!("template: {why}"),
            None => why,
        })?;
        let name = written.name.get_ref().to_string();
        let of = format!("the [[notify]] entry {name}");
        Ok(Entry {
            name,
            on,
            triggers: written.triggers().to_vec(),
            max_age: written.max_age(),
            format,
            template,
            caller: Caller::new(settings, usual, of, WORDS, None)?,
        })
    }

    /// Returns the events that make a message.
    pub(super) fn on(&self) -> &[NotifyOn] {
        &self.on
    }

    /// Returns subjects of ROLLOUTS that hold all messages of the entry, and few others.
    pub(super) fn filters(&self) -> Vec<String> {
        let plain = |glob: &TriggerGlob| !glob.as_ref().contains('*');
        let few = self.triggers.len() * self.on.len() <= MOST_FILTERS;
        let names: BTreeSet<&str> = match few && self.triggers.iter().all(plain) {
            true => self.triggers.iter().map(AsRef::as_ref).collect(),
            false => BTreeSet::new(),
        };
        let names = match names.is_empty() {
            true => BTreeSet::from(["*"]),
            false => names,
        };
        let mut filters = Vec::new();
        for on in &self.on {
            match on {
                NotifyOn::Rollout(state) => {
                    let each = names.iter();
                    filters.extend(each.map(|name| format!("tagtrail.rollout.{name}.{state}")));
                }
                NotifyOn::Hold => filters.push(Subject::ALL_HOLDS.to_owned()),
                // The end of a condition is an event of the next one. Filters may not overlap.
                NotifyOn::Condition(_) if self.tells_ends() => {}
                NotifyOn::Condition(condition) => {
                    let each = names.iter();
                    filters.extend(each.map(|name| format!("tagtrail.trigger.{name}.{condition}")));
                }
            }
        }
        if self.tells_ends() {
            let each = names.iter();
            filters.extend(each.map(|name| format!("tagtrail.trigger.{name}.*")));
        }
        filters
    }

    /// Returns whether a message on this subject is for the entry.
    pub(super) fn wants(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Rollout { trigger, state } => {
                self.on.contains(&NotifyOn::Rollout(*state)) && self.is_of(trigger.as_ref())
            }
            // The pattern is in the event.
            Subject::Hold { .. } => self.on.contains(&NotifyOn::Hold),
            Subject::Trigger { trigger, condition } => {
                let on = self.on.contains(&NotifyOn::Condition(*condition));
                (on || self.tells_ends()) && self.is_of(trigger.as_ref())
            }
            _ => false,
        }
    }

    /// Returns whether the entry tells of a condition that needs a person: then it also tells of
    /// the end.
    fn tells_ends(&self) -> bool {
        let needs = |on: &NotifyOn| matches!(on, NotifyOn::Condition(one) if needs_a_person(*one));
        self.on.iter().any(needs)
    }

    /// Returns whether an event on a wanted subject is for the entry.
    pub(super) fn is_for(&self, told: &Told) -> bool {
        match told {
            Told::Rollout(event) => self.is_of(&event.data.trigger),
            Told::Condition(event) => {
                let on = |condition| self.on.contains(&NotifyOn::Condition(condition));
                let before = event.data.before.filter(|before| needs_a_person(*before));
                let told = on(event.data.condition) || before.is_some_and(on);
                told && self.is_of(&event.data.trigger)
            }
            Told::Hold(event) => {
                let Ok(held) = TriggerGlob::try_from(event.data.triggers.clone()) else {
                    return false;
                };
                self.triggers.is_empty() || self.triggers.iter().any(|glob| glob.meets(&held))
            }
        }
    }

    /// Returns whether the entry tells of this trigger.
    pub(super) fn is_of(&self, trigger: &str) -> bool {
        self.triggers.is_empty() || self.triggers.iter().any(|glob| glob.matches(trigger))
    }

    /// Returns the requests about an event: the same bytes at each attempt.
    pub(super) fn messages(&self, told: &Told, payload: &[u8]) -> Result<Vec<Message>, String> {
        let id = told.id().to_owned();
        let json = |value: &serde_json::Value| {
            serde_json::to_vec(value).map_err(|error| error.to_string())
        };
        let body = match (self.format, &self.template) {
            (NotifyFormat::Slack, _) => json(&format::slack(&told.notice()))?,
            (NotifyFormat::Teams, _) => json(&format::teams(&told.notice()))?,
            (NotifyFormat::Discord, _) => json(&format::discord(&told.notice()))?,
            (NotifyFormat::CloudEvents, _) => payload.to_vec(),
            (NotifyFormat::CdEvents, _) => {
                let events = format::cdevents(told);
                let each = events.iter().map(|(id, event)| {
                    let (id, body) = (id.clone(), json(event)?);
                    Ok(Message { id, body })
                });
                return each.collect();
            }
            (NotifyFormat::Template, Some(template)) => template.render(&told.for_template()?)?,
            (NotifyFormat::Template, None) => return Err("the entry has no template".to_owned()),
        };
        Ok(vec![Message { id, body }])
    }

    /// Makes one attempt to deliver a message. Returns the outcome, with the HTTP status.
    pub(super) async fn send(&self, message: &Message) -> (Outcome, Option<i32>) {
        let said = Said::default();
        let body = message.body.clone();
        let outcome = self.caller.send(&message.id, body, None, &said).await;
        (outcome, said.status())
    }

    /// Finds problems of the settings and of the receiver, without a message.
    pub(super) async fn problems(&self) -> Vec<TargetProblem> {
        let mut problems = self.caller.judge();
        problems.extend(self.caller.connect().await);
        problems
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({})", self.name)
    }
}
