//! `tagtrail triggers`, `pause` and `resume`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::rollouts::images;
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::{Printable, suggest};

/// Arguments of `tagtrail triggers`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {}

/// Arguments of `tagtrail pause`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    /// Name of the trigger.
    trigger: String,
}

/// Arguments of `tagtrail resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// Name of the trigger.
    trigger: String,
}

impl List {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let json = api.get(&["triggers"], &[]).await?;
        let text = describe(items(&json), screen);
        Ok(Printable { json, text })
    }
}

impl Pause {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        switch(api, &self.trigger, "pause", screen).await
    }
}

impl Resume {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        switch(api, &self.trigger, "resume", screen).await
    }
}

async fn switch(
    api: &Api,
    trigger: &str,
    action: &str,
    screen: &Screen,
) -> Result<Printable, Failure> {
    let answer = api.post(&["triggers", trigger, action]).await;
    let json = suggest::trigger(api, trigger, answer).await?;
    let text = describe(std::slice::from_ref(&json), screen);
    Ok(Printable { json, text })
}

pub(super) fn describe(triggers: &[Value], screen: &Screen) -> String {
    let rows = triggers.iter().map(|trigger| {
        let current = trigger.get("current").filter(|current| !current.is_null());
        let [number, state, images] = match current {
            Some(rollout) => [
                field(rollout, "number"),
                field(rollout, "state"),
                images(rollout, screen),
            ],
            None => ["-"; 3].map(str::to_owned),
        };
        [
            field(trigger, "name"),
            field(trigger, "state"),
            field(trigger, "target"),
            number,
            state,
            images,
        ]
    });
    let columns = [
        Column::name("TRIGGER"),
        Column::state("STATE"),
        Column::whole("TARGET"),
        Column::whole("ROLLOUT"),
        Column::state("OUTCOME"),
        Column::text("IMAGES"),
    ];
    let mut text = table(screen, columns, rows);
    for trigger in triggers {
        let waiting = trigger.get("waiting").and_then(Value::as_array);
        for gate in waiting.into_iter().flatten() {
            let [name, image, why, since] = [
                field(trigger, "name"),
                field(gate, "image"),
                field(gate, "why"),
                field(gate, "since"),
            ];
            let (since, gate) = (screen.time(&since), field(gate, "gate"));
            let zone = screen.zone();
            let waits = format!("{name} waits since {since} {zone} (gate {gate}):");
            for (line, indent) in [(waits, 0), (format!("{image}: {why}"), 2)] {
                text += "\n";
                text += &wrap(screen, &line, indent);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::screen::tests::screen;
    use super::*;

    #[test]
    fn a_closed_gate_is_shown_below_the_table() {
        let trigger = json!({
            "name": "shop", "state": "active", "target": "webhook", "current": null,
            "waiting": [{
                "gate": "recheck", "image": "registry.example.com/shop/web:stable",
                "registry": "registry.example.com", "why": "it is asked", "since": "2026-03-03T14:00:00Z",
                "opens_at": null,
            }],
        });
        let text = describe(&[trigger], &screen(80));
        assert!(
            text.ends_with(
                "\nshop waits since 2026-03-03 14:00:00 UTC (gate recheck):\n  registry.example.com/shop/web:stable: it is asked"
            ),
            "{text}"
        );
    }
}
