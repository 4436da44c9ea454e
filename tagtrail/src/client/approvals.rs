//! `tagtrail approvals`, `approve` and `reject`.

use serde_json::{Value, json};

use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::{Printable, orders, rollouts, suggest};

/// Arguments of `tagtrail approvals`.
#[derive(Debug, clap::Args)]
pub(crate) struct Approvals {
    /// Name of a trigger [default: all triggers].
    trigger: Option<String>,
}

/// Arguments of `tagtrail approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// Ids of rollouts, as `tagtrail approvals` lists them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `tagtrail reject`.
#[derive(Debug, clap::Args)]
pub(crate) struct Reject {
    /// Ids of rollouts, as `tagtrail approvals` lists them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The reason, which the rollout shows.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Approvals {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        if let Some(trigger) = &self.trigger {
            let answer = api.get(&["triggers", trigger], &[]).await;
            suggest::trigger(api, trigger, answer).await?;
        }
        let query = [("trigger", self.trigger)];
        let json = api.get(&["approvals"], &query).await?;
        let text = match items(&json) {
            [] => "no rollout waits for approvals".to_owned(),
            waiting => describe(waiting, screen),
        };
        Ok(Printable { json, text })
    }
}

impl Approve {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = self.reason.map(|reason| json!({ "reason": reason }));
        give(api, screen, &self.ids, ("approve", body.as_ref())).await
    }
}

impl Reject {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = json!({ "reason": self.reason });
        give(api, screen, &self.ids, ("reject", Some(&body))).await
    }
}

async fn give(
    api: &Api,
    screen: &Screen,
    ids: &[String],
    (verdict, body): (&str, Option<&Value>),
) -> Result<Printable, Failure> {
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        answers.push(api.post(&["rollouts", id, verdict], body).await?);
    }
    let text = orders::effects(&answers, screen);
    let json = json!({ "items": answers });
    Ok(Printable { json, text })
}

fn describe(waiting: &[Value], screen: &Screen) -> String {
    let rows = waiting.iter().map(|one| {
        let rollout = &one["rollout"];
        let given = one.get("given").and_then(Value::as_array);
        let mut people: Vec<String> = given
            .into_iter()
            .flatten()
            .map(|given| field(given, "actor"))
            .collect();
        people.sort();
        people.dedup();
        let mut so_far = format!("{} of {}", people.len(), field(one, "needs"));
        if !people.is_empty() {
            so_far += &format!(" ({})", people.join(", "));
        }
        [
            field(rollout, "id"),
            field(rollout, "trigger"),
            field(rollout, "number"),
            so_far,
            rollouts::images(rollout, screen),
        ]
    });
    let columns = [
        Column::whole("ID"),
        Column::name("TRIGGER"),
        Column::whole("NUMBER"),
        Column::text("APPROVALS"),
        Column::text("IMAGES"),
    ];
    table(screen, columns, rows)
}
