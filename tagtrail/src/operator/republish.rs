//! `tagtrail republish`: revisions once more, from Postgres to REVISIONS.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use sqlx::{ConnectOptions as _, Connection as _};
use tagtrail_postgres::DbArgs;
use tagtrail_proto::{Image, instant};
use time::OffsetDateTime;

use super::Servers;

/// What is published again.
#[derive(Debug, clap::Args)]
pub(crate) struct Republish {
    /// All revisions of this image, such as registry.example.com/shop/web:latest.
    #[arg(long, required_unless_present = "since", conflicts_with = "since")]
    image: Option<Image>,
    /// All revisions of every image of which something was recorded at this time or later, such as 2026-03-03T14:02:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<OffsetDateTime>,
    /// URL of Postgres with its credentials [default: what `tagtrail up` wrote into its data folder].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(flatten)]
    servers: Servers,
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    instant::parse(text).ok_or_else(|| "write a time such as 2026-03-03T14:02:00Z".to_owned())
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
            .context("can't reach Postgres: check DATABASE_URL, and that it runs")?;
        let bus = self.servers.bus().await?;
        let what = match (self.image, self.since) {
            (Some(image), _) => tagtrail_indexer::Republish::Image(image),
            (None, Some(time)) => tagtrail_indexer::Republish::Since(time),
            (None, None) => bail!("say what: --image or --since"),
        };
        let mut shown = std::time::Instant::now();
        let total = tagtrail_indexer::republish(&mut db, &bus, what, |done| {
            // Progress, now and then.
            if shown.elapsed().as_secs() >= 2 {
                shown = std::time::Instant::now();
                say(&format!("{done} revisions so far"));
            }
        })
        .await?;
        db.close().await?;
        if total.images == 0 {
            say("error: nothing is known of it: no push of it was ever recorded");
            return Ok(ExitCode::from(3));
        }
        say(&format!(
            "published {} revisions of {} images again",
            total.revisions, total.images
        ));
        Ok(ExitCode::SUCCESS)
    }
}

fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
