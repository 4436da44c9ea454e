//! A request of `verify` whose answer shows whether the images run well.

use std::sync::Arc;

use reqwest::Client;
use tagtrail_config::{File, Fresh, Trigger};

use super::super::address::Allowed;
use super::super::contract::{TargetProblem, readable_secrets};
use super::super::said::Said;
use super::caller::{body, cause, link_local, plain};
use super::settings::{Access, Settings};

/// The time limit of a whole exchange without `timeout_seconds`, in seconds: a healthy service
/// answers fast.
const TIMEOUT: i64 = 10;

/// A request whose answer is judged by its status.
pub(in crate::target) struct Probe {
    client: Client,
    settings: Arc<Settings>,
    access: Fresh<Access>,
    /// The addresses to which requests may go. `None`: to all.
    allowed: Option<Allowed>,
    /// The statuses that pass; empty: any 2xx.
    status: Vec<u16>,
}

impl Probe {
    /// Reads the settings of a step: `http` and `status`, and further keys of `target.webhook`.
    pub(in crate::target) fn new(
        written: &toml::Table,
        trigger: &Trigger,
        file: &File,
    ) -> Result<Probe, String> {
        let mut settings = written.clone();
        let status = settings.remove("status").map_or(Ok(Vec::new()), statuses)?;
        if let Some(url) = settings.remove("http") {
            settings.insert("url".to_owned(), url);
        }
        settings
            .entry("timeout_seconds")
            .or_insert(toml::Value::Integer(TIMEOUT));
        let named = |message: String| match message.strip_prefix("url") {
            Some(rest) => format!("http{rest}"),
            None => message,
        };
        let settings =
            Settings::parse(&toml::Value::Table(settings), trigger.folder()).map_err(named)?;
        let settings = Arc::new(settings);
        let of = format!("verify of trigger {}", trigger.name.get_ref());
        let access = Access::fresh(&settings, of).map_err(named)?;
        let allowed = Allowed::of(trigger, file);
        let client = settings.client(&access.get(), allowed.as_ref());
        Ok(Probe {
            client: client.map_err(named)?,
            access,
            allowed,
            settings,
            status,
        })
    }

    /// Sends the request. An error says why its answer did not pass; it has no URL, which may hold a
    /// secret.
    pub(in crate::target) async fn attempt(&self, said: &Said) -> Result<(), String> {
        let access = self.access.get();
        said.hide(access.hidden());
        // A secret may have brought another address.
        self.allowed
            .as_ref()
            .map_or(Ok(()), |one| one.check(&access.url))?;
        let server = access.server();
        let request = self.client.get(access.url.clone());
        let answer = request.headers(access.headers.clone()).send().await;
        let answer = answer
            .map_err(|error| format!("no answer from {server}: {}", cause(error, &access)))?;
        let status = answer.status();
        let passed = match self.status.is_empty() {
            true => status.is_success(),
            false => self.status.contains(&status.as_u16()),
        };
        if passed {
            return Ok(());
        }
        let text = body(answer, &access, said).await;
        let colon = if text.is_empty() { "" } else { ": " };
        Err(format!("{server} answered {status}{colon}{text}"))
    }

    /// Judges the settings.
    pub(in crate::target) fn judge(&self) -> Vec<TargetProblem> {
        let access = self.access.get();
        let mut problems: Vec<TargetProblem> = link_local(&access).into_iter().collect();
        // Without credentials there is nothing to read along.
        if !access.headers.is_empty() {
            problems.extend(plain(&access, "its credentials", "them"));
        }
        problems.extend(readable_secrets(self.settings.places()));
        problems
    }
}

fn statuses(written: toml::Value) -> Result<Vec<u16>, String> {
    let list: Option<Vec<u16>> = written.try_into().ok();
    let list = list.filter(|list| {
        let known = |status: &u16| (200..=599).contains(status);
        !list.is_empty() && list.iter().all(known)
    });
    list.ok_or_else(|| {
        "status is a list of HTTP statuses from 200 to 599, such as status = [200, 401]".to_owned()
    })
}
