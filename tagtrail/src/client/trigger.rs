//! `tagtrail trigger COMMAND`: work with one trigger.

use std::process::ExitCode;

use super::Client;
use super::trigger_test::Test;

/// The commands about one trigger.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Test the triggers of a file on recorded history: print the rollouts that they would have
    /// had. Nothing is rolled out.
    Test(Client<Test>),
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Command::Test(test) => test.run(Test::run),
        }
    }
}
