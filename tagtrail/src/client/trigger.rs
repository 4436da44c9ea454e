//! `tagtrail trigger COMMAND`: work with one trigger.

use std::process::ExitCode;

use super::Client;
use super::orders::Renumber;
use super::trigger_test::Test;

/// The commands about one trigger.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Test the triggers of a file on recorded history: print the rollouts that they would have
    /// had. Nothing is rolled out.
    Test(Client<Test>),
    /// Let the numbers of the next rollouts go on above a number, for receivers that compare
    /// numbers alone and have seen higher ones before a loss of all data.
    Renumber(Client<Renumber>),
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Command::Test(test) => test.run(Test::run),
            Command::Renumber(renumber) => renumber.run(Renumber::run),
        }
    }
}
