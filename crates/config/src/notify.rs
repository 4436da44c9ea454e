//! `[[notify]]`: messages about rollouts, holds and conditions to chats and other receivers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_proto::{Condition, Name, RolloutState};
use toml::Spanned;

use crate::document::{ConfigError, Document};
use crate::file::Mistake;
use crate::{TriggerGlob, duration};

/// Longest time for which a message is kept.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Messages about rollouts to one receiver.
#[derive(Debug, Clone, Deserialize)]
pub struct Notify {
    /// The entry's name.
    pub name: Spanned<Name>,
    /// The events that make a message. Without the key, [`Notify::on`] has the usual ones.
    on: Option<Spanned<Vec<String>>>,
    /// The triggers that the messages are about; without this setting, all.
    triggers: Option<Vec<TriggerGlob>>,
    /// The form of the messages.
    format: Option<Spanned<String>>,
    /// A template of the messages, in place of a format.
    pub template: Option<Spanned<String>>,
    /// The age at which a message that was not delivered is dropped.
    #[serde(default, with = "duration::option")]
    max_age: Option<Duration>,
    /// The keys of the request: those of `target.webhook`.
    // `flatten` excludes `deny_unknown_fields`, so the reader of the request refuses unknown keys.
    #[serde(flatten)]
    pub request: toml::Table,
    /// The file that has the entry.
    #[serde(skip)]
    pub(crate) document: Arc<Document>,
}

/// An event that makes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotifyOn {
    /// A rollout reaches this state.
    Rollout(RolloutState),
    /// A freeze, a pin or a fault is set or ends.
    Hold,
    /// A trigger comes to this condition; if the condition needs a person, also its end.
    Condition(Condition),
}

/// The form of the messages of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyFormat {
    /// Blocks for an incoming webhook of Slack.
    Slack,
    /// An adaptive card for a workflow of Microsoft Teams.
    Teams,
    /// An embed for a webhook of Discord.
    Discord,
    /// The event as the stream ROLLOUTS has it.
    CloudEvents,
    /// `dev.cdevents.service.upgraded`, for each image of a rollout that succeeded.
    CdEvents,
    /// A template of the entry.
    Template,
}

impl NotifyFormat {
    /// The words of the file.
    const WORDS: [(&str, NotifyFormat); 5] = [
        ("slack", NotifyFormat::Slack),
        ("teams", NotifyFormat::Teams),
        ("discord", NotifyFormat::Discord),
        ("cloudevents", NotifyFormat::CloudEvents),
        ("cdevents", NotifyFormat::CdEvents),
    ];

    /// Returns the word of the file, or `template`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let word = NotifyFormat::WORDS.iter().find(|(_, one)| *one == self);
        word.map_or("template", |(word, _)| word)
    }
}

impl NotifyOn {
    /// The events of an entry without the key `on`.
    const USUAL: [NotifyOn; 6] = [
        NotifyOn::Rollout(RolloutState::Failed),
        NotifyOn::Rollout(RolloutState::Held),
        NotifyOn::Rollout(RolloutState::AwaitingApproval),
        NotifyOn::Hold,
        NotifyOn::Condition(Condition::Broken),
        NotifyOn::Condition(Condition::Paused),
    ];

    /// Every event. `held` is a state of rollouts alone: a trigger is held by a hold or by a gate
    /// of its rollout, and each has an event.
    pub fn all() -> impl Iterator<Item = NotifyOn> {
        let states = RolloutState::ALL.iter().copied();
        let conditions = Condition::ALL.iter().copied();
        let conditions = conditions.filter(|one| *one != Condition::Held);
        let others = conditions.map(NotifyOn::Condition);
        states
            .map(NotifyOn::Rollout)
            .chain([NotifyOn::Hold])
            .chain(others)
    }

    /// Returns the word of the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NotifyOn::Rollout(state) => state.as_str(),
            NotifyOn::Hold => "hold",
            NotifyOn::Condition(condition) => condition.as_str(),
        }
    }
}

