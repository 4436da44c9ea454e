//! The systems that rollouts act on, as a table of kinds. A new kind of target is one file in
//! `target/` and one row of [`ALL`].

mod command;
mod contract;
mod signature;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use tagtrail_config::{ConfigError, File, TargetEntry};
use tagtrail_proto::Pinned;

pub(crate) use contract::{Order, Targets};

use contract::TargetKind;

/// All kinds of targets.
const ALL: &[TargetKind] = &[webhook::WEBHOOK, command::COMMAND];

/// Makes the targets of all triggers of the file.
pub(crate) fn targets(file: &File) -> Result<Targets, ConfigError> {
    file.trigger
        .iter()
        .map(|trigger| {
            let entry = trigger.target();
            let kind = kind_of(file, &entry)?;
            let target = (kind.configure)(entry.value, file.folder())
                .map_err(|message| file.error_at(entry.at, &key_of(&entry), message))?;
            Ok((trigger.name.get_ref().to_string(), Arc::from(target)))
        })
        .collect()
}

fn kind_of(file: &File, entry: &TargetEntry<'_>) -> Result<&'static TargetKind, ConfigError> {
    let kind = ALL.iter().find(|kind| kind.name == entry.kind);
    kind.ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|kind| kind.name).collect();
        let message = format!("is no kind of target; known are: {}", known.join(", "));
        file.error_at(entry.at, &key_of(entry), message)
    })
}

fn key_of(entry: &TargetEntry<'_>) -> String {
    format!("trigger.target.{}", entry.kind)
}

/// The state of the target of one trigger, read without an effect on the target.
#[derive(Debug, Clone)]
pub struct TargetReport {
    /// The name of the trigger.
    pub trigger: String,
    /// The kind of the target, as in `target.<kind>`.
    pub kind: &'static str,
    /// The steps that prepare a system for this kind of target.
    pub setup: &'static str,
    /// Problems of the settings, each with its cure.
    pub problems: Vec<String>,
    /// The images that the target runs now, by their names in the trigger. `None`: the target
    /// cannot tell.
    pub images: Option<BTreeMap<String, Pinned>>,
}

/// Inspects the targets of all triggers of the file, without an effect on them.
///
/// # Errors
/// Settings that no service would start with, with their line and the cure.
pub async fn inspect_targets(file: &File) -> Result<Vec<TargetReport>, ConfigError> {
    let targets = targets(file)?;
    let mut reports = Vec::with_capacity(file.trigger.len());
    for trigger in &file.trigger {
        let (name, entry) = (trigger.name.get_ref().to_string(), trigger.target());
        let kind = kind_of(file, &entry)?;
        let images = match targets.get(&name) {
            Some(target) => target.current().await,
            None => None,
        };
        reports.push(TargetReport {
            trigger: name,
            kind: kind.name,
            setup: kind.setup,
            problems: (kind.check)(entry.value, file.folder()).await,
            images,
        });
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let kinds: Vec<&str> = ALL.iter().map(|kind| kind.name).collect();
        let unknown = format!(
            "tagtrail.toml:4: trigger.target.telepathy: is no kind of target; known are: {}",
            kinds.join(", ")
        );
        for (target, expected) in [
            ("target.telepathy = {}", unknown),
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

    #[test]
    fn each_kind_is_documented() {
        let page = include_str!("../../../docs/configuration.md");
        for kind in ALL {
            assert!(page.contains(&format!("| `target.{}` |", kind.name)));
            assert!(!kind.setup.is_empty(), "{}", kind.name);
        }
    }

    #[tokio::test]
    async fn a_target_that_cannot_tell_its_images_is_reported_without_images() {
        let text = "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web\"\n\
                    target.command = { run = [\"true\"] }\n";
        let file = File::parse(text, Path::new("tagtrail.toml")).unwrap();
        let reports = inspect_targets(&file).await.unwrap();
        assert_eq!(reports.len(), 1);
        assert_eq!(
            (reports[0].trigger.as_str(), reports[0].kind),
            ("shop", "command")
        );
        assert_eq!(reports[0].problems, Vec::<String>::new());
        assert_eq!(reports[0].images, None);
    }
}
