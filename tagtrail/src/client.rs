//! The client: sends requests to the API, and prints the responses as tables for people or as the
//! API's JSON for programs.
//!
//! Each command is a file here and a line in [`Command`]. Exit codes: 0 success, 1 failure, 2 wrong
//! usage, 3 not found.

mod acts;
pub(crate) mod api;
mod apply;
mod approvals;
mod attempts;
mod coverage;
mod digest;
mod events;
mod explain;
mod generations;
mod history;
mod holds;
mod images;
mod manifest;
mod orders;
mod origin;
mod paging;
pub(crate) mod print;
mod report;
mod resolve;
mod rollouts;
pub(crate) mod screen;
mod suggest;
pub(crate) mod table;
mod tags;
pub(crate) mod time;
pub(crate) mod trigger;
mod trigger_test;
mod triggers;
mod watch;
#[cfg(test)]
mod widths;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use secrecy::SecretString;

use api::{Api, Failure};
use origin::Origin;
use screen::{Format, Output, Screen};

/// The commands of the client.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the digest of an image: now, at an earlier time, or of a revision.
    Resolve(Client<resolve::Resolve>),
    /// List the repositories that have a history.
    Images(Client<images::Images>),
    /// List the tags of a repository, each with its digest, now or at an earlier time.
    Tags(Client<tags::Tags>),
    /// List the revisions of an image, newest first.
    History(Client<history::History>),
    /// Print revisions, and other events, when recorded, until Ctrl-C.
    Watch(Client<watch::Watch>),
    /// List the images that have had a digest, and the time during which each had it.
    Digest(Client<digest::Digest>),
    /// Print the manifest of a digest: platforms, labels, time and source of the build.
    Manifest(Client<manifest::Manifest>),
    /// Count the changes of tags by origin (event, resolved, reconciled), and so the events that
    /// registries lost.
    Coverage(Client<coverage::Coverage>),
    /// Print a report over a time: deployments, lead time, what ran when, and others.
    Report(Client<report::Report>),
    /// List the triggers, each with state and current rollout.
    Triggers(Client<triggers::List>),
    /// Show a trigger: condition, current rollout, and the reasons why nothing happens.
    Status(Client<triggers::Status>),
    /// Explain the selected tag of each image of a trigger, and why other tags are not selected.
    Explain(Client<explain::Explain>),
    /// List the rollouts of one trigger or of all, newest first.
    Rollouts(Client<rollouts::Rollouts>),
    /// List the attempts at a rollout, with the answer or output of the target in the last one.
    Attempts(Client<attempts::Attempts>),
    /// Pause triggers: no rollout starts until `tagtrail resume`.
    Pause(Client<orders::Plain>),
    /// Resume paused triggers, with a rollout of the present images.
    Resume(Client<orders::Plain>),
    /// Make the next attempt of failed rollouts now, also of those that failed for good.
    Retry(Client<orders::Plain>),
    /// Roll the wanted images out again, also if they are current; or those of a rollout, pinned.
    Rollout(Client<orders::Rollout>),
    /// Roll earlier images out and pin them: pushes roll nothing out until `tagtrail release`.
    Rollback(Client<orders::Rollback>),
    /// Roll out and pin chosen revisions or digests.
    Pin(Client<orders::Pin>),
    /// End the pins and faults of triggers, with a rollout of the present images.
    Release(Client<orders::Plain>),
    /// End rollouts that have not ended. Their images are not offered again until an image changes.
    Cancel(Client<orders::Cancel>),
    /// List the rollouts that wait for approvals.
    Approvals(Client<approvals::Approvals>),
    /// Approve the images of rollouts.
    Approve(Client<approvals::Approve>),
    /// Reject the images of rollouts that have not begun, which ends them.
    Reject(Client<approvals::Reject>),
    /// List the freezes, pins and faults in force.
    Holds(Client<holds::Holds>),
    /// Freeze triggers: no attempt at a rollout of new images begins.
    Freeze(Client<holds::Freeze>),
    /// End a freeze.
    Thaw(Client<holds::Thaw>),
    /// List the acts of people on triggers, newest first: who, when, and why.
    Acts(Client<acts::Acts>),
}

