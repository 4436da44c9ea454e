//! `tagtrail digest`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items, more, table};

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
    pub(crate) async fn run(self, api: &Api) -> Result<Printable, Failure> {
        let mut json = api
            .list(&["digests", &self.digest], &[], self.limit)
            .await?;
        if items(&json).is_empty() {
            return Err(Failure::not_found(format!(
                "no image ever had {}",
                self.digest
            )));
        }
        let rows = items(&json).iter().map(|item| {
            let mut row = ["image", "revision", "from", "until"].map(|name| field(item, name));
            if item.get("signature") == Some(&Value::Bool(true)) {
                row[0] += " (signature)";
            }
            row
        });
        let text = table(["IMAGE", "REVISION", "FROM", "UNTIL"], rows) + more(&json);
        if let Some(answer) = json.as_object_mut() {
            answer.insert("digest".to_owned(), self.digest.into());
        }
        Ok(Printable { json, text })
    }
}
