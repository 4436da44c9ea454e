//! What a rollout acts on. A kind of target is one file in `target/` and one line in [`ALL`].

mod command;
mod signature;
mod webhook;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tagtrail_config::{ConfigError, File};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{Event, Rollout, TraceContext};

use tagtrail_policy::retry::Outcome;

/// A rollout as it is told to a target: the same bytes at every attempt.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) rollout: Rollout,
    /// The `CloudEvent` of the rollout as it was recorded: pending, no attempts yet.
    pub(crate) body: Vec<u8>,
    /// What caused the attempt, to be passed on.
    pub(crate) trace: TraceContext,
}

impl Order {
    pub(crate) fn new(rollout: &Rollout, trace: TraceContext) -> serde_json::Result<Order> {
        let mut rollout = rollout.clone();
        if FailPoint::TriggerRolloutId.skipped() {
            rollout.id = uuid::Uuid::now_v7().to_string();
        }
        let recorded = Rollout {
            state: tagtrail_proto::RolloutState::Pending,
            attempts: 0,
            finished_at: None,
            error: None,
            ..rollout.clone()
        };
        let event: Event<Rollout> = recorded.event(rollout.created_at);
        Ok(Order {
            rollout,
            body: serde_json::to_vec(&event)?,
            trace,
        })
    }
}

pub(crate) type Attempt<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Something that can be brought to a set of pinned images. Doing it twice must be harmless.
pub(crate) trait Target: Send + Sync {
    /// One attempt, bounded in time. Dropping it takes the attempt back as far as that is possible.
    fn apply<'a>(&'a self, order: &'a Order) -> Attempt<'a>;
}

/// A target made from its settings, or what is wrong with them.
type Configured = Result<Box<dyn Target>, String>;

/// A kind of target.
pub(crate) struct Kind {
    /// `target.<name>` in `tagtrail.toml`.
    name: &'static str,
    /// Reads its settings; commands run in `folder`. The error says what to change.
    configure: fn(settings: &toml::Value, folder: &Path) -> Configured,
}

const ALL: &[Kind] = &[webhook::WEBHOOK, command::COMMAND];

/// The targets of all triggers, by the triggers' names.
pub(crate) type Targets = BTreeMap<String, Arc<dyn Target>>;

/// Makes the targets that the file describes.
pub(crate) fn targets(file: &File) -> Result<Targets, ConfigError> {
    file.trigger
        .iter()
        .map(|trigger| {
            let entry = trigger.target();
            let key = format!("trigger.target.{}", entry.kind);
            let kind = ALL
                .iter()
                .find(|kind| kind.name == entry.kind)
                .ok_or_else(|| {
                    let known: Vec<&str> = ALL.iter().map(|kind| kind.name).collect();
                    file.error_at(
                        entry.at,
                        &key,
                        format!("is no kind of target; known are: {}", known.join(", ")),
                    )
                })?;
            let target = (kind.configure)(entry.value, file.folder())
                .map_err(|message| file.error_at(entry.at, &key, message))?;
            Ok((trigger.name.get_ref().to_string(), Arc::from(target)))
        })
        .collect()
}

/// Reads a kind's settings, strictly.
fn settings<T: serde::de::DeserializeOwned>(value: &toml::Value) -> Result<T, String> {
    value
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(target: &str) -> String {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n{target}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        targets(&file).err().unwrap().to_string()
    }

    #[test]
    fn a_wrong_target_is_named_with_its_line_and_cure() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "not a signing secret").unwrap();
        let secret = secret.path().display();
        for (target, expected) in [
            ("target.telepathy = {}", "tagtrail.toml:4: trigger.target.telepathy: is no kind of target; known are: webhook, command".to_owned()),
            ("target.command = {}", "tagtrail.toml:4: trigger.target.command: missing field `run`".to_owned()),
            ("target.command = { run = [] }", "tagtrail.toml:4: trigger.target.command: run is empty; give the program and its arguments, such as run = [\"./deploy.sh\"]".to_owned()),
            ("target.command = { run = [\"x\"], shell = true }", "tagtrail.toml:4: trigger.target.command: unknown field `shell`, expected `run` or `timeout_seconds`".to_owned()),
            ("target.webhook = { url = \"ftp://a.b\", secret = { env = \"X\" } }", "tagtrail.toml:4: trigger.target.webhook: url must start with https:// (or http://)".to_owned()),
            (
                &format!("target.webhook = {{ url = \"https://a.b\", secret = {{ file = \"{secret}\" }} }}"),
                "tagtrail.toml:4: trigger.target.webhook: the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"".to_owned(),
            ),
        ] {
            assert_eq!(refused(target), expected);
        }
    }
}
