//! `tagtrail holds`, `freeze` and `thaw`.

use serde_json::{Value, json};

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::time::{self, Time};

/// Arguments of `tagtrail holds`.
#[derive(Debug, clap::Args)]
pub(crate) struct Holds {
    /// Also list holds that ended at this time or later, such as 2026-03-03T14:02:00Z or 7d (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    ended_since: Option<Time>,
}

/// Arguments of `tagtrail freeze`.
#[derive(Debug, clap::Args)]
pub(crate) struct Freeze {
    /// Name of a trigger, or a pattern such as 'shop-*'.
    triggers: String,
    /// The reason, which `tagtrail holds` lists.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The time at which the freeze ends by itself [default: `tagtrail thaw` ends it].
    #[arg(long, value_name = "TIME", value_parser = super::time::parse)]
    until: Option<Time>,
    /// Also hold orders for images that have succeeded before, such as a rollback.
    #[arg(long)]
    hard: bool,
}

/// Arguments of `tagtrail thaw`.
#[derive(Debug, clap::Args)]
pub(crate) struct Thaw {
    /// Id of the freeze, as `tagtrail holds` lists it.
    id: u64,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Holds {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let since = time::text(self.ended_since.as_ref(), screen.zone.as_ref())?;
        let json = api.get(&["holds"], &[("ended_since", since)]).await?;
        let text = match items(&json) {
            [] if self.ended_since.is_some() => {
                "no hold is in force, and none has ended since".to_owned()
            }
            [] => "no hold is in force".to_owned(),
            holds => describe(holds, screen),
        };
        Ok(Printable { json, text })
    }
}

impl Freeze {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let until = time::text(self.until.as_ref(), screen.zone.as_ref())?;
        let body = json!({
            "triggers": self.triggers, "reason": self.reason, "until": until, "hard": self.hard,
        });
        let json = api.post(&["holds"], Some(&body)).await?;
        let text = describe(std::slice::from_ref(&json), screen);
        Ok(Printable { json, text })
    }
}

impl Thaw {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = self.reason.map(|reason| json!({ "reason": reason }));
        let id = self.id.to_string();
        let json = api.delete(&["holds", &id], body.as_ref()).await?;
        let ended = describe(std::slice::from_ref(&json), screen);
        let text = format!("{ended}\nended the freeze {id}");
        Ok(Printable { json, text })
    }
}

fn describe(holds: &[Value], screen: &Screen) -> String {
    let rows = holds.iter().map(|hold| {
        let [id, kind, triggers, actor, until, reason] =
            ["id", "kind", "triggers", "actor", "until", "reason"].map(|name| field(hold, name));
        let until = match (field(hold, "ended_at").as_str(), until.as_str()) {
            ("-", "-") => until,
            ("-", time) => screen.time(time),
            (ended, _) => format!("ended {}", screen.time(ended)),
        };
        let kind = match hold.get("hard") {
            Some(Value::Bool(true)) => format!("{kind} (hard)"),
            _ => kind,
        };
        [id, kind, triggers, actor, until, reason]
    });
    let columns = [
        Column::whole("ID"),
        Column::whole("KIND"),
        Column::name("TRIGGERS"),
        Column::name("BY"),
        Column::whole("UNTIL"),
        Column::text("REASON"),
    ];
    table(screen, columns, rows)
}
