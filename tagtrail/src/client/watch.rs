//! `tagtrail watch`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::Output;
use super::api::{Api, Failure};
use super::print::{field, line, short};

/// Arguments of `tagtrail watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Pattern of the images, such as registry.example.com/shop/**:latest, or shop/** in any
    /// registry. `*` matches within a path segment, `**` any number of segments [default: all
    /// images].
    pattern: Option<String>,
    /// Begin with the revisions recorded since this time, such as 2026-03-03T14:02:00Z
    /// [default: only new ones].
    #[arg(long, value_name = "TIME", value_parser = super::time::text)]
    since: Option<String>,
    /// Also show tags that hold signatures, attestations and the like (`sha256-….sig`).
    #[arg(long)]
    signatures: bool,
    /// End after this number of revisions.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    /// Prints the revisions of the live feed. After a lost connection, reconnects and continues
    /// after the last event, so that no revision is missed.
    pub(crate) async fn follow(self, api: &Api, output: Output) -> Result<(), Failure> {
        let pattern = self.pattern.clone().unwrap_or_default();
        let signatures = self.signatures.then(|| "true".to_owned());
        let query = [
            ("match", self.pattern),
            ("since", self.since),
            ("signatures", signatures),
        ];
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut last: Option<String> = None;
        let mut attempt = 0;
        loop {
            let mut events = match api.follow(&query, last.as_deref()).await {
                Ok(events) => events,
                Err(failure) if last.is_some() && failure.retryable => {
                    attempt += 1;
                    back_off(&failure.message, attempt).await;
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
                match event.name.as_str() {
                    "revision" => {
                        show(&event.data, output)?;
                        left -= 1;
                        if left == 0 {
                            return Ok(());
                        }
                    }
                    "place" => show_images(&event.data, &pattern),
                    "dropped" => break event.data, // The reason.
                    _ => {}
                }
            };
            if let Some(id) = events.last_id() {
                last = Some(id.to_owned());
            }
            attempt += 1;
            back_off(&ended, attempt).await;
        }
    }
}

/// Prints the number of images that match, which the first event of the feed has. The number goes
/// to standard error, so that standard output has only revisions.
fn show_images(place: &str, pattern: &str) {
    let place: Value = serde_json::from_str(place).unwrap_or_default();
    let text = match place["images"].as_u64() {
        None => return,
        Some(0) => format!("no known image matches {pattern} so far; waiting for revisions"),
        Some(1) => format!("1 known image matches {pattern}; waiting for revisions"),
        Some(images) => format!("{images} known images match {pattern}; waiting for revisions"),
    };
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints the reason, and waits before the next attempt.
async fn back_off(reason: &str, attempt: u32) {
    let pause = tagtrail_daemon::backoff(attempt).min(Duration::from_secs(2));
    let _ = writeln!(std::io::stderr(), "{reason}; trying again in {pause:.1?}");
    tokio::time::sleep(pause).await;
}

/// Prints a revision on a line: the `CloudEvent` for programs, the main fields for people.
fn show(event: &str, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return line(event);
    }
    let event: Value = serde_json::from_str(event).map_err(|_| {
        Failure::failed(
            "the event is not JSON; set the address of Tagtrail's API with --api or TAGTRAIL_API",
        )
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
