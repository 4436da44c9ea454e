//! `tagtrail`: one binary with a command per service, one that runs them all, and the client.

mod client;
mod commands;
mod doctor;
mod migrate;
mod operator;
mod up;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tagtrail_daemon::{AdminArgs, LogArgs, TraceArgs};

/// The C library's allocator takes a third of the indexer's time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every tag leaves a trail: records what each container image tag meant, for ever, and starts rollouts pinned by digest.
#[derive(Debug, Parser)]
#[command(
    name = "tagtrail",
    version,
    max_term_width = 120,
    propagate_version = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine, with a private Postgres and nats-server.
    Up(Box<Service<up::Config>>),
    /// Hear: receive the webhooks of registries and put pushes on the bus.
    Gateway(Box<Service<tagtrail_gateway::Config>>),
    /// Ask: answer events without a digest, and doubts, by asking the configured registries.
    Resolver(Box<Service<tagtrail_resolver::Config>>),
    /// Record: apply pushes to the history in Postgres and publish numbered revisions.
    Indexer(Box<Service<tagtrail_indexer::Config>>),
    /// Act: turn revisions into rollouts of the configured triggers.
    Trigger(Box<Service<tagtrail_trigger::Config>>),
    /// Answer: serve history, triggers and rollouts over HTTP.
    Api(Box<Service<tagtrail_api::Config>>),
    /// Bring the database schema up to date, once, before the services start.
    Migrate(migrate::Config),
    /// Authentic bodies that were not understood: list them, show one, or feed one again after a fix.
    Quarantine(operator::quarantine::Quarantine),
    /// Publish revisions again, from Postgres to the stream REVISIONS.
    Republish(operator::republish::Republish),
    /// Check `tagtrail.toml`.
    Config(commands::config_check::Config),
    /// Check that every registry can be heard and asked (reachable, credentials, clock, last event), and say what to set in it.
    Doctor(client::Client<doctor::Doctor>),
    /// Whether a service on this machine can do its work: for probes of containers.
    Health(commands::health::Health),
    /// Print completions for a shell, such as `tagtrail completions bash`, for the folder where that shell looks for them.
    Completions(commands::completions::Completions),
    /// Print the manual, for `man -l -`, or write a page for every command into a folder.
    Man(commands::man::Man),
    #[command(flatten)]
    Client(client::Command),
}

/// What every service takes besides its own settings.
#[derive(Debug, Args)]
struct Service<C: Args> {
    #[command(flatten)]
    config: C,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

impl<C: Args> Service<C> {
    fn run<F: Future<Output = anyhow::Result<()>>>(
        self,
        name: &'static str,
        run: fn(C, tagtrail_daemon::Context) -> F,
    ) -> ExitCode {
        tagtrail_daemon::main(name, self.log, &self.trace, self.admin.admin, |ctx| {
            run(self.config, ctx)
        })
    }
}

fn main() -> ExitCode {
    // One TLS implementation for all: HTTPS targets, NATS and Postgres.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE; // Only if it were installed twice.
    }
    match Cli::parse().command {
        Command::Up(service) => service.run("up", up::run),
        Command::Gateway(service) => service.run("gateway", tagtrail_gateway::run),
        Command::Resolver(service) => service.run("resolver", tagtrail_resolver::run),
        Command::Indexer(service) => service.run("indexer", tagtrail_indexer::run),
        Command::Trigger(service) => service.run("trigger", tagtrail_trigger::run),
        Command::Api(service) => service.run("api", tagtrail_api::run),
        Command::Migrate(config) => migrate::main(&config),
        Command::Config(command) => operator::run(async { command.run() }),
        Command::Doctor(command) => command.with_api(doctor::Doctor::run),
        Command::Health(command) => operator::run(command.run()),
        Command::Completions(command) => command.run(),
        Command::Man(command) => operator::run(async { command.run() }),
        Command::Quarantine(command) => operator::run(command.run()),
        Command::Republish(command) => operator::run(command.run()),
        Command::Client(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_in_the_documentation_can_be_given() {
        for (page, text, least) in [
            ("README", include_str!("../../README.md"), 5),
            (
                "configuration",
                include_str!("../../docs/configuration.md"),
                1,
            ),
            ("operations", include_str!("../../docs/operations.md"), 5),
            ("registries", include_str!("../../docs/registries.md"), 1),
            ("subscribe", include_str!("../../docs/subscribe.md"), 3),
        ] {
            let commands: Vec<&str> = text
                .lines()
                .flat_map(|line| line.split("; "))
                .flat_map(|line| line.split(" && "))
                .map(str::trim)
                .filter(|line| line.starts_with("tagtrail "))
                .collect();
            assert!(commands.len() >= least, "{page}: {commands:?}");
            for command in commands {
                let words = command
                    .split_whitespace()
                    .map(|word| word.trim_matches('\''))
                    .take_while(|word| !word.starts_with('#'));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{page}: {command}: {error}");
                }
            }
        }
    }
}
