//! `tagtrail rollouts`.

use serde_json::Value;

use super::Printable;
use super::api::{Api, Failure};
use super::print::{field, items, more, short, table};

/// Arguments of `tagtrail rollouts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollouts {
    /// Name of the trigger [default: all triggers].
    trigger: Option<String>,
    /// Most rollouts to list.
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
}

impl Rollouts {
    pub(crate) async fn run(self, api: &Api) -> Result<Printable, Failure> {
        let json = api
            .list(&["rollouts"], &[("trigger", self.trigger)], self.limit)
            .await?;
        let rows = items(&json).iter().map(|item| {
            let [trigger, number, state, attempts, created, error] = [
                "trigger",
                "number",
                "state",
                "attempts",
                "created_at",
                "error",
            ]
            .map(|name| field(item, name));
            [
                trigger,
                number,
                state,
                attempts,
                created,
                images(item),
                error,
            ]
        });
        let text = table(
            [
                "TRIGGER", "NUMBER", "STATE", "ATTEMPTS", "CREATED", "IMAGES", "ERROR",
            ],
            rows,
        ) + more(&json);
        Ok(Printable { json, text })
    }
}

/// Formats the images of a rollout: `web#17=sha256:0123456789ab worker#4=…`.
pub(crate) fn images(rollout: &Value) -> String {
    let Some(images) = rollout.get("images").and_then(Value::as_object) else {
        return "-".to_owned();
    };
    let one = |(name, image): (&String, &Value)| {
        format!(
            "{name}#{}={}",
            field(image, "revision"),
            short(&field(image, "digest"))
        )
    };
    images.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Parses the value of `--limit`.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=100_000) => Ok(limit),
        _ => Err("must be a number from 1 to 100000".to_owned()),
    }
}
