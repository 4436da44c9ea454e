//! `tagtrail`: one binary with a command for each service, a command that runs all of them, and
//! the client.

mod client;
mod commands;
#[cfg(test)]
mod cures;
mod data;
mod doctor;
mod import;
mod migrate;
mod operator;
mod up;

use std::process::ExitCode;

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use tagtrail_daemon::{AdminArgs, LogArgs, TraceArgs};

/// With the C library's allocator, a third of the indexer's time goes into allocations
/// (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every tag leaves a trail: records each digest that a container image tag has had, and starts
/// rollouts pinned by digest.
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
    /// Run all services on this machine, with a private Postgres and nats-server.
    Up(Box<Service<up::Config>>),
    /// Receive the webhooks of registries, and publish the reported pushes.
    Gateway(Box<Service<tagtrail_gateway::Config>>),
    /// Ask the configured registries: for digests that events lack, to re-check tags whose order is
    /// doubtful, and to reconcile each registry with history.
    Resolver(Box<Service<tagtrail_resolver::Config>>),
    /// Record pushes as history in Postgres, and publish numbered revisions.
    Indexer(Box<Service<tagtrail_indexer::Config>>),
    /// Start rollouts of the configured triggers when their images change. With a command: work
    /// with one trigger.
    Trigger(Box<Trigger>),
    /// Serve history, triggers and rollouts over HTTP.
    Api(Box<Service<tagtrail_api::Config>>),
    /// Bring the database schema up to date. Run this once, before the services start.
    Migrate(migrate::Config),
    /// Move the data folder of `tagtrail up` to the newest Postgres that is installed. The old
    /// database is kept.
    UpgradeData(commands::upgrade_data::UpgradeData),
    /// Print the addresses of a running `tagtrail up` as variables, for `eval "$(tagtrail env)"`.
    Env(commands::env::Env),
    /// List, show and replay authenticated events whose body could not be interpreted.
    Quarantine(operator::quarantine::Quarantine),
    /// Publish recorded revisions to the stream REVISIONS again.
    Republish(operator::republish::Republish),
    /// Write a `tagtrail.toml` with comments and a generated secret for each source.
    Init(commands::init::Init),
    /// Write the image policies of another system as triggers of `tagtrail.toml`.
    Import(client::Client<import::Import>),
    /// Check `tagtrail.toml`.
    Config(commands::config_check::Config),
    /// Try the receivers of messages about rollouts.
    Notify(commands::notify::Notify),
    /// Check every source and registry (address, credentials, clock, last event), and print the
    /// settings for each registry.
    Doctor(client::Client<doctor::Doctor>),
    /// Report whether a service on this machine is ready, for container health checks.
    Health(commands::health::Health),
    /// Print the completion script of a shell, such as `tagtrail completions bash`.
    Completions(commands::completions::Completions),
    /// Print the manual page, for `man -l -`, or write a page for every command into a folder.
    Man(commands::man::Man),
    #[command(flatten)]
    Client(client::Command),
}

/// A service's own settings, and the settings that all services share.
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

/// The trigger service, or a command about a trigger.
#[derive(Debug)]
enum Trigger {
    Service(Box<Service<tagtrail_trigger::Config>>),
    Command(Box<client::trigger::Command>),
}

impl Args for Trigger {
    fn augment_args(command: clap::Command) -> clap::Command {
        let service = Service::<tagtrail_trigger::Config>::augment_args(command);
        client::trigger::Command::augment_subcommands(service)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Trigger::augment_args(command)
    }
}

impl FromArgMatches for Trigger {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Trigger, clap::Error> {
        match matches.subcommand_name() {
            Some(_) => {
                let command = client::trigger::Command::from_arg_matches(matches).map(Box::new);
                command.map(Trigger::Command)
            }
            None => {
                let service = Service::from_arg_matches(matches).map(Box::new);
                service.map(Trigger::Service)
            }
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Trigger::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The first argument of a process between the trigger service and a program of a trigger. The
/// command line knows no such command: the service starts it by itself, once for each program, so
/// the memory and time of reading the command line would count.
const SUPERVISE: &str = "supervise";

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == SUPERVISE)
    {
        return tagtrail_trigger::supervise();
    }
    // HTTPS, NATS and Postgres use the same TLS implementation.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE; // Unreachable: nothing else installs a provider.
    }
    match Cli::parse().command {
        Command::Up(service) => match service.config.become_user() {
            Ok(()) => service.run("up", up::run),
            Err(error) => operator::fail(&error),
        },
        Command::Gateway(service) => service.run("gateway", tagtrail_gateway::run),
        Command::Resolver(service) => service.run("resolver", tagtrail_resolver::run),
        Command::Indexer(service) => service.run("indexer", tagtrail_indexer::run),
        Command::Trigger(trigger) => match *trigger {
            Trigger::Service(service) => service.run("trigger", tagtrail_trigger::run),
            Trigger::Command(command) => command.run(),
        },
        Command::Api(service) => service.run("api", tagtrail_api::run),
        Command::Migrate(config) => migrate::main(&config),
        Command::Init(command) => operator::run(async { command.run() }),
        Command::Import(command) => command.with_api(import::Import::run),
        Command::Config(command) => operator::run(async { command.run() }),
        Command::Notify(command) => operator::run(command.run()),
        Command::Doctor(command) => command.with_api(doctor::Doctor::run),
        Command::Health(command) => operator::run(command.run()),
        Command::Completions(command) => command.run(),
        Command::Man(command) => operator::run(async { command.run() }),
        Command::UpgradeData(command) => operator::run(command.run()),
        Command::Env(command) => operator::run(async move { command.run() }),
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
    fn every_command_in_the_documentation_parses() {
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
            ("moving", include_str!("../../docs/moving.md"), 3),
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
