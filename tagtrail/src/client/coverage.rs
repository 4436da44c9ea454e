//! `tagtrail coverage`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::time::{self, Time};

/// Arguments of `tagtrail coverage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Coverage {
    /// Count changes recorded since the hour (UTC) of this time, such as 2026-03-03 or 2d
    /// [default: seven days ago].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
}

impl Coverage {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let since = time::text(self.since.as_ref(), screen.zone.as_ref())?;
        let json = api.get(&["coverage"], &[("since", since)]).await?;
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(json: &Value, screen: &Screen) -> String {
    let mut text = match items(json) {
        [] => format!("no changes since {}", screen.time(&field(json, "since"))),
        registries => changes(registries, screen),
    };
    if let Some(uncounted) = json["uncounted"].as_u64().filter(|count| *count > 0) {
        text += &format!("\n\n{uncounted} recorded changes are not counted yet");
    }
    let not_compared = json.get("not_compared").and_then(Value::as_array);
    if let Some(failed) = not_compared.filter(|failed| !failed.is_empty()) {
        text += "\n\n";
        text += &describe_failed(failed, screen);
    }
    text
}

/// The origins of changes.
const ORIGINS: [&str; 6] = [
    "event",
    "resolved",
    "observed",
    "reconciled",
    "reordered",
    "imported",
];

/// Formats a line for each origin with changes: eight columns of numbers fit no terminal. Lines of
/// the same registry and source follow each other, and the first line has the names.
fn changes(registries: &[Value], screen: &Screen) -> String {
    let columns = [
        Column::name("REGISTRY"),
        Column::name("SOURCE"),
        Column::state("ORIGIN"),
        Column::whole("CHANGES"),
        Column::whole("LAST EVENT"),
    ];
    let mut rows = Vec::new();
    for item in registries {
        let mut names = [field(item, "registry"), field(item, "source")];
        let mut add = |origin: &str, changes: String, last: Option<String>| {
            let [registry, source] = std::mem::take(&mut names);
            rows.push([
                registry,
                source,
                origin.to_owned(),
                changes,
                last.map_or_else(String::new, |last| screen.time(&last)),
            ]);
        };
        let counts = item.get("changes").unwrap_or(&Value::Null);
        for origin in ORIGINS {
            let count = field(counts, origin);
            // Events are always shown: none is news, too.
            if origin == "event" {
                let last = field(item, "last_event_at");
                add(origin, count, Some(last).filter(|last| last != "-"));
            } else if count != "0" {
                add(origin, count, None);
            }
        }
        if let Some(signatures) = item["signatures"].as_u64().filter(|count| *count > 0) {
            add("signatures", signatures.to_string(), None);
        }
        if let Some(share) = item.get("lost_share").and_then(Value::as_f64) {
            let state = if share > 0.0 { "lost" } else { "none lost" };
            add(state, format!("{:.1} %", share * 100.0), None);
        }
    }
    table(screen, columns, rows) + &describe_compared(registries, screen)
}

/// Formats the time of the last comparison of each registry. A registry has an item for each of
/// its sources.
fn describe_compared(registries: &[Value], screen: &Screen) -> String {
    let compared = registries.iter().filter_map(|item| {
        let last = item.get("last_reconciled_at")?.as_str()?;
        Some((field(item, "registry"), last))
    });
    let compared: BTreeMap<String, &str> = compared.collect();
    let mut text = String::new();
    for (registry, last) in compared {
        text += if text.is_empty() { "\n\n" } else { "\n" };
        let at = screen.time(last);
        let line = format!("{registry}: last compared with history at {at}");
        text += &wrap(screen, &line, 0);
    }
    text
}

/// Formats the repositories whose last comparison did not reach its end.
fn describe_failed(failed: &[Value], screen: &Screen) -> String {
    let columns = [
        Column::name("NOT COMPARED"),
        Column::whole("FAILED"),
        Column::whole("LAST RECONCILED").only_wide(),
        Column::text("REASON"),
    ];
    let rows = failed.iter().map(|failed| {
        let [registry, repository] = ["registry", "repository"].map(|name| field(failed, name));
        let [failed_at, last] =
            ["failed_at", "last_reconciled_at"].map(|name| screen.time(&field(failed, name)));
        let reason = field(failed, "reason");
        [format!("{registry}/{repository}"), failed_at, last, reason]
    });
    table(screen, columns, rows)
}
