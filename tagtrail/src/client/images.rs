//! `tagtrail images`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};

/// Arguments of `tagtrail images`.
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Begin of the names, with or without the registry, such as registry.example.com/shop/
    /// [default: all].
    prefix: Option<String>,
    /// Only names that contain this text, in any case.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// The order: by name, the newest change first, or the most changes in 24 hours first
    /// [default: name].
    #[arg(long, value_name = "ORDER", value_parser = ["name", "newest", "changes"])]
    sort: Option<String>,
    /// Also count tags that hold signatures, attestations and the like (`sha256-….sig`).
    #[arg(long)]
    signatures: bool,
    #[command(flatten)]
    paging: Paging,
}

impl Images {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let query = [
            ("prefix", self.prefix.clone()),
            ("q", self.contains.clone()),
            ("sort", self.sort),
            ("signatures", self.signatures.then(|| "true".to_owned())),
        ];
        let json = self
            .paging
            .list(api, screen, &["repositories"], &query)
            .await?;
        if items(&json).is_empty() {
            return Err(Failure::not_found(match (self.prefix, self.contains) {
                (Some(prefix), None) => format!(
                    "the name of no image begins with {prefix}; `tagtrail images` lists all"
                ),
                (None, Some(part)) => {
                    format!("the name of no image contains {part}; `tagtrail images` lists all")
                }
                (Some(prefix), Some(part)) => format!(
                    "the name of no image begins with {prefix} and contains {part}; `tagtrail images` lists all"
                ),
                (None, None) => "no push has been recorded yet".to_owned(),
            }));
        }
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::name("REPOSITORY"),
        Column::whole("TAGS"),
        Column::whole("DELETED"),
        Column::whole("IN 24 H"),
        Column::whole("CHANGED"),
    ];
    let rows = items(list).iter().map(|item| {
        let [registry, repository, tags, deleted, recent, changed] = [
            "registry",
            "repository",
            "tags",
            "deleted",
            "recent_changes",
            "changed_at",
        ]
        .map(|name| field(item, name));
        let name = format!("{registry}/{repository}");
        [name, tags, deleted, recent, screen.time(&changed)]
    });
    table(screen, columns, rows) + &more(list)
}
