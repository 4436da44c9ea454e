//! `tagtrail digest`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::{Printable, suggest};

/// Arguments of `tagtrail digest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Digest {
    /// The digest: whole (sha256:…), or its first six hex digits or more. Of an image: its present
    /// digest.
    digest: String,
    #[command(flatten)]
    paging: Paging,
}

impl Digest {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let digest = digest_of(api, &self.digest).await?;
        let json = self
            .paging
            .list(api, screen, &["digests", &digest], &[])
            .await?;
        if items(&json).is_empty() {
            return Err(Failure::not_found(format!(
                "no image ever had {}",
                field(&json, "digest")
            )));
        }
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

/// Returns the digest that an argument means: as given, of a pinned reference, or of an image now.
pub(super) async fn digest_of(api: &Api, given: &str) -> Result<String, Failure> {
    if let Some((_, digest)) = given.split_once('@') {
        return Ok(digest.to_owned());
    }
    if !given.contains('/') {
        return Ok(given.to_owned());
    }
    let answer = api
        .get(&["resolve"], &[("image", Some(given.to_owned()))])
        .await;
    let resolved = suggest::image(api, given, answer).await?;
    Ok(field(&resolved, "digest"))
}

pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::name("IMAGE"),
        Column::whole("REVISION"),
        Column::whole("FROM"),
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
    table(screen, columns, rows) + &more(list)
}
