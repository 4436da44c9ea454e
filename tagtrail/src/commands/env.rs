//! `tagtrail env`: the addresses of a running `tagtrail up` as variables, for `eval`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::data::Data;

/// The variables, each with the name of its address in `endpoints.json`.
const VARIABLES: [(&str, &str); 6] = [
    ("TAGTRAIL_GATEWAY", "gateway"),
    ("TAGTRAIL_API", "api"),
    ("TAGTRAIL_ADMIN", "admin"),
    ("NATS_URL", "nats"),
    // Of the account for subscribers, which can read and write nothing else.
    ("TAGTRAIL_SUBSCRIBER_URL", "subscriber"),
    ("DATABASE_URL", "postgres"),
];

/// Settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Env {
    #[command(flatten)]
    data: Data,
}

impl Env {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let endpoints = self.data.endpoints();
        if endpoints.is_err() && !std::io::stdout().is_terminal() {
            // `eval ""` would succeed. The cause goes to standard error.
            super::write(b"false\n");
        }
        let endpoints = endpoints.context(
            "name the data folder of a running `tagtrail up` with --data or TAGTRAIL_DATA",
        )?;
        let mut text = String::new();
        for (variable, key) in VARIABLES {
            if let Some(address) = endpoints[key].as_str() {
                // The admin page is given as HOST:PORT everywhere else.
                let address = match variable {
                    "TAGTRAIL_ADMIN" => address.trim_start_matches("http://"),
                    _ => address,
                };
                text += &format!("export {variable}={}\n", quoted(address));
            }
        }
        Ok(super::write(text.as_bytes()))
    }
}

/// Quotes a text for any POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_text_as_it_is() {
        for text in ["nats://a:b@c", "it's $HOME `id`", "''"] {
            let echoed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }
}
