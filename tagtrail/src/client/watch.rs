//! `tagtrail watch`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, line, warning};
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
    /// Begin with the events recorded since this time, such as 2026-03-03T14:02:00Z
    /// [default: only new ones].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
    /// Kinds of events: revision, rollout (each change of its state), hold (set, released, expired)
    /// and trigger (each change of its condition), separated by commas [default: revision].
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Of rollouts, holds and triggers only those of the triggers with this name, or whose name
    /// matches, such as shop-*.
    #[arg(long, value_name = "TRIGGER", requires = "kinds")]
    trigger: Option<String>,
    /// Also show tags that hold signatures, attestations and the like (`sha256-….sig`).
    #[arg(long)]
    signatures: bool,
    /// End after this number of events.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    /// Prints the events of the live feed. After a lost connection, reconnects and continues after
    /// the last event, so that none is missed.
    pub(crate) async fn follow(self, api: &Api, screen: &Screen) -> Result<(), Failure> {
        let mixed = !self.kinds.is_empty();
        let mut lines = match mixed {
            true => Lines::mixed(screen),
            false => Lines::new(screen),
        };
        let pattern = self.pattern.clone().unwrap_or_default();
        let signatures = self.signatures.then(|| "true".to_owned());
        let query = [
            ("match", self.pattern),
            (
                "since",
                time::text(self.since.as_ref(), screen.zone.as_ref())?,
            ),
            ("signatures", signatures),
            ("kinds", mixed.then(|| self.kinds.join(","))),
            ("trigger", self.trigger),
        ];
        // An API of an earlier version has only the feed of revisions.
        let feed = if mixed { "events" } else { "revisions" };
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut last: Option<String> = None;
        let mut attempt = 0;
        loop {
            let mut events = match api.follow(feed, &query, last.as_deref()).await {
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
                    kind @ ("revision" | "rollout" | "hold" | "trigger") => {
                        lines.print(kind, &event.data)?;
                        left -= 1;
                        if left == 0 {
                            return Ok(());
                        }
                    }
                    "place" => show_images(&event.data, &pattern),
                    "dropped" => break event.data, // The reason.
                    "reset" => show_reset(&event.data),
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

/// Warns that changes are missing.
fn show_reset(problem: &str) {
    let problem: Value = serde_json::from_str(problem).unwrap_or_default();
    warning(&field(&problem, "detail"));
}

/// Prints the reason, and waits before the next attempt.
async fn back_off(reason: &str, attempt: u32) {
    let pause = tagtrail_daemon::backoff(attempt).min(Duration::from_secs(2));
    let _ = writeln!(std::io::stderr(), "{reason}; retrying in {pause:.1?}");
    tokio::time::sleep(pause).await;
}

/// Prints events: the `CloudEvent` for programs, the main fields in columns for people.
pub(super) struct Lines<'a> {
    screen: &'a Screen,
    columns: [Column; 5],
    /// The day of the last line.
    day: String,
}

impl<'a> Lines<'a> {
    /// Lines of revisions.
    pub(super) fn new(screen: &'a Screen) -> Lines<'a> {
        Lines::with(screen, ("KIND", 9), ["IMAGE", "ACTOR"])
    }

    /// Lines of several kinds of events.
    pub(super) fn mixed(screen: &'a Screen) -> Lines<'a> {
        Lines::with(screen, ("CHANGE", 17), ["OF", "DETAIL"])
    }

    fn with(
        screen: &'a Screen,
        (kind, width): (&str, usize),
        [image, actor]: [&str; 2],
    ) -> Lines<'a> {
        // The widths are fixed, because the rows to come are unknown. The actor has less than a
        // third of the room that the other columns leave.
        let room = screen.width.map_or(80, usize::from);
        let room = room.saturating_sub(28 + width);
        let narrow = (room / 4).clamp(8, 20);
        let columns = [
            Column::whole("TIME").fixed(8),
            Column::state(kind).fixed(width),
            Column::whole("DIGEST").fixed(12),
            Column::name(image).fixed(room.saturating_sub(narrow).max(12)),
            Column::name(actor).fixed(narrow),
        ];
        Lines {
            screen,
            columns,
            day: String::new(),
        }
    }

    fn print(&mut self, kind: &str, event: &str) -> Result<(), Failure> {
        if self.screen.output == Output::Json {
            return line(event);
        }
        let event: Value = serde_json::from_str(event).map_err(|_| {
            Failure::failed(
                "the event is not JSON; set the address of Tagtrail's API with --api or TAGTRAIL_API",
            )
        })?;
        for text in self.format(kind, &event) {
            line(&text)?;
        }
        Ok(())
    }

    /// Returns the line of an event. A line with the day and the offset of its times stands before
    /// the first event of each day, and the names of the columns at the start.
    pub(super) fn format(&mut self, kind: &str, event: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        let at = match kind {
            "revision" => field(&event["data"], "occurred_at"),
            _ => field(event, "time"),
        };
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
        let [change, digest, of, detail] = self.cells(kind, event);
        let cells = [time, change, digest, of, detail];
        lines.push(row(self.screen, &self.columns, cells));
        lines
    }

    /// Returns the change, the digest, the object and a detail of an event.
    fn cells(&self, kind: &str, event: &Value) -> [String; 4] {
        let data = &event["data"];
        let none = String::new;
        match kind {
            "rollout" => {
                let (trigger, number) = (field(data, "trigger"), field(data, "number"));
                let detail = match data["error"].is_string() {
                    true => field(data, "error"),
                    false => field(&data["cause"], "reason"),
                };
                let of = format!("rollout {trigger}#{number}");
                [field(data, "state"), none(), of, detail]
            }
            "hold" => {
                let of = format!("{} of {}", field(data, "kind"), field(data, "triggers"));
                [field(data, "change"), none(), of, field(data, "reason")]
            }
            "trigger" => {
                let of = format!("trigger {}", field(data, "trigger"));
                let why = field(&data["reasons"][0], "why");
                [field(data, "condition"), none(), of, why]
            }
            _ => {
                // News about the past.
                let late = if data["late"] == true { " late" } else { "" };
                let number = field(data, "revision");
                let image = format!("{}#{number}{late}", field(event, "subject"));
                let digest = self.screen.digest(&field(data, "digest"));
                [field(data, "kind"), digest, image, field(data, "actor")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::screen::tests::screen;

    #[test]
    fn each_kind_has_a_line_that_names_change_and_object() {
        let screen = screen(100);
        let mut lines = Lines::mixed(&screen);
        let time = "2026-03-03T14:02:00Z";
        for (kind, data, words) in [
            (
                "rollout",
                json!({ "trigger": "shop", "number": 17, "state": "awaiting_approval", "cause": { "reason": "revision" }, "error": null }),
                [
                    "14:02:00",
                    "awaiting_approval",
                    "rollout shop#17",
                    "revision",
                ],
            ),
            (
                "rollout",
                json!({ "trigger": "shop", "number": 18, "state": "failed", "error": "answered 500" }),
                ["14:02:00", "failed", "rollout shop#18", "answered 500"],
            ),
            (
                "hold",
                json!({ "triggers": "shop-*", "kind": "freeze", "change": "set", "reason": "sale" }),
                ["14:02:00", "set", "freeze of shop-*", "sale"],
            ),
            (
                "trigger",
                json!({ "trigger": "shop", "condition": "broken", "reasons": [{ "why": "line 3" }] }),
                ["14:02:00", "broken", "trigger shop", "line 3"],
            ),
        ] {
            let event = json!({ "time": time, "data": data });
            let line = lines.format(kind, &event).pop().unwrap();
            for word in words {
                assert!(line.contains(word), "{word}: {line}");
            }
        }
    }
}
