//! `tagtrail rollouts`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::time::{self, Time};
use super::{Printable, suggest};

/// Arguments of `tagtrail rollouts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollouts {
    /// Name of the trigger [default: all triggers].
    trigger: Option<String>,
    /// Only rollouts in this state, such as failed.
    #[arg(long)]
    state: Option<String>,
    /// Only rollouts with this image, or, without a tag, with any tag of this repository.
    #[arg(long)]
    image: Option<String>,
    /// Only rollouts with an image whose name contains this text, in any case.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only rollouts recorded at this time or later, such as 2026-03-03T14:02:00Z or 2h (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    since: Option<Time>,
    /// Only rollouts recorded before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    until: Option<Time>,
    #[command(flatten)]
    paging: Paging,
}

impl Rollouts {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let time = |given: Option<&Time>| time::text(given, screen.zone.as_ref());
        let query = [
            ("trigger", self.trigger.clone()),
            ("state", self.state.clone()),
            ("image", self.image.clone()),
            ("q", self.contains.clone()),
            ("since", time(self.since.as_ref())?),
            ("until", time(self.until.as_ref())?),
        ];
        let answer = self.paging.list(api, screen, &["rollouts"], &query).await;
        let json = match &self.trigger {
            Some(trigger) => suggest::trigger(api, trigger, answer).await?,
            None => answer?,
        };
        let text = match items(&json) {
            [] => "no rollout".to_owned(),
            _ => describe(&json, screen),
        };
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
        errors += &gates(item, screen);
        let images = images(item, screen);
        let created = screen.time(&created);
        [trigger, number, state, attempts, created, images]
    });
    table(screen, columns, rows) + &errors + &more(list)
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

/// Returns a line about each closed gate of a rollout.
pub(crate) fn gates(rollout: &Value, screen: &Screen) -> String {
    let [trigger, number] = ["trigger", "number"].map(|name| field(rollout, name));
    let mut text = String::new();
    let gates = rollout.get("gates").and_then(Value::as_array);
    for closed in gates.into_iter().flatten() {
        let [gate, why, since, opens_at] =
            ["gate", "why", "since", "opens_at"].map(|name| field(closed, name));
        let opens = match opens_at.as_str() {
            "-" => String::new(),
            at => format!("; the gate opens at {}", screen.time(at)),
        };
        let since = screen.time(&since);
        let line = format!(
            "{trigger} {number} waits since {since} at the closed gate {gate}: {why}{opens}"
        );
        text += "\n";
        text += &wrap(screen, &line, 0);
    }
    text
}

/// Formats the images of a rollout: `web#17=0123456789ab by ci-bot, before #16=…; worker#4=…`. A
/// policy moves from tag to tag: `web:1.10.0#1=0123456789ab, before :1.9.0#1=…`.
pub(crate) fn images(rollout: &Value, screen: &Screen) -> String {
    let Some(images) = rollout.get("images").and_then(Value::as_object) else {
        return "-".to_owned();
    };
    let one = |(name, image): (&String, &Value)| {
        let mut text = format!("{name}{}", point(image, true, screen));
        if let Some(actor) = image.get("actor").and_then(Value::as_str) {
            text += &format!(" by {actor}");
        }
        if let Some(previous) = image.get("previous").filter(|point| !point.is_null()) {
            let other_tag = previous.get("image") != image.get("image");
            text += &format!(", before {}", point(previous, other_tag, screen));
        }
        text
    };
    images.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Formats a revision of an image: `:1.10.0#1=0123456789ab`. The tag `latest` goes without saying.
fn point(image: &Value, with_tag: bool, screen: &Screen) -> String {
    let [image_name, revision, digest] =
        ["image", "revision", "digest"].map(|key| field(image, key));
    let tag = match image_name.rsplit_once(':') {
        Some((_, tag)) if with_tag && tag != "latest" => format!(":{tag}"),
        _ => String::new(),
    };
    format!("{tag}#{revision}={}", screen.digest(&digest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::screen::tests::screen;

    #[test]
    fn an_image_names_its_tag_unless_it_is_latest() {
        let image = |tag: &str, revision: u64| json!({ "image": format!("r.example.com/shop/web:{tag}"), "revision": revision, "digest": "sha256:0123456789abcdef" });
        let shown = |mut web: Value, previous: Value| {
            web["previous"] = previous;
            images(&json!({ "images": { "web": web } }), &screen(80))
        };
        for (now, before, expected) in [
            (image("latest", 17), Value::Null, "web#17=0123456789ab"),
            (
                image("latest", 17),
                image("latest", 16),
                "web#17=0123456789ab, before #16=0123456789ab",
            ),
            (
                image("1.10.0", 1),
                image("1.9.0", 3),
                "web:1.10.0#1=0123456789ab, before :1.9.0#3=0123456789ab",
            ),
            (
                image("1.10.0", 2),
                image("1.10.0", 1),
                "web:1.10.0#2=0123456789ab, before #1=0123456789ab",
            ),
        ] {
            assert_eq!(shown(now, before), expected);
        }
    }
}
