//! `tagtrail doctor`: checks each step on the way of a push, and prints the settings for each
//! registry.
//!
//! [`ask`] sends all requests, concurrently and with a time-out. [`judge`] (pure) turns the answers
//! into findings, and [`report`] prints these. A secret is never printed, only the place that it is
//! read from.

mod ask;
mod judge;
mod names;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use tagtrail_config::File;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::client::api::{Api, Failure};
use crate::client::print;
use crate::client::screen::{Output, Screen};
use judge::SourceCoverage;
use judge::comparison::comparison;
use report::{Finding, Part, Report, SourceSetup};

/// Arguments of `tagtrail doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// File with the sources and registries to check.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    config: PathBuf,
    /// URL at which registries reach the gateway. Tested from this machine, and printed
    /// in the settings for registries.
    #[arg(long, env = "TAGTRAIL_GATEWAY", default_value = "http://127.0.0.1:8400", value_name = "URL", value_parser = address)]
    gateway: Url,
    /// Print the settings for the registries of all sources [default: of sources that have not
    /// received an event].
    #[arg(long)]
    setup: bool,
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    // The URL is printed, so a password in it would be, too.
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && plain(url))
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .ok_or_else(|| "write an address such as http://127.0.0.1:8400".to_owned())
}

impl Doctor {
    /// Prints the report. Fails afterwards if a check found an error.
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<(), Failure> {
        let file = File::load(&self.config).map_err(|error| Failure::failed(error.to_string()))?;
        let report = self.examine(Arc::new(file), api).await?;
        match screen.output {
            Output::Table | Output::Wide => print::line(&report.text(screen))?,
            Output::Json => print::line(&format!("{:#}", report.json()))?,
        }
        match report.wrong() {
            0 => Ok(()),
            wrong => Err(Failure::failed(format!(
                "{wrong} of {} checks failed",
                report.checks()
            ))),
        }
    }

    async fn examine(&self, file: Arc<File>, api: &Api) -> Result<Report, Failure> {
        let client = ask::client()?;
        let (mut sources, mut registries) = (JoinSet::new(), JoinSet::new());
        for place in 0..file.source.len() {
            let (client, file) = (client.clone(), Arc::clone(&file));
            let gateway = self.gateway.to_string();
            sources
                .spawn(async move { (place, ask::source(&client, &file, place, &gateway).await) });
        }
        for place in 0..file.registry.len() {
            let file = Arc::clone(&file);
            registries.spawn(async move { (place, ask::registry(&file, place).await) });
        }
        let targets = targets(&file);
        let coverage = ask::coverage(api).await;
        let known = ask::registries(api).await.unwrap_or_default();
        let mut report = Report::new(self.gateway.host_str(), self.setup);
        report.parts.push(Part::new(
            "file",
            String::new(),
            vec![judge::file(&self.config, &file)],
        ));
        let configured: Vec<_> = file
            .registry
            .iter()
            .map(|access| access.name.get_ref())
            .collect();
        for (place, answers) in in_order(sources).await {
            let entry = &file.source[place];
            let name = entry.name.get_ref().to_string();
            let mut findings = judge::source(&answers, &configured);
            let registry = answers.setup.as_ref().ok().and_then(|setup| {
                let registry = setup.registry.as_ref()?;
                Some(registry.to_string())
            });
            let of_source = coverage
                .as_ref()
                .ok()
                .map(|coverage| SourceCoverage::of(&name, registry.as_deref(), coverage));
            if let Some(of_source) = &of_source {
                findings.extend(judge::events(of_source, OffsetDateTime::now_utc()));
            }
            if let Ok(setup) = answers.setup
                && (self.setup || of_source.is_some_and(|of_source| of_source.is_silent()))
            {
                report.setups.push(SourceSetup {
                    source: name.clone(),
                    setup,
                });
            }
            report.parts.push(Part::new("source", name, findings));
        }
        for (place, answer) in in_order(registries).await {
            let access = &file.registry[place];
            let name = access.name.get_ref().to_string();
            let mut findings = judge::registry(access, &answer);
            if let Ok(coverage) = &coverage {
                findings.extend(comparison(access, coverage, OffsetDateTime::now_utc()));
            }
            report.parts.push(Part::new("registry", name, findings));
        }
        for (_, of_target) in in_order(targets).await {
            report.parts.extend(of_target);
        }
        let api = match coverage {
            Ok(_) => Finding::ok("events", "it reports when events were received"),
            Err(why) => judge::no_coverage(&why),
        };
        let mut findings = vec![api];
        findings.extend(names::shared(&file, &known));
        report.parts.push(Part::new("api", String::new(), findings));
        Ok(report)
    }
}

/// Tries the targets of all triggers, each in a task.
fn targets(file: &Arc<File>) -> JoinSet<(usize, Option<Part>)> {
    let mut tasks = JoinSet::new();
    for place in 0..file.trigger.len() {
        let file = Arc::clone(file);
        tasks.spawn(async move {
            let report = tagtrail_trigger::inspect_target(&file, place).await;
            let part = report.map(|report| {
                let findings = judge::target(&report);
                Part::new("trigger", report.trigger, findings)
            });
            (place, part)
        });
    }
    tasks
}

/// Waits for all tasks. Returns their results in the order of the file.
async fn in_order<T: 'static>(tasks: JoinSet<(usize, T)>) -> Vec<(usize, T)> {
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found
}
