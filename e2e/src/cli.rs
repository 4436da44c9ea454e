//! The client on the command line.

use std::process::Command;

use serde_json::Value;

/// `tagtrail`, asking one API.
#[derive(Debug)]
pub struct Cli {
    /// Where the API is: `http://host:port`.
    pub api: String,
}

/// What it said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Cli {
    /// Runs it with these arguments.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Said {
        let done = Command::new(tagtrail_testkit::binary())
            .args(arguments)
            .env("TAGTRAIL_API", &self.api)
            .output()
            .unwrap();
        Said {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Runs it, asks for JSON, and expects to find something.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }
}
