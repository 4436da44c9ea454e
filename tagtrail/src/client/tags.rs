//! `tagtrail tags`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::time::{self, Time};
use super::{Printable, suggest};

/// Arguments of `tagtrail tags`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tags {
    /// The image, such as registry.example.com/shop/web. A tag or digest of it is ignored.
    image: String,
    /// Only tags whose name contains this text, in any case.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only tags with two revisions or more (moving), that look like a version (release), with one
    /// revision (once), or that were deleted (deleted) [default: all].
    #[arg(long, value_name = "CLASS", value_parser = ["moving", "release", "once", "deleted", "all"])]
    class: Option<String>,
    /// The order: by name, the newest revision first, or the most changes first [default: name].
    #[arg(long, value_name = "ORDER", value_parser = ["name", "newest", "changes"])]
    sort: Option<String>,
    /// Print the digests at this time, such as 2026-03-03T14:02:00Z [default: now].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    at: Option<Time>,
    /// Also list tags that were deleted.
    #[arg(long)]
    deleted: bool,
    /// Also list tags that hold signatures, attestations and the like (`sha256-….sig`).
    #[arg(long)]
    signatures: bool,
    #[command(flatten)]
    paging: Paging,
}

impl Tags {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let flag = |given: bool| given.then(|| "true".to_owned());
        let query = [
            ("repository", Some(repository(&self.image).to_owned())),
            ("q", self.contains.clone()),
            ("class", self.class.clone()),
            ("sort", self.sort),
            ("at", time::text(self.at.as_ref(), screen.zone.as_ref())?),
            ("deleted", flag(self.deleted)),
            ("signatures", flag(self.signatures)),
        ];
        let answer = self.paging.list(api, screen, &["tags"], &query).await;
        let json = suggest::image(api, &self.image, answer).await?;
        let text = match items(&json) {
            [] if self.contains.is_some() || self.class.is_some() => {
                "no tag is so; without --contains and --class all are listed".to_owned()
            }
            [] => "no tag had a digest; --deleted lists tags that were deleted".to_owned(),
            _ => describe(&json, screen),
        };
        Ok(Printable { json, text })
    }
}

/// Returns an image without its tag and digest.
pub(super) fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[start..].find(':').map(|colon| start + colon);
    &name[..end.unwrap_or(name.len())]
}

pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::name("TAG"),
        Column::whole("REVISION"),
        Column::state("KIND"),
        Column::whole("DIGEST"),
        Column::whole("SINCE"),
    ];
    let rows = items(list).iter().map(|item| {
        let [image, revision, kind, digest, since] =
            ["image", "revision", "kind", "digest", "occurred_at"].map(|name| field(item, name));
        let tag = image.rsplit(':').next().unwrap_or_default().to_owned();
        [
            tag,
            revision,
            kind,
            screen.digest(&digest),
            screen.time(&since),
        ]
    });
    table(screen, columns, rows) + &more(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_image_without_tag_and_digest() {
        for image in [
            "a.b:5000/c/d",
            "a.b:5000/c/d:v1",
            "a.b:5000/c/d@sha256:00",
            "a.b:5000/c/d:v1@sha256:00",
        ] {
            assert_eq!(repository(image), "a.b:5000/c/d", "{image}");
        }
        assert_eq!(repository("web:v1"), "web");
    }
}
