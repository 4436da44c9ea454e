//! `tagtrail watch`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, line};
use super::screen::{Output, Screen};
use super::table::{Column, row, table};
use super::time::{self, Time};

/// Arguments of `tagtrail watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Pattern of the images, such as registry.example.com/shop/**:latest, or shop/** in any
    /// registry. `*` matches within a path segment, `**` any number of segments [default: all
    /// images].
    pattern: Option<String>,
    /// Begin with the revisions recorded since this time, such as 2026-03-03T14:02:00Z
    /// [default: only new ones].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
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
    pub(crate) async fn follow(self, api: &Api, screen: &Screen) -> Result<(), Failure> {
        let mut lines = Lines::new(screen);
        let pattern = self.pattern.clone().unwrap_or_default();
        let signatures = self.signatures.then(|| "true".to_owned());
        let query = [
            ("match", self.pattern),
            (
                "since",
                time::text(self.since.as_ref(), screen.zone.as_ref())?,
            ),
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
                        lines.print(&event.data)?;
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
    let _ = writeln!(std::io::stderr(), "{reason}; retrying in {pause:.1?}");
    tokio::time::sleep(pause).await;
}

/// Prints revisions: the `CloudEvent` for programs, the main fields in columns for people.
pub(super) struct Lines<'a> {
    screen: &'a Screen,
    columns: [Column; 5],
    /// The day of the last line.
    day: String,
}

impl<'a> Lines<'a> {
    pub(super) fn new(screen: &'a Screen) -> Lines<'a> {
        // The widths are fixed, because the rows to come are unknown. The actor has less than a
        // third of the room that the other columns leave.
        let room = screen.width.map_or(80, usize::from).saturating_sub(37);
        let actor = (room / 4).clamp(8, 20);
        let columns = [
            Column::whole("TIME").fixed(8),
            Column::state("KIND").fixed(9),
            Column::whole("DIGEST").fixed(12),
            Column::name("IMAGE").fixed(room.saturating_sub(actor).max(12)),
            Column::name("ACTOR").fixed(actor),
        ];
        Lines {
            screen,
            columns,
            day: String::new(),
        }
    }

    fn print(&mut self, event: &str) -> Result<(), Failure> {
        if self.screen.output == Output::Json {
            return line(event);
        }
        let event: Value = serde_json::from_str(event).map_err(|_| {
            Failure::failed(
                "the event is not JSON; set the address of Tagtrail's API with --api or TAGTRAIL_API",
            )
        })?;
        for text in self.format(&event) {
            line(&text)?;
        }
        Ok(())
    }

    /// Returns the line of a revision. A line with the day and the offset of its times stands
    /// before the first revision of each day, and the names of the columns at the start.
    pub(super) fn format(&mut self, event: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        let data = &event["data"];
        let at = field(data, "occurred_at");
        let (day, mut time) = self.screen.day_and_time(&at).unwrap_or_default();
        if self.screen.width.is_none() {
            time = self.screen.time(&at);
        }
        if self.day.is_empty() {
            let none: [[String; 5]; 0] = [];
            lines.push(table(self.screen, self.columns.clone(), none));
        }
        if self.day != day && self.screen.width.is_some() {
            lines.push(day.clone());
        }
        self.day = day;
        // News about the past.
        let late = if data["late"] == true { " late" } else { "" };
        let image = format!(
            "{}#{}{late}",
            field(event, "subject"),
            field(data, "revision")
        );
        let cells = [
            time,
            field(data, "kind"),
            self.screen.digest(&field(data, "digest")),
            image,
            field(data, "actor"),
        ];
        lines.push(row(self.screen, &self.columns, cells));
        lines
    }
}
