//! The client: asks the API and prints the answer, as tables for people or as the API's own JSON for programs.
//!
//! A command is one file here and one line in [`Command`]. Exit codes: 0 found or done, 1 failed, 2 wrong usage, 3 not found.

pub(crate) mod api;
mod coverage;
mod digest;
mod events;
mod history;
mod manifest;
pub(crate) mod print;
mod resolve;
mod rollouts;
mod triggers;
mod watch;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::SecretString;

use api::{Api, Failure};

/// Questions to the API.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What an image means now, meant at a time, or is by its number.
    Resolve(Client<resolve::Resolve>),
    /// What an image meant over time, newest first.
    History(Client<history::History>),
    /// Revisions as they are recorded, until Ctrl-C.
    Watch(Client<watch::Watch>),
    /// Which images ever had a digest, and from when to when.
    Digest(Client<digest::Digest>),
    /// What a digest is: for which platforms, built when and from what.
    Manifest(Client<manifest::Manifest>),
    /// How changes became known: by event, by asking, or only by comparing; and so what registries did not tell.
    Coverage(Client<coverage::Coverage>),
    /// The triggers: what they watch and what runs.
    Triggers(Client<triggers::List>),
    /// The rollouts of one trigger or of all, newest first.
    Rollouts(Client<rollouts::Rollouts>),
    /// Let nothing start for a trigger, whatever is pushed, until it is resumed.
    Pause(Client<triggers::Pause>),
    /// End a pause: what the images mean now is rolled out, once.
    Resume(Client<triggers::Resume>),
}

/// What every question takes.
#[derive(Debug, Args)]
pub(crate) struct Client<Q: Args> {
    #[command(flatten)]
    question: Q,
    /// Where the API is.
    #[arg(
        long,
        env = "TAGTRAIL_API",
        default_value = "http://127.0.0.1:8401",
        value_name = "URL"
    )]
    api: String,
    /// A token of the API, if it asks for one; better given by the environment, where other users do not see it.
    #[arg(
        long,
        env = "TAGTRAIL_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<SecretString>,
    /// How the answer is written.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Command::Resolve(client) => client.run(resolve::Resolve::ask),
            Command::History(client) => client.run(history::History::ask),
            Command::Watch(client) => {
                client.with_api(async |watch, api, output| watch.follow(api, output).await)
            }
            Command::Digest(client) => client.run(digest::Digest::ask),
            Command::Manifest(client) => client.run(manifest::Manifest::ask),
            Command::Coverage(client) => client.run(coverage::Coverage::ask),
            Command::Triggers(client) => client.run(triggers::List::ask),
            Command::Rollouts(client) => client.run(rollouts::Rollouts::ask),
            Command::Pause(client) => client.run(triggers::Pause::ask),
            Command::Resume(client) => client.run(triggers::Resume::ask),
        }
    }
}

impl<Q: Args> Client<Q> {
    /// Asks, and turns what comes of it into output and an exit code.
    fn run(self, ask: impl AsyncFnOnce(Q, &Api) -> Result<Answer, Failure>) -> ExitCode {
        self.with_api(async |question, api, output| ask(question, api).await?.print(output))
    }

    /// Does something with the API.
    pub(crate) fn with_api(
        self,
        act: impl AsyncFnOnce(Q, &Api, Output) -> Result<(), Failure>,
    ) -> ExitCode {
        let outcome = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))
            .and_then(|runtime| {
                runtime.block_on(async {
                    let api = Api::new(&self.api, self.token)?;
                    act(self.question, &api, self.output).await
                })
            });
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        }
    }
}

/// What was found, in both forms.
pub(crate) struct Answer {
    json: serde_json::Value,
    /// What people see; may be JSON's text itself where there is nothing to arrange.
    text: String,
}

impl Answer {
    fn print(self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Table => print::line(&self.text),
            Output::Json => print::line(&format!("{:#}", self.json)),
        }
    }
}
