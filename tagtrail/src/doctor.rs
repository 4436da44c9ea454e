//! `tagtrail doctor`: asks everything that a push has to pass whether it would, and says what to set in the registries.
//!
//! [`ask`] does all that waits for somebody, side by side and bounded in time; [`judge`] says what it means (pure), and [`report`]
//! how that is told. No secret is printed: what is printed in its place is where it is kept.

mod ask;
mod judge;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use tagtrail_config::File;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::client::api::{Api, Failure};
use crate::client::{Output, print};
use judge::Heard;
use report::{Finding, Part, Report, Settings};

/// What is checked.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The file with the sources and registries.
    #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
    config: PathBuf,
    /// Where registries reach the gateway. It is tried from here, and stands in the settings that are printed.
    #[arg(long, env = "TAGTRAIL_GATEWAY", default_value = "http://127.0.0.1:8400", value_name = "URL", value_parser = address)]
    gateway: Url,
    /// Print what to set in the registry of every source, and not only of those that no event came from.
    #[arg(long)]
    setup: bool,
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    // It is printed, so it can't hold a password.
    let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && plain(url))
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .ok_or_else(|| "write an address such as http://127.0.0.1:8400".to_owned())
}

impl Doctor {
    /// Fails where something is wrong, after everything is told.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let file = File::load(&self.config).map_err(|error| Failure::failed(error.to_string()))?;
        let report = self.examine(Arc::new(file), api).await?;
        match output {
            Output::Table => print::line(&report.text())?,
            Output::Json => print::line(&format!("{:#}", report.json()))?,
        }
        match report.wrong() {
            0 => Ok(()),
            wrong => Err(Failure::failed(format!(
                "{wrong} of {} checks found something wrong",
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
        let coverage = ask::coverage(api).await;
        let mut report = Report::new(self.gateway.host_str(), self.setup);
        report.parts.push(Part::new(
            "file",
            String::new(),
            vec![judge::file(&self.config, &file)],
        ));
        let known: Vec<_> = file
            .registry
            .iter()
            .map(|access| access.name.get_ref())
            .collect();
        for (place, asked) in in_order(sources).await {
            let entry = &file.source[place];
            let name = entry.name.get_ref().to_string();
            let mut findings = judge::source(entry, &asked, &known);
            let registry = asked.setup.as_ref().ok().and_then(|setup| {
                let registry = setup.registry.as_ref()?;
                Some(registry.to_string())
            });
            let heard = coverage
                .as_ref()
                .ok()
                .map(|answer| Heard::of(&name, registry.as_deref(), answer));
            if let Some(heard) = &heard {
                findings.extend(judge::events(heard, OffsetDateTime::now_utc()));
            }
            if let Ok(setup) = asked.setup
                && (self.setup || heard.is_some_and(|heard| heard.is_silent()))
            {
                report.settings.push(Settings {
                    source: name.clone(),
                    setup,
                });
            }
            report.parts.push(Part::new("source", name, findings));
        }
        for (place, answer) in in_order(registries).await {
            let access = &file.registry[place];
            let name = access.name.get_ref().to_string();
            report.parts.push(Part::new(
                "registry",
                name,
                judge::registry(access, &answer),
            ));
        }
        let api = match coverage {
            Ok(_) => Finding::ok("events", "it tells when events came"),
            Err(why) => judge::no_coverage(&why),
        };
        report
            .parts
            .push(Part::new("api", String::new(), vec![api]));
        Ok(report)
    }
}

/// What all tasks found, in the order of the file.
async fn in_order<T: 'static>(tasks: JoinSet<(usize, T)>) -> Vec<(usize, T)> {
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found
}
