//! `tagtrail republish`: publishes revisions that Postgres has to REVISIONS again.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use sqlx::{ConnectOptions as _, Connection as _};
use tagtrail_postgres::DbArgs;
use tagtrail_proto::Image;

use super::Servers;
use crate::client::time::Time;

/// Arguments of `tagtrail republish`.
#[derive(Debug, clap::Args)]
pub(crate) struct Republish {
    /// Republish all revisions of this image, such as registry.example.com/shop/web:latest.
    #[arg(long, required_unless_present = "since", conflicts_with = "since")]
    image: Option<Image>,
    /// Republish all revisions of each image with a push recorded at this time or later, such as
    /// 2026-03-03T14:02:00Z.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = crate::client::time::parse)]
    since: Option<Time>,
    /// URL of Postgres, with credentials [default: from the data folder of `tagtrail up`].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(flatten)]
    servers: Servers,
}

impl Republish {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let given = self.database_url.as_deref();
        let db = DbArgs {
            url: self.servers.url(given, "postgres", "DATABASE_URL")?,
        };
        let mut db = db
            .options("republish")?
            .connect()
            .await
            .context("can't reach Postgres: check DATABASE_URL, and that the server runs")?;
        let bus = self.servers.bus().await?;
        let selection = match (self.image, self.since) {
            (Some(image), _) => tagtrail_indexer::Republish::Image(image),
            (None, Some(time)) => {
                let time = time
                    .at(Some(&jiff::tz::TimeZone::system()))
                    .map_err(|failure| anyhow!(failure.message))?;
                tagtrail_indexer::Republish::Since(time)
            }
            (None, None) => bail!("--image or --since is required"),
        };
        let mut shown = std::time::Instant::now();
        let total = tagtrail_indexer::republish(&mut db, &bus, selection, |done| {
            if shown.elapsed().as_secs() >= 2 {
                shown = std::time::Instant::now();
                print(&format!("{done} revisions so far"));
            }
        })
        .await?;
        db.close().await?;
        if total.images == 0 {
            print("error: no push was ever recorded for this image, or since this time");
            return Ok(ExitCode::from(3));
        }
        print(&format!(
            "published {} revisions of {} images again",
            total.revisions, total.images
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
