//! `tagtrail triggers`, `pause` and `resume`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::{Printable, rollouts, suggest};

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

/// Returns a line about a paused trigger whose images have newer heads; otherwise nothing.
fn newer_heads(trigger: &Value, screen: &Screen) -> String {
    let [name, state] = ["name", "state"].map(|key| field(trigger, key));
    let heads = match trigger.get("newer").and_then(Value::as_u64) {
        None | Some(0) => return String::new(),
        _ if state != "paused" => return String::new(),
        Some(1) => "1 newer head".to_owned(),
        Some(newer) => format!("{newer} newer heads"),
    };
    let text = format!("{name} is paused, {heads}: `tagtrail resume {name}` starts a rollout");
    format!("\n{}", wrap(screen, &text, 0))
}

pub(super) fn describe(triggers: &[Value], screen: &Screen) -> String {
    let rows = triggers.iter().map(|trigger| {
        let current = trigger.get("current").filter(|current| !current.is_null());
        let [number, outcome, images] = match current {
            Some(rollout) => [
                field(rollout, "number"),
                rollouts::state(rollout),
                rollouts::images(rollout, screen),
            ],
            None => ["-"; 3].map(str::to_owned),
        };
        [
            field(trigger, "name"),
            field(trigger, "state"),
            field(trigger, "target"),
            number,
            outcome,
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
        text += &newer_heads(trigger, screen);
        if let Some(rollout) = trigger.get("current") {
            text += &rollouts::failure(rollout, screen);
        }
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
    fn newer_heads_of_a_paused_trigger_and_attempts_are_shown() {
        let current = json!({ "trigger": "shop", "number": 4, "state": "running", "attempts": 2, "error": "exit status: 7" });
        let trigger = |state: &str, newer: u64| json!({ "name": "shop", "state": state, "target": "command", "newer": newer, "current": current });
        let text = describe(&[trigger("paused", 1)], &screen(80));
        assert!(text.contains("retrying (2)"), "{text}");
        assert!(
            text.ends_with(
                "\nshop is paused, 1 newer head: `tagtrail resume shop` starts a rollout\nshop 4, retrying after attempt 2: exit status: 7"
            ),
            "{text}"
        );
        let text = describe(&[trigger("paused", 3)], &screen(80));
        assert!(text.contains("paused, 3 newer heads"), "{text}");
        for nothing_newer in [trigger("paused", 0), trigger("active", 1)] {
            let text = describe(&[nothing_newer], &screen(80));
            assert!(!text.contains("newer"), "{text}");
        }
    }

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
