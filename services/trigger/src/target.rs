//! The table of targets. A kind of target is one file in `target/` and one line in [`ALL`].

mod command;
mod contract;
mod signature;
mod webhook;

use std::sync::Arc;

use tagtrail_config::{ConfigError, File};

pub(crate) use contract::{Order, Targets};

use contract::Kind;

const ALL: &[Kind] = &[webhook::WEBHOOK, command::COMMAND];

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
