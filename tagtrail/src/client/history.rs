//! `tagtrail history`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::time::{self, Time};
use super::{Printable, suggest};

/// Arguments of `tagtrail history`.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// The image, such as registry.example.com/shop/web:latest (without a tag: latest).
    image: String,
    /// List revisions that took effect at this time or later, such as 2026-03-03T14:02:00Z or 2h
    /// (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
    /// List revisions that took effect before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    until: Option<Time>,
    #[command(flatten)]
    paging: Paging,
}

impl History {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let time = |given: Option<&Time>| time::text(given, screen.zone.as_ref());
        let query = [
            ("image", Some(self.image.clone())),
            ("since", time(self.since.as_ref())?),
            ("until", time(self.until.as_ref())?),
        ];
        let answer = self.paging.list(api, screen, &["history"], &query).await;
        let json = suggest::image(api, &self.image, answer).await?;
        let text = match items(&json) {
            [] => "no revision took effect in this time".to_owned(),
            _ => describe(&json, screen),
        };
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::whole("REVISION"),
        Column::state("KIND"),
        Column::whole("DIGEST"),
        Column::whole("SINCE"),
        Column::name("ACTOR"),
        Column::name("SOURCE").only_wide(),
        Column::whole("ORIGIN").only_wide(),
    ];
    let rows = items(list).iter().map(|item| {
        let late = match item.get("late") {
            Some(Value::Bool(true)) => " (late)",
            _ => "",
        };
        [
            field(item, "revision"),
            format!("{}{late}", field(item, "kind")),
            screen.digest(&field(item, "digest")),
            screen.time(&field(item, "occurred_at")),
            field(item, "actor"),
            field(item, "source"),
            field(item, "origin"),
        ]
    });
    table(screen, columns, rows) + &more(list)
}
