//! `tagtrail rollouts`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, items, more};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::{Printable, suggest};

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
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let query = [("trigger", self.trigger.clone())];
        let answer = api.list(&["rollouts"], &query, self.limit).await;
        let json = match &self.trigger {
            Some(trigger) => suggest::trigger(api, trigger, answer).await?,
            None => answer?,
        };
        let text = describe(&json, screen);
        Ok(Printable { json, text })
    }
}

/// Errors are sentences: they stand below the table, with the number of attempts.
pub(super) fn describe(list: &Value, screen: &Screen) -> String {
    let columns = [
        Column::name("TRIGGER"),
        Column::whole("NUMBER"),
        Column::state("STATE"),
        Column::whole("ATTEMPTS").only_wide(),
        Column::whole("CREATED"),
        Column::text("IMAGES"),
    ];
    let mut errors = String::new();
    let rows = items(list).iter().map(|item| {
        let [trigger, number, attempts, created] =
            ["trigger", "number", "attempts", "created_at"].map(|name| field(item, name));
        let state = state(item);
        errors += &failure(item, screen);
        let images = images(item, screen);
        let created = screen.time(&created);
        [trigger, number, state, attempts, created, images]
    });
    table(screen, columns, rows) + &errors + more(list)
}

/// Formats the state of a rollout. A rollout whose last attempt failed, and which is not ended,
/// waits for its next attempt or is in it: `retrying (2)` after two attempts.
pub(crate) fn state(rollout: &Value) -> String {
    match is_retried(rollout) {
        true => format!("retrying ({})", field(rollout, "attempts")),
        false => field(rollout, "state"),
    }
}

/// Returns whether the last attempt failed, and the rollout is attempted again soon.
pub(crate) fn is_retried(rollout: &Value) -> bool {
    field(rollout, "state") == "running" && field(rollout, "error") != "-"
}

/// Returns a line with the error of a rollout's last attempt; otherwise nothing.
pub(crate) fn failure(rollout: &Value, screen: &Screen) -> String {
    let [trigger, number, attempts, error] =
        ["trigger", "number", "attempts", "error"].map(|name| field(rollout, name));
    if error == "-" {
        return String::new();
    }
    let state = state(rollout);
    let state = state.split(' ').next().unwrap_or_default();
    let text = format!("{trigger} {number}, {state} after attempt {attempts}: {error}");
    format!("\n{}", wrap(screen, &text, 0))
}

/// Formats the images of a rollout: `web#17=0123456789ab worker#4=…`.
pub(crate) fn images(rollout: &Value, screen: &Screen) -> String {
    let Some(images) = rollout.get("images").and_then(Value::as_object) else {
        return "-".to_owned();
    };
    let one = |(name, image): (&String, &Value)| {
        let digest = screen.digest(&field(image, "digest"));
        format!("{name}#{}={digest}", field(image, "revision"))
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
