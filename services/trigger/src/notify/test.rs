//! Trying an entry without a service: a sample message, and problems.

use tagtrail_config::File;

use super::entry::Entry;
use super::notice::Told;
use super::sample;
use crate::target::TargetProblem;

/// The state of an entry, read without a message.
#[derive(Debug, Clone)]
pub struct NotifyReport {
    /// The name of the entry.
    pub name: String,
    /// Problems of the settings and of the receiver, each with its cure.
    pub problems: Vec<TargetProblem>,
}

/// Inspects the entry at this place in the file, without a message to its receiver.
pub async fn inspect_notify(file: &File, place: usize) -> Option<NotifyReport> {
    let written = file.notify.get(place)?;
    let problems = match Entry::new(written) {
        Ok(entry) => entry.problems().await,
        Err(why) => vec![TargetProblem {
            fatal: true,
            found: written.error(why).to_string(),
            cure: "edit the entry as found: until then it sends no messages".to_owned(),
        }],
    };
    let name = written.name.get_ref().to_string();
    Some(NotifyReport { name, problems })
}

/// Sends a sample of the first event of an entry, once. Returns the number of requests.
///
/// # Errors
/// The cause and the cure, without secrets, if there is no such entry, its settings are wrong, or
/// the receiver does not accept the message.
pub async fn test_notify(file: &File, name: &str) -> Result<usize, String> {
    let named = |one: &&tagtrail_config::Notify| one.name.get_ref().as_ref() == name;
    let Some(written) = file.notify.iter().find(named) else {
        let mut broken = file.broken_of(tagtrail_config::Table::Notify);
        if let Some(one) = broken.find(|one| one.name.as_deref() == Some(name)) {
            return Err(one.problem.to_string());
        }
        let names = file.notify.iter().map(|one| one.name.get_ref().to_string());
        let names: Vec<String> = names.collect();
        let known = match names.is_empty() {
            true => "the file has none".to_owned(),
            false => format!("the file has {}", names.join(", ")),
        };
        return Err(format!("no [[notify]] has the name {name:?}; {known}"));
    };
    let entry = Entry::new(written).map_err(|why| written.error(why).to_string())?;
    let Some(on) = entry.on().first() else {
        return Err("the entry names no event".to_owned());
    };
    let triggers = file.trigger.iter().map(|one| one.name.get_ref().as_ref());
    let trigger = triggers.into_iter().find(|trigger| entry.is_of(trigger));
    let payload = sample::event(*on, trigger.unwrap_or("sample"))?;
    let messages = entry.messages(&Told::read(&payload)?, &payload)?;
    for message in &messages {
        if let Some(error) = entry.send(message).await.0.error() {
            return Err(format!("notify {name}: {error}"));
        }
    }
    Ok(messages.len())
}
