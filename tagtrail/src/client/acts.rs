//! `tagtrail acts`.

use super::Printable;
use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::time::{self, Time};

/// Arguments of `tagtrail acts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Acts {
    /// Name of the trigger [default: all acts].
    trigger: Option<String>,
    /// List the acts of this token.
    #[arg(long, value_name = "TOKEN_NAME")]
    actor: Option<String>,
    /// List acts at this time or later, such as 2026-03-03T14:02:00Z or 2h (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
    #[command(flatten)]
    paging: Paging,
}

impl Acts {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let query = [
            ("trigger", self.trigger),
            ("actor", self.actor),
            (
                "since",
                time::text(self.since.as_ref(), screen.zone.as_ref())?,
            ),
        ];
        let json = self.paging.list(api, screen, &["acts"], &query).await?;
        let columns = [
            Column::whole("TIME"),
            Column::name("ACTOR"),
            Column::whole("ACT"),
            Column::name("TRIGGER"),
            Column::whole("ADDRESS").only_wide(),
            Column::text("REASON"),
        ];
        let rows = items(&json).iter().map(|act| {
            let at = screen.time(&field(act, "at"));
            let [actor, word, trigger, address, reason] =
                ["actor", "act", "trigger", "address", "reason"].map(|name| field(act, name));
            [at, actor, word, trigger, address, reason]
        });
        let text = match items(&json) {
            [] => "no act is recorded".to_owned(),
            _ => table(screen, columns, rows) + &more(&json),
        };
        Ok(Printable { json, text })
    }
}
