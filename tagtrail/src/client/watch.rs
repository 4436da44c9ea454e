//! `tagtrail watch`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::Output;
use super::api::{Api, Failure};
use super::print::{field, line, short};

/// The question.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Which images, such as registry.example.com/shop/**:latest; `*` within a part, `**` for any parts [default: all].
    pattern: Option<String>,
    /// Begin with what was recorded at this time or later, such as 2026-03-03T14:02:00Z, rather than with what comes next.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End after so many revisions.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    /// Follows the live feed and prints what comes. Once it has begun, a lost connection is made again and nothing is missed.
    pub(crate) async fn follow(self, api: &Api, output: Output) -> Result<(), Failure> {
        let query = [("match", self.pattern), ("since", self.since)];
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut last: Option<String> = None;
        let mut attempt = 0;
        loop {
            let mut events = match api.follow(&query, last.as_deref()).await {
                Ok(events) => events,
                Err(failure) if last.is_some() && failure.passes => {
                    attempt += 1;
                    again(&failure.message, attempt).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let ended = loop {
                let event = match events.next().await {
                    Ok(Some(event)) => event,
                    Ok(None) => break "the API ended the feed".to_owned(),
                    Err(error) => break format!("the connection to the API was lost: {error}"),
                };
                attempt = 0;
                if event.name != "revision" {
                    break event.data; // `dropped`: says why.
                }
                show(&event.data, output)?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            };
            if let Some(id) = events.last_id() {
                last = Some(id.to_owned());
            }
            attempt += 1;
            again(&ended, attempt).await;
        }
    }
}

/// Says why, and waits a little.
async fn again(why: &str, attempt: u32) {
    let pause = tagtrail_daemon::backoff(attempt).min(Duration::from_secs(2));
    let _ = writeln!(std::io::stderr(), "{why}; trying again in {pause:.1?}");
    tokio::time::sleep(pause).await;
}

/// One revision on one line: the `CloudEvent` for programs, the gist of it for people.
fn show(event: &str, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return line(event);
    }
    let event: Value = serde_json::from_str(event).map_err(|_| {
        Failure::failed("the API's event is not JSON; is --api the address of Tagtrail's API?")
    })?;
    let data = &event["data"];
    let digest = short(&field(data, "digest"));
    let late = if data["late"] == true { " (late)" } else { "" };
    line(&format!(
        "{}  {}#{}  {}{late}  {digest}  {}",
        field(data, "occurred_at"),
        field(&event, "subject"),
        field(data, "revision"),
        field(data, "kind"),
        field(data, "actor"),
    ))
}
