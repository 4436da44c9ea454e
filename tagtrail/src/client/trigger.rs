//! `tagtrail trigger COMMAND`: work with one trigger.

use std::process::ExitCode;

use super::Client;
use super::apply::{Apply, Delete};
use super::generations::{Diff, Get, Log};
use super::orders::Renumber;
use super::trigger_test::Test;

/// The commands about one trigger.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Test the triggers of a file on recorded history: print the rollouts that they would have
    /// had. Nothing is rolled out.
    ///
    /// No registry and no target is asked, a Kubernetes cluster neither. So with `start = "adopt"`
    /// the test does not know the images that the target runs, and says that the first rollout
    /// depends on them.
    Test(Client<Test>),
    /// Let the numbers of the next rollouts go on above a number, for receivers that compare
    /// numbers alone and have seen higher ones before a loss of all data.
    Renumber(Client<Renumber>),
    /// List the generations of a trigger, newest first: when its settings changed, and where.
    Log(Client<Log>),
    /// Print the settings of a trigger, now or of a generation.
    Get(Client<Get>),
    /// Show the difference between two generations.
    Diff(Client<Diff>),
    /// Make or change triggers of the API, by the entries of a file.
    Apply(Client<Apply>),
    /// Remove a trigger of the API. Its history stays.
    Delete(Client<Delete>),
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Command::Test(test) => test.run(Test::run),
            Command::Renumber(renumber) => renumber.run(Renumber::run),
            Command::Log(log) => log.run(Log::run),
            Command::Get(get) => get.run(Get::run),
            Command::Diff(diff) => diff.run(Diff::run),
            Command::Apply(apply) => apply.run(Apply::run),
            Command::Delete(delete) => delete.run(Delete::run),
        }
    }
}
