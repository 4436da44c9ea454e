//! `tagtrail history`.

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items, more, short, table};

/// Arguments of `tagtrail history`.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// The image, such as registry.example.com/shop/web:latest (without a tag: latest).
    image: String,
    /// Most revisions to list.
    #[arg(long, default_value_t = 50, value_parser = super::rollouts::limit)]
    limit: usize,
}

impl History {
    pub(crate) async fn run(self, api: &Api) -> Result<Printable, Failure> {
        let json = api
            .list(&["history"], &[("image", Some(self.image))], self.limit)
            .await?;
        let rows = items(&json).iter().map(|item| {
            let late = if item.get("late").and_then(serde_json::Value::as_bool) == Some(true) {
                " (late)"
            } else {
                ""
            };
            [
                field(item, "revision"),
                format!("{}{late}", field(item, "kind")),
                short(&field(item, "digest")),
                field(item, "occurred_at"),
                field(item, "actor"),
                field(item, "source"),
            ]
        });
        let text = table(
            ["REVISION", "KIND", "DIGEST", "SINCE", "ACTOR", "SOURCE"],
            rows,
        ) + more(&json);
        Ok(Printable { json, text })
    }
}
