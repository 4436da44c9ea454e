//! The client, run as a command.

use std::process::Command;

use serde_json::Value;

/// `tagtrail`, with the URL of an API in the environment.
#[derive(Debug)]
pub struct Cli {
    /// URL of the API: `http://host:port`.
    pub api: String,
}

/// Exit code and output of a finished command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Cli {
    /// Runs `tagtrail` with these arguments.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        let done = Command::new(tagtrail_testkit::binary())
            .args(arguments)
            .env("TAGTRAIL_API", &self.api)
            .output()
            .unwrap();
        CommandOutput {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Runs `tagtrail` with `--output json`. Panics unless the exit code is 0.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(output.code, 0, "{arguments:?}: {}", output.err);
        serde_json::from_str(&output.out).unwrap()
    }
}
