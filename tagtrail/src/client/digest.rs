//! `tagtrail digest`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items, more};
use super::screen::Screen;
use super::table::{Column, table};

/// Arguments of `tagtrail digest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Digest {
    /// The full digest: sha256:… or sha512:….
    digest: String,
    /// Most images to list.
    #[arg(long, default_value_t = 50, value_parser = super::rollouts::limit)]
    limit: usize,
}

impl Digest {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let mut json = api
            .list(&["digests", &self.digest], &[], self.limit)
            .await?;
        if items(&json).is_empty() {
            return Err(Failure::not_found(format!(
                "no image ever had {}",
                self.digest
            )));
        }
        let text = describe(&json, screen);
        if let Some(answer) = json.as_object_mut() {
            answer.insert("digest".to_owned(), self.digest.into());
        }
        Ok(Printable { json, text })
    }
}

pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::name("IMAGE"),
        Column::whole("REVISION"),
        Column::whole(screen.time_name("FROM")),
        Column::whole("UNTIL"),
    ];
    let rows = items(list).iter().map(|item| {
        let [mut image, revision, from, until] =
            ["image", "revision", "from", "until"].map(|name| field(item, name));
        if item.get("signature") == Some(&Value::Bool(true)) {
            image += " (signature)";
        }
        [image, revision, screen.time(&from), screen.time(&until)]
    });
    table(screen, columns, rows) + more(list)
}
