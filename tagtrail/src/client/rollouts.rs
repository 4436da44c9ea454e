//! `tagtrail rollouts`.

use serde_json::Value;

use super::Answer;
use super::api::{Api, Failure};
use super::print::{field, items, more, short, table};

/// The question.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollouts {
    /// The trigger; without it those of all.
    trigger: Option<String>,
    /// Most rollouts to show.
    #[arg(long, default_value_t = 50, value_parser = limit)]
    limit: usize,
}

impl Rollouts {
    pub(crate) async fn ask(self, api: &Api) -> Result<Answer, Failure> {
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
        Ok(Answer { json, text })
    }
}

/// `web#17=sha256:0123456789ab worker#4=…`
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

/// How much of a list may be asked for.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=100_000) => Ok(limit),
        _ => Err("must be a number from 1 to 100000".to_owned()),
    }
}