impl Notify {
    /// Returns the events that make a message, each once.
    #[must_use]
    pub fn on(&self) -> Vec<NotifyOn> {
        let written = self.on.as_ref().map(Spanned::get_ref);
        match written {
            Some(words) => {
                let named = |on: &NotifyOn| words.iter().any(|word| word == on.as_str());
                NotifyOn::all().filter(named).collect()
            }
            None if self.format() == NotifyFormat::CdEvents => {
                vec![NotifyOn::Rollout(RolloutState::Succeeded)]
            }
            None => NotifyOn::USUAL.to_vec(),
        }
    }

    /// Limits an entry without patterns to triggers of these names. Returns whether the entry has
    /// none.
    pub(crate) fn limit_to(&mut self, names: &[String]) -> bool {
        if self.triggers.is_some() {
            return false;
        }
        let globs = names.iter().cloned().map(TriggerGlob::try_from);
        self.triggers = Some(globs.filter_map(Result::ok).collect());
        true
    }

    /// Returns the patterns over the names of triggers. Empty: all triggers.
    #[must_use]
    pub fn triggers(&self) -> &[TriggerGlob] {
        self.triggers.as_deref().unwrap_or_default()
    }

    /// Returns the form of the messages.
    #[must_use]
    pub fn format(&self) -> NotifyFormat {
        let word = self.format.as_ref().map(|word| word.get_ref().as_str());
        let known = NotifyFormat::WORDS.iter();
        let found = known.copied().find(|(one, _)| Some(*one) == word);
        found.map_or(NotifyFormat::Template, |(_, format)| format)
    }

    /// Returns the age at which a message is dropped.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.max_age.unwrap_or(Duration::from_secs(60 * 60))
    }

    /// Returns the error for a mistake in a key of the request, or in the template. The lines of
    /// these keys are not known, so the error names the line of the name.
    #[must_use]
    pub fn error(&self, message: impl std::fmt::Display) -> ConfigError {
        let at = self.template.as_ref().map(|text| text.span().start);
        let at = at.unwrap_or(self.name.span().start);
        self.document.error_at(at, "notify", message)
    }

    /// Returns the folder of the file that has the entry: relative paths begin here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.document.folder()
    }

    /// Checks the entry.
    pub(crate) fn check(&mut self) -> Result<(), Mistake> {
        let name = self.name.span().start;
        if self.triggers.as_ref().is_some_and(Vec::is_empty) {
            let message = "names no trigger; write patterns such as [\"team-a-*\"], or [\"*\"] for all triggers";
            return Err(Mistake::new(name, "notify.triggers", message));
        }
        if let Some(max_age) = self.max_age
            && !(Duration::from_secs(1)..=LONGEST).contains(&max_age)
        {
            let message = "must be 1s to 168h";
            return Err(Mistake::new(name, "notify.max_age", message));
        }
        let formats: Vec<&str> = NotifyFormat::WORDS.iter().map(|(word, _)| *word).collect();
        match (&self.format, &self.template) {
            (Some(format), None) if !formats.contains(&format.get_ref().as_str()) => {
                let message = format!(
                    "{:?} is no format; known are: {}",
                    format.get_ref(),
                    formats.join(", ")
                );
                return Err(Mistake::new(format.span().start, "notify.format", message));
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => {
                let message = format!(
                    "needs either format, one of {}, or template",
                    formats.join(", ")
                );
                return Err(Mistake::new(name, "notify", message));
            }
        }
        self.check_on()
    }

    fn check_on(&self) -> Result<(), Mistake> {
        let Some(on) = &self.on else {
            return Ok(());
        };
        let mistake = |message: String| Err(Mistake::new(on.span().start, "notify.on", message));
        let known: Vec<&str> = NotifyOn::all().map(NotifyOn::as_str).collect();
        let unknown = on
            .get_ref()
            .iter()
            .find(|word| !known.contains(&word.as_str()));
        if let Some(word) = unknown {
            return mistake(format!(
                "{word:?} is no event; known are: {}",
                known.join(", ")
            ));
        }
        if on.get_ref().is_empty() {
            return mistake("names no event; write such as [\"failed\"]".to_owned());
        }
        let succeeded = RolloutState::Succeeded.as_str();
        let other = on.get_ref().iter().any(|word| word != succeeded);
        if self.format() == NotifyFormat::CdEvents && other {
            return mistake(format!(
                "cdevents has an event for \"{succeeded}\" alone; leave the key out, or use cloudevents"
            ));
        }
        Ok(())
    }
}
