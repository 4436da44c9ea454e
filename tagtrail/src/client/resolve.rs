//! `tagtrail resolve`.

use serde_json::Value;

use super::Answer;
use super::api::{Api, Failure};
use super::print::{field, table};

/// The question.
#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// The image, such as registry.example.com/shop/web:latest (without a tag: latest).
    image: String,
    /// What it meant at this time, such as 2026-03-03T14:02:00Z.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// By what was known at this time: leaves out what was recorded later.
    #[arg(long, value_name = "TIME")]
    known_at: Option<String>,
    /// What this revision is.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["at", "known_at"])]
    revision: Option<u64>,
    /// Print the pinned reference and nothing else.
    #[arg(long, short)]
    quiet: bool,
}

impl Resolve {
    pub(crate) async fn ask(self, api: &Api) -> Result<Answer, Failure> {
        let query = [
            ("image", Some(self.image)),
            ("at", self.at),
            ("known_at", self.known_at),
            ("revision", self.revision.map(|number| number.to_string())),
        ];
        let json = api.get(&["resolve"], &query).await?;
        let text = if self.quiet {
            field(&json, "pinned")
        } else {
            describe(&json)
        };
        Ok(Answer { json, text })
    }
}

fn describe(found: &Value) -> String {
    let names = ["REVISION", "KIND", "SINCE", "PINNED"];
    table(
        names,
        [["revision", "kind", "occurred_at", "pinned"].map(|name| field(found, name))],
    )
}
