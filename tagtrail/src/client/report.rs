//! `tagtrail report`.

use jiff::civil::Date;
use serde_json::Value;
use tagtrail_proto::instant;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, pairs, table_of, wrap};
use super::time::{self, Time};

/// Arguments of `tagtrail report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// Name of a report: deployments, lead-time, rollout-time, releases-moved, coverage, churn or
    /// running (what ran when).
    name: String,
    /// The first day (UTC) or time, such as 2026-03-01 or 7d (ago) [default: 30 days ago].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = end)]
    from: Option<End>,
    /// The last day (UTC), which is included, or the end [default: now].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = end)]
    to: Option<End>,
    /// Only images that match this pattern, such as 'registry.example.com/shop/**'.
    #[arg(long = "match", value_name = "PATTERN")]
    pattern: Option<String>,
    /// Only this trigger.
    #[arg(long, value_name = "NAME")]
    trigger: Option<String>,
    /// Only triggers with this value of the label `team`.
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// Only facts that were recorded until then count, so the same question has the same answer
    /// for ever.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time::parse)]
    known_at: Option<Time>,
    /// Print the SQL statement that makes the report, over the schema `report`.
    #[arg(long)]
    sql: bool,
}

/// An end of a report: the API takes a day as a whole.
#[derive(Debug, Clone)]
enum End {
    Day(String),
    Time(Time),
}

fn end(text: &str) -> Result<End, String> {
    let text = text.trim();
    match text.len() == "2026-03-01".len() && text.parse::<Date>().is_ok() {
        true => Ok(End::Day(text.to_owned())),
        false => time::parse(text).map(End::Time),
    }
}

impl End {
    fn text(self, screen: &Screen) -> Result<String, Failure> {
        match self {
            End::Day(day) => Ok(day),
            End::Time(time) => time.text(screen.zone.as_ref()),
        }
    }
}

impl Report {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let end = |end: Option<End>| end.map(|end| end.text(screen)).transpose();
        let query = [
            ("from", end(self.from)?),
            ("to", end(self.to)?),
            ("match", self.pattern),
            ("trigger", self.trigger),
            ("team", self.team),
            (
                "known_at",
                time::text(self.known_at.as_ref(), screen.zone.as_ref())?,
            ),
        ];
        let json = api.get(&["reports", &self.name], &query).await?;
        let text = match self.sql {
            true => field(&json, "sql"),
            false => describe(&json, screen),
        };
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(json: &Value, screen: &Screen) -> String {
    let [from, to] = ["from", "to"].map(|name| screen.time(&field(json, name)));
    let about = wrap(screen, &field(json, "about"), 0);
    let about = format!("{about}\n{from} to {to}");
    let rows = items(json);
    if rows.is_empty() {
        return format!("{about}\n\nnothing in this time");
    }
    let columns = json["columns"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<String> = columns.iter().map(|one| field(one, "name")).collect();
    let cell = |row: &Value, name: &String| match row.get(name) {
        Some(Value::String(text)) => screen.time(text),
        Some(Value::Number(number)) => figure(number),
        _ => field(row, name),
    };
    let cells = |row: &Value| names.iter().map(|name| cell(row, name)).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let column = |name: &String| {
        let title = name.replace('_', " ").to_uppercase();
        // Names are cut where the screen is narrow; times and numbers are not.
        let text = |row: &Value| {
            let text = row.get(name).and_then(Value::as_str);
            text.is_some_and(|text| instant::parse(text).is_none())
        };
        match rows.iter().any(text) {
            true => Column::name(title),
            false => Column::whole(title),
        }
    };
    let columns: Vec<Column> = names.iter().map(column).collect();
    let table = table_of(screen, &columns, &cells).unwrap_or_else(|| {
        let block = |row: Vec<String>| {
            let values = row.into_iter();
            pairs(
                screen,
                names.iter().cloned().zip(values).map(<[String; 2]>::from),
            )
        };
        let blocks: Vec<String> = cells.into_iter().map(block).collect();
        blocks.join("\n\n")
    });
    format!("{about}\n\n{table}")
}

/// Formats a number for people: seconds and shares with two digits.
fn figure(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => format!("{value:.2}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_whole_and_other_times_are_exact() {
        for (text, day) in [
            ("2026-03-01", true),
            ("2026-03-01T14:02:00Z", false),
            ("7d", false),
        ] {
            assert_eq!(matches!(end(text), Ok(End::Day(_))), day, "{text}");
        }
        assert!(end("2026-13-01").is_err());
        assert!(end("soon").is_err());
    }
}
