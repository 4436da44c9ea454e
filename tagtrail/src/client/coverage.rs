//! `tagtrail coverage`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items, table};

/// Arguments of `tagtrail coverage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Coverage {
    /// Count changes recorded since this time (RFC 3339) [default: seven days ago].
    #[arg(long, value_name = "TIME", value_parser = super::time::text)]
    since: Option<String>,
}

impl Coverage {
    pub(crate) async fn run(self, api: &Api) -> Result<Printable, Failure> {
        let json = api.get(&["coverage"], &[("since", self.since)]).await?;
        let rows = items(&json).iter().map(|item| {
            let changes = item.get("changes").unwrap_or(&Value::Null);
            let [event, resolved, observed, reconciled, reordered, imported] = [
                "event",
                "resolved",
                "observed",
                "reconciled",
                "reordered",
                "imported",
            ]
            .map(|name| field(changes, name));
            let lost = match item.get("lost_share").and_then(Value::as_f64) {
                Some(share) => format!("{:.1} %", share * 100.0),
                None => "-".to_owned(),
            };
            [
                field(item, "registry"),
                field(item, "source"),
                event,
                resolved,
                observed,
                reconciled,
                lost,
                reordered,
                imported,
                field(item, "last_event_at"),
                field(item, "last_reconciled_at"),
            ]
        });
        let names = [
            "REGISTRY",
            "SOURCE",
            "EVENT",
            "RESOLVED",
            "OBSERVED",
            "RECONCILED",
            "LOST",
            "REORDERED",
            "IMPORTED",
            "LAST EVENT",
            "LAST RECONCILED",
        ];
        let mut text = match items(&json) {
            [] => format!("no changes since {}", field(&json, "since")),
            _ => table(names, rows),
        };
        let not_compared = json.get("not_compared").and_then(Value::as_array);
        let failed: Vec<_> = not_compared.into_iter().flatten().collect();
        if !failed.is_empty() {
            let rows = failed.iter().map(|failed| {
                [
                    format!(
                        "{}/{}",
                        field(failed, "registry"),
                        field(failed, "repository")
                    ),
                    field(failed, "failed_at"),
                    field(failed, "last_reconciled_at"),
                    field(failed, "reason"),
                ]
            });
            let names = ["NOT COMPARED", "FAILED", "LAST RECONCILED", "REASON"];
            text = format!("{}\n\n{}", text.trim_end(), table(names, rows));
        }
        Ok(Printable { json, text })
    }
}
