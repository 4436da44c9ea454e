//! `tagtrail resolve`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::field;
use super::screen::Screen;
use super::table::{Column, table};
use super::time::{self, Time};
use super::{Printable, suggest};

/// Arguments of `tagtrail resolve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    /// The image, such as registry.example.com/shop/web:latest (without a tag: latest).
    image: String,
    /// Print the digest at this time, such as 2026-03-03T14:02:00Z or 2h (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    at: Option<Time>,
    /// Ignore revisions recorded after this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    known_at: Option<Time>,
    /// Print the digest of this revision.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["at", "known_at"])]
    revision: Option<u64>,
    /// Print only the pinned reference.
    #[arg(long, short)]
    quiet: bool,
}

impl Resolve {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let time = |given: Option<&Time>| time::text(given, screen.zone.as_ref());
        let query = [
            ("image", Some(self.image.clone())),
            ("at", time(self.at.as_ref())?),
            ("known_at", time(self.known_at.as_ref())?),
            ("revision", self.revision.map(|number| number.to_string())),
        ];
        let answer = api.get(&["resolve"], &query).await;
        let json = suggest::image(api, &self.image, answer).await?;
        let text = if self.quiet {
            field(&json, "pinned")
        } else {
            describe(&json, screen)
        };
        Ok(Printable { json, text })
    }
}

/// The table has the digest; only a wide table has room for the pinned reference.
pub(super) fn describe(revision: &Value, screen: &Screen) -> String {
    let columns = [
        Column::whole("REVISION"),
        Column::state("KIND"),
        Column::whole("SINCE"),
        Column::whole("DIGEST"),
        Column::name("PINNED").only_wide(),
    ];
    let [number, kind, since, digest, pinned] =
        ["revision", "kind", "occurred_at", "digest", "pinned"].map(|name| field(revision, name));
    let (since, digest) = (screen.time(&since), screen.digest(&digest));
    table(screen, columns, [[number, kind, since, digest, pinned]])
}