/// A command's own arguments, and the arguments of all commands of the client.
#[derive(Debug, Args)]
pub(crate) struct Client<C: Args> {
    #[command(flatten)]
    command: C,
    /// URL of the API, or its HOST:PORT [default: that of the data folder of `tagtrail up`, or else
    /// `http://127.0.0.1:8401`].
    #[arg(long, env = "TAGTRAIL_API", value_name = "URL")]
    api: Option<String>,
    /// Token for the API, if required. Prefer the variable: other users of this machine
    /// can read flags.
    #[arg(
        long,
        env = "TAGTRAIL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<SecretString>,
    #[command(flatten)]
    format: Format,
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Command::Resolve(client) => client.run(resolve::Resolve::run),
            Command::Images(client) => client.run(images::Images::run),
            Command::Tags(client) => client.run(tags::Tags::run),
            Command::History(client) => client.run(history::History::run),
            Command::Watch(client) => {
                client.with_api(async |watch, api, screen| watch.follow(api, screen).await)
            }
            Command::Digest(client) => client.run(digest::Digest::run),
            Command::Manifest(client) => client.run(manifest::Manifest::run),
            Command::Coverage(client) => client.run(coverage::Coverage::run),
            Command::Report(client) => client.run(report::Report::run),
            Command::Triggers(client) => client.run(triggers::List::run),
            Command::Status(client) => client.run(triggers::Status::run),
            Command::Explain(client) => client.run(explain::Explain::run),
            Command::Rollouts(client) => client.run(rollouts::Rollouts::run),
            Command::Attempts(client) => {
                client.with_api(async |attempts, api, screen| attempts.run(api, screen).await)
            }
            Command::Pause(client) => plain(client, "pause", triggers::describe),
            Command::Resume(client) => plain(client, "resume", triggers::describe),
            Command::Retry(client) => plain(client, "retry", triggers::describe),
            Command::Rollout(client) => client.run(orders::Rollout::run),
            Command::Rollback(client) => client.run(orders::Rollback::run),
            Command::Pin(client) => client.run(orders::Pin::run),
            Command::Release(client) => plain(client, "release", orders::effects),
            Command::Cancel(client) => client.run(orders::Cancel::run),
            Command::Approvals(client) => client.run(approvals::Approvals::run),
            Command::Approve(client) => client.run(approvals::Approve::run),
            Command::Reject(client) => client.run(approvals::Reject::run),
            Command::Holds(client) => client.run(holds::Holds::run),
            Command::Freeze(client) => client.run(holds::Freeze::run),
            Command::Thaw(client) => client.run(holds::Thaw::run),
            Command::Acts(client) => client.run(acts::Acts::run),
        }
    }
}

/// Runs an order that takes nothing but triggers and a reason.
fn plain(
    client: Client<orders::Plain>,
    action: &'static str,
    describe: orders::Describe,
) -> ExitCode {
    client.run(async |order, api, screen| order.run(api, screen, action, describe).await)
}

impl<C: Args> Client<C> {
    /// Runs a command, and prints the result or the error. Returns the exit code.
    fn run(
        self,
        run: impl AsyncFnOnce(C, &Api, &Screen) -> Result<Printable, Failure>,
    ) -> ExitCode {
        self.with_api(async |command, api, screen| {
            run(command, api, screen).await?.print(screen.output)
        })
    }

    /// Runs a command that prints results itself. Returns the exit code.
    pub(crate) fn with_api(
        self,
        run: impl AsyncFnOnce(C, &Api, &Screen) -> Result<(), Failure>,
    ) -> ExitCode {
        let (address, origin) = Origin::find(self.api);
        let outcome = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))
            .and_then(|runtime| {
                runtime.block_on(async {
                    let api = Api::new(&address, origin, self.token)?;
                    run(self.command, &api, &self.format.screen()).await
                })
            });
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    }
}

/// A result, in both formats.
pub(crate) struct Printable {
    json: serde_json::Value,
    /// The text for people, usually a table.
    text: String,
}

impl Printable {
    fn print(self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Table | Output::Wide => print::line(&self.text),
            Output::Json => print::line(&format!("{:#}", self.json)),
        }
    }
}
