//! The life of a process, from its log and its signals to its exit code.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::trace::{Exporter, TraceArgs};
use crate::{Context, admin, orphans};

/// The options of the log, which goes to standard error.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Level of the log: `error`, `warn`, `info`, `debug`, or levels per module, such as
    /// `info,tagtrail_indexer=debug`.
    #[arg(long = "log", env = "TAGTRAIL_LOG", default_value = "info")]
    pub filter: String,
    /// Form of the log lines.
    #[arg(long = "log-format", env = "TAGTRAIL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Runs a service until SIGINT or SIGTERM; a second signal ends the process at once.
///
/// Returns exit code 0 if the service stopped on request, 2 if the log or the traces did not start,
/// and 1 for any other failure, which includes a service that ended by itself.
pub fn main<F, Fut>(
    service: &'static str,
    log: LogArgs,
    trace: &TraceArgs,
    admin: SocketAddr,
    run: F,
) -> ExitCode
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    if let Err(error) = start_log(&log) {
        report(&error);
        return ExitCode::from(2);
    }
    let exporter = match Exporter::start(trace, service) {
        Ok(exporter) => exporter,
        Err(error) => {
            report(&error);
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&anyhow::Error::from(error).context("can't start the runtime"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(supervise(service, admin, run));
    // Blocking work that hangs must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    exporter.stop();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{service} failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn supervise<F, Fut>(service: &'static str, address: SocketAddr, run: F) -> anyhow::Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let ctx = Context {
        admin: Some(address),
        ..Context::default()
    };
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    // The services that read files read them again. Without a receiver the signal ends a process.
    let _hangup = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    let mut asked = async || {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    // The admin page is served until the process ends, so that probes can watch the service stop.
    // The address is bound before the service does anything that would have to be undone.
    let listener = admin::bind(address).await?;
    ctx.metrics.add_process(service, ctx.health.clone());
    let (health, metrics) = (ctx.health.clone(), ctx.metrics.clone());
    let page = admin::serve(listener, health, metrics, CancellationToken::new());
    let service_ends = async {
        tokio::select! {
            ended = run(ctx.clone()) => ended,
            () = orphans::reap_orphans() => Ok(()), // Unreachable: it never returns.
        }
    };
    tokio::pin!(page, service_ends);
    tokio::select! {
        outcome = &mut service_ends => return ended(service, outcome),
        outcome = &mut page => return outcome.and_then(|()| anyhow::bail!("the admin page ended by itself")),
        name = asked() => tracing::info!("{name}: stopping"),
    }
    ctx.shutdown.cancel();
    tokio::select! {
        outcome = &mut service_ends => outcome,
        outcome = &mut page => outcome.and_then(|()| anyhow::bail!("the admin page ended by itself")),
        // Longer than `Tasks` waits, so that its error, which names the hanging task, comes first.
        () = tokio::time::sleep(ctx.stop_time.get() + std::time::Duration::from_secs(2)) => anyhow::bail!("did not stop in {:?}", ctx.stop_time.get()),
        name = asked() => anyhow::bail!("{name} again: ended at once"),
    }
}

fn ended(service: &str, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    outcome?;
    anyhow::bail!("{service} ended by itself")
}

fn start_log(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.filter).with_context(|| {
        format!(
            "--log {:?} is not a filter such as info or info,tagtrail_indexer=debug",
            args.filter
        )
    })?;
    // The bus logs its connections itself. The NATS client would log them again, and would log an
    // error for a session, which by design never reconnects.
    let filter = if args.filter.contains("async_nats") {
        filter
    } else {
        filter.add_directive("async_nats=off".parse()?)
    };
    let terminal = std::io::stderr().is_terminal();
    let json = match args.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let started = if json {
        log.json().flatten_event(true).try_init()
    } else {
        log.try_init()
    };
    started.map_err(|error| anyhow::anyhow!("can't start the log: {error}"))
}

/// Prints an error to standard error, before the log has started.
#[expect(clippy::print_stderr, reason = "the log has not started")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_ends_by_itself_has_failed() {
        let outcome = supervise("test", ([127, 0, 0, 1], 0).into(), |_| async { Ok(()) }).await;
        assert_eq!(outcome.unwrap_err().to_string(), "test ended by itself");
    }

    #[tokio::test]
    async fn an_error_of_a_service_is_passed_on() {
        let outcome = supervise("test", ([127, 0, 0, 1], 0).into(), |_| async {
            anyhow::bail!("no")
        })
        .await;
        assert_eq!(outcome.unwrap_err().to_string(), "no");
    }
}
