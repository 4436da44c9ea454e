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

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use serde_json::Value;
use tagtrail_config::File;
use tagtrail_trigger::TargetProblem;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::client::api::{Api, Failure, http_url};
use crate::client::print;
use crate::client::screen::{Output, Screen};
use crate::commands::health::reachable;
use ask::SourceAnswers;
use judge::SourceCoverage;
use judge::comparison::comparison;
use judge::reasons::reasons;
use judge::refused::Refused;
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
    /// Address of the gateway's admin page, which counts refused requests
    /// [default: that of the data folder of `tagtrail up`, or else 127.0.0.1:8402].
    #[arg(long, env = "TAGTRAIL_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Print the settings for the registries of all sources [default: of sources that have not
    /// received an event].
    #[arg(long)]
    setup: bool,
}

fn address(text: &str) -> Result<Url, String> {
    let url = http_url(text);
    // The URL is printed, so a password in it would be, too.
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    url.filter(plain)
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

    fn admin(&self) -> SocketAddr {
        let admin = self.admin.or_else(crate::data::admin);
        reachable(admin.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 8402).into()))
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
        let receivers = receivers(&file);
        let clusters = clusters(&file);
        let records = Records {
            coverage: ask::coverage(api).await,
            refused: Refused::new(ask::metrics(&client, self.admin()).await),
        };
        let known = ask::registries(api).await.unwrap_or_default();
        let mut report = Report::new(self.gateway.host_str(), self.setup);
        let mut of_file = vec![judge::file(&self.config, &file)];
        of_file.extend(judge::broken(&file));
        report.parts.push(Part::new("file", String::new(), of_file));
        for (place, answers) in in_order(sources).await {
            self.judge_source(&mut report, &file, place, answers, &records);
        }
        for (place, answer) in in_order(registries).await {
            let access = &file.registry[place];
            let name = access.name.get_ref().to_string();
            let mut findings = judge::registry(access, &answer);
            if let Ok(coverage) = &records.coverage {
                findings.extend(comparison(access, coverage, OffsetDateTime::now_utc()));
            }
            report.parts.push(Part::new("registry", name, findings));
        }
        for (place, problems) in in_order(clusters).await {
            let Some(problems) = problems else { continue };
            let name = file.cluster[place].name.get_ref().to_string();
            let findings = judge::cluster(&problems);
            report.parts.push(Part::new("cluster", name, findings));
        }
        let triggers = ask::triggers(api).await.unwrap_or_default();
        for (place, mut findings) in in_order(targets).await {
            let trigger = &file.trigger[place];
            let name = trigger.name.get_ref().to_string();
            let mut unseen = Vec::new();
            if records.coverage.is_ok() {
                unseen = ask::unseen(api, trigger).await;
                findings.extend(judge::images(&unseen));
            }
            findings.extend(reasons(&triggers, &name, &unseen));
            report.parts.push(Part::new("trigger", name, findings));
        }
        for (place, findings) in in_order(receivers).await {
            let name = file.notify[place].name.get_ref().to_string();
            report.parts.push(Part::new("notify", name, findings));
        }
        let elsewhere = records.refused.elsewhere();
        report
            .parts
            .push(Part::new("gateway", String::new(), elsewhere));
        let api = match records.coverage {
            Ok(_) => Finding::ok("events", "it reports when events were received"),
            Err(why) => judge::no_coverage(&why),
        };
        let mut findings = vec![api];
        findings.extend(names::shared(&file, &known));
        report.parts.push(Part::new("api", String::new(), findings));
        Ok(report)
    }

    /// Adds the findings about the source at this place in the file, and its settings.
    fn judge_source(
        &self,
        report: &mut Report,
        file: &File,
        place: usize,
        answers: SourceAnswers,
        records: &Records,
    ) {
        let name = file.source[place].name.get_ref().to_string();
        let configured = file.registry.iter().map(|access| access.name.get_ref());
        let mut findings = judge::source(&answers, &configured.collect::<Vec<_>>());
        let coverage = records.coverage.as_ref().ok();
        let coverage = coverage.map(|coverage| coverage_of(&name, &answers, coverage));
        if let Some(coverage) = &coverage {
            findings.extend(judge::events(coverage, OffsetDateTime::now_utc()));
        }
        findings.extend(records.refused.of_source(&name));
        if let Ok(setup) = answers.setup
            && (self.setup || coverage.is_some_and(|coverage| coverage.is_silent()))
        {
            report.setups.push(SourceSetup {
                source: name.clone(),
                setup,
            });
        }
        report.parts.push(Part::new("source", name, findings));
    }
}

/// The records of the running services.
struct Records {
    /// The coverage report of the API, or the reason why there is none.
    coverage: Result<Value, String>,
    refused: Refused,
}

/// Returns the part of the coverage report about a source.
fn coverage_of(name: &str, answers: &SourceAnswers, coverage: &Value) -> SourceCoverage {
    let setup = answers.setup.as_ref().ok();
    let registry = setup.and_then(|setup| Some(setup.registry.as_ref()?.to_string()));
    SourceCoverage::of(name, registry.as_deref(), coverage)
}

/// Tries the targets of all triggers, each in a task.
fn targets(file: &Arc<File>) -> JoinSet<(usize, Vec<Finding>)> {
    let mut tasks = JoinSet::new();
    for place in 0..file.trigger.len() {
        let file = Arc::clone(file);
        tasks.spawn(async move {
            let report = tagtrail_trigger::inspect_target(&file, place).await;
            (
                place,
                report.map_or_else(Vec::new, |report| judge::target(&report)),
            )
        });
    }
    tasks
}

/// Tries to follow the annotated objects of clusters, each cluster in a task.
fn clusters(file: &Arc<File>) -> JoinSet<(usize, Option<Vec<TargetProblem>>)> {
    let mut tasks = JoinSet::new();
    for place in 0..file.cluster.len() {
        let file = Arc::clone(file);
        tasks.spawn(async move { (place, tagtrail_trigger::inspect_cluster(&file, place).await) });
    }
    tasks
}

/// Tries the receivers of messages, each in a task, without a message.
fn receivers(file: &Arc<File>) -> JoinSet<(usize, Vec<Finding>)> {
    let mut tasks = JoinSet::new();
    for place in 0..file.notify.len() {
        let file = Arc::clone(file);
        tasks.spawn(async move {
            let report = tagtrail_trigger::inspect_notify(&file, place).await;
            let problems = report.map_or_else(Vec::new, |report| report.problems);
            (place, judge::receiver(&problems))
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
