//! `tagtrail triggers`.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::{Printable, orders, rollouts, suggest};

/// Arguments of `tagtrail triggers`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only triggers with a matching name, such as 'shop-*'.
    pattern: Option<String>,
    /// Only triggers whose name contains this text, in any case.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only triggers whose last attempt failed.
    #[arg(long)]
    failed: bool,
    /// Only triggers in this condition, such as failing.
    #[arg(long)]
    condition: Option<String>,
    /// Only triggers that want images which do not run yet.
    #[arg(long)]
    behind: bool,
    /// Triggers that were removed, in place of those that are configured: their history, holds and
    /// pause stay.
    #[arg(long, conflicts_with_all = ["failed", "condition", "behind"])]
    removed: bool,
}

impl List {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let removed = self.removed.then(|| "removed".to_owned());
        let narrowed = self.pattern.is_some() || self.contains.is_some();
        let any = narrowed || self.failed || self.behind || self.condition.is_some();
        let query = [
            ("q", self.contains),
            ("condition", self.condition.or(removed)),
            ("behind", self.behind.then(|| "true".to_owned())),
        ];
        let mut json = api.get(&["triggers"], &query).await?;
        if let Some(Value::Array(triggers)) = json.get_mut("items") {
            triggers.retain(|trigger| {
                let pattern = self.pattern.as_deref().unwrap_or("*");
                orders::matches(pattern, trigger) && (orders::failing(trigger) || !self.failed)
            });
        }
        let text = match items(&json) {
            [] if self.removed && !narrowed => "no trigger was removed".to_owned(),
            [] if any => "no such trigger".to_owned(),
            triggers => describe(triggers, screen),
        };
        Ok(Printable { json, text })
    }
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

/// Returns a line about each hold in force, with its cure.
fn holds(trigger: &Value, screen: &Screen) -> String {
    let name = field(trigger, "name");
    let mut text = String::new();
    let holds = trigger.get("holds").and_then(Value::as_array);
    for hold in holds.into_iter().flatten() {
        let [id, kind, actor, at, reason] =
            ["id", "kind", "actor", "created_at", "reason"].map(|key| field(hold, key));
        let (state, cure) = match kind.as_str() {
            "freeze" => ("frozen", format!("tagtrail thaw {id}")),
            "pin" => ("pinned", format!("tagtrail release {name}")),
            _ => ("held after a fault", format!("tagtrail release {name}")),
        };
        let because = match reason.as_str() {
            "-" => String::new(),
            reason => format!(": {reason}"),
        };
        let at = screen.time(&at);
        let line = format!("{name} is {state} by {actor} since {at}{because}; `{cure}` ends it");
        text += "\n";
        text += &wrap(screen, &line, 0);
    }
    text
}

/// Returns a line about the settings of the gates; nothing if there is none.
fn gate_settings(trigger: &Value, screen: &Screen) -> String {
    let Some(settings) = trigger.get("gate_settings").and_then(Value::as_object) else {
        return String::new();
    };
    let range = |range: &Value| match range {
        Value::String(text) => text.clone(),
        range => format!(
            "{} after cron {}",
            field(range, "for"),
            field(range, "cron")
        ),
    };
    let list = |value: &Value, key: &str| -> Option<String> {
        let list = value.get(key)?.as_array()?.iter();
        let list: Vec<String> = list.map(range).collect();
        (!list.is_empty()).then(|| list.join(", "))
    };
    let mut parts = Vec::new();
    if let Some(window) = settings.get("window") {
        let open = list(window, "open").map(|open| format!(" open {open}"));
        let closed = list(window, "closed").map(|closed| format!(" closed {closed}"));
        let ranges: Vec<String> = open.into_iter().chain(closed).collect();
        let zone = window.get("zone").and_then(Value::as_str).unwrap_or("UTC");
        parts.push(format!("window{} ({zone})", ranges.join(",")));
    }
    if let Some(follow) = settings.get("follow") {
        let one = follow.get("trigger").and_then(Value::as_str);
        let one = one.map(str::to_owned);
        let all = list(follow, "all").map(|all| format!("all of {all}"));
        let any = list(follow, "any").map(|any| format!("any of {any}"));
        let soak = follow.get("soak").and_then(Value::as_str);
        let soak = soak.map_or(String::new(), |soak| format!(" after {soak}"));
        let of = one.or(all).or(any).unwrap_or_default();
        parts.push(format!("follow {of}{soak}"));
    }
    for key in ["gap", "group"] {
        if let Some(Value::String(value)) = settings.get(key) {
            parts.push(format!("{key} {value}"));
        }
    }
    if let Some(approvals) = settings.get("approvals") {
        let by = list(approvals, "by").map(|by| format!(" by {by}"));
        let within = approvals.get("within").and_then(Value::as_str);
        let within = within.map(|within| format!(" within {within}"));
        let rest: Vec<String> = by.into_iter().chain(within).collect();
        parts.push(format!(
            "approvals {}{}",
            field(approvals, "needs"),
            rest.concat()
        ));
    }
    if parts.is_empty() {
        return String::new();
    }
    let text = format!("{} has gates: {}", field(trigger, "name"), parts.join("; "));
    format!("\n{}", wrap(screen, &text, 0))
}

/// Returns a line about the person who paused the trigger; nothing if it is not paused, or if that
/// is not recorded.
fn paused_by(trigger: &Value, screen: &Screen) -> String {
    let [name, actor, at, reason] =
        ["name", "paused_by", "paused_at", "paused_reason"].map(|key| field(trigger, key));
    if actor == "-" {
        return String::new();
    }
    let because = match reason.as_str() {
        "-" => String::new(),
        reason => format!(": {reason}"),
    };
    let at = screen.time(&at);
    let text = format!("{name} was paused by {actor} at {at}{because}");
    format!("\n{}", wrap(screen, &text, 0))
}

/// Returns a line about the last act that was refused; nothing if none was.
fn refused(trigger: &Value, screen: &Screen) -> String {
    let Some(refused) = trigger.get("refused").filter(|refused| refused.is_object()) else {
        return String::new();
    };
    let [actor, at, act] = ["actor", "at", "act"].map(|key| field(refused, key));
    let name = field(trigger, "name");
    let at = screen.time(&at);
    let text = format!("{act} of {name} was refused to the token {actor} at {at}");
    format!("\n{}", wrap(screen, &text, 0))
}

/// Returns a line about a mistake in the entry of the trigger; otherwise nothing.
fn problem(trigger: &Value, screen: &Screen) -> String {
    let [name, condition, problem] =
        ["name", "condition", "problem"].map(|key| field(trigger, key));
    let text = match (problem.as_str(), condition.as_str()) {
        ("-", _) => return String::new(),
        (_, "broken") => format!("{name} is broken, and not rolled out: {problem}"),
        _ => format!("a second {name} is passed over: {problem}"),
    };
    format!("\n{}", wrap(screen, &text, 0))
}

/// Returns a line about the next attempt after a failed one; otherwise nothing.
fn next_attempt(trigger: &Value, screen: &Screen) -> String {
    let [name, condition, at] =
        ["name", "condition", "next_attempt_at"].map(|key| field(trigger, key));
    let failed = trigger.get("last").map(|last| field(last, "state"));
    let text = match (condition.as_str(), at.as_str(), failed.as_deref()) {
        ("failing", "-", _) => format!("no attempt follows: `tagtrail retry {name}` orders one"),
        ("failing", _, Some("failed")) => format!(
            "the next attempt is at {}; `tagtrail retry {name}` makes it now",
            screen.time(&at)
        ),
        _ => return String::new(),
    };
    format!("\n{}", wrap(screen, &text, 2))
}

/// Returns a line about the last finding of a rollout that is observed; otherwise nothing.
fn watched(trigger: &Value, screen: &Screen) -> String {
    let Some(watch) = trigger.get("watch").filter(|watch| !watch.is_null()) else {
        return String::new();
    };
    let [since, until, seen] = ["since", "until", "seen"].map(|key| field(watch, key));
    let last = trigger.get("last").unwrap_or(&Value::Null);
    let (name, number) = (field(trigger, "name"), field(last, "number"));
    let since = screen.time(&since);
    let text = match (field(last, "state").as_str(), seen.as_str()) {
        ("watching", "-") => format!("{name} {number} is watched since {since}"),
        ("watching", _) => {
            let until = screen.time(&until);
            format!("{name} {number} is watched since {since}, at the latest until {until}: {seen}")
        }
        // The error is shown already.
        ("failed", seen) if seen != field(last, "error") => {
            format!("{name} {number} is still observed: {seen}")
        }
        _ => return String::new(),
    };
    format!("\n{}", wrap(screen, &text, 0))
}

/// Arguments of `tagtrail status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Name of the trigger.
    trigger: String,
}

impl Status {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let answer = api.get(&["triggers", &self.trigger], &[]).await;
        let json = suggest::trigger(api, &self.trigger, answer).await?;
        let text = describe(std::slice::from_ref(&json), screen) + &refused(&json, screen);
        Ok(Printable { json, text })
    }
}

/// The reasons that no other line shows.
const SHOWN: &[&str] = &[
    "unknown_image",
    "deleted",
    "removed",
    "no_candidate",
    "metadata_wait",
    "no_agreement",
    "min_age",
    "adopting",
    "adopted",
    "slots",
    "finish",
    "ending",
    "other_generation",
];

/// Returns the reasons of the trigger.
fn reasons(trigger: &Value) -> impl Iterator<Item = &Value> {
    let reasons = trigger.get("reasons").and_then(Value::as_array);
    reasons.into_iter().flatten()
}

/// Returns a line about each reason that no other line shows, with its cure.
fn why(trigger: &Value, screen: &Screen) -> String {
    let name = field(trigger, "name");
    let mut text = String::new();
    for reason in reasons(trigger) {
        let [code, image, why, opens_at, cure] =
            ["code", "image", "why", "opens_at", "cure"].map(|key| field(reason, key));
        // With an image, another line shows the closed gate.
        let upstream = code == "upstream" && image == "-";
        if !SHOWN.contains(&code.as_str()) && !upstream {
            continue;
        }
        let mut line = format!("{name} ({code}): ");
        if image != "-" {
            line += &format!("{image}: ");
        }
        line += &why;
        if opens_at != "-" {
            line += &format!(", until {}", screen.time(&opens_at));
        }
        if cure != "-" {
            line += &format!("; {cure}");
        }
        text += "\n";
        text += &wrap(screen, &line, 0);
    }
    text
}

/// Returns the images that the trigger wants, if they are not those of the current rollout.
fn wanted(trigger: &Value, screen: &Screen) -> String {
    let digests = |images: Option<&Value>| -> Option<Vec<(String, String)>> {
        let images = images?.as_object()?.iter();
        Some(
            images
                .map(|(name, image)| (name.clone(), field(image, "digest")))
                .collect(),
        )
    };
    let set = digests(trigger.get("wanted"));
    let current = trigger.get("current");
    match set {
        None => "-".to_owned(),
        set if set == digests(current.and_then(|current| current.get("images"))) => {
            "current".to_owned()
        }
        Some(_) => rollouts::images(
            &serde_json::json!({ "images": trigger.get("wanted") }),
            screen,
        ),
    }
}

pub(super) fn describe(triggers: &[Value], screen: &Screen) -> String {
    let rows = triggers.iter().map(|trigger| {
        let rollout = |key: &str| trigger.get(key).filter(|rollout| !rollout.is_null());
        let [current, images] = match rollout("current") {
            Some(rollout) => [field(rollout, "number"), rollouts::images(rollout, screen)],
            None => ["-"; 2].map(str::to_owned),
        };
        let last = rollout("last").map_or_else(
            || "-".to_owned(),
            |last| format!("{} {}", field(last, "number"), rollouts::state(last)),
        );
        let mut codes: Vec<String> = reasons(trigger).map(|one| field(one, "code")).collect();
        codes.dedup();
        let why = match codes.is_empty() {
            true => "-".to_owned(),
            false => codes.join(", "),
        };
        [
            field(trigger, "name"),
            current,
            wanted(trigger, screen),
            last,
            field(trigger, "condition"),
            why,
            field(trigger, "target"),
            field(trigger, "door"),
            images,
        ]
    });
    let columns = [
        Column::name("TRIGGER"),
        Column::whole("CURRENT"),
        Column::text("WANTED"),
        Column::state("LAST"),
        Column::state("CONDITION"),
        Column::text("WHY"),
        Column::whole("TARGET").only_wide(),
        Column::whole("DOOR").only_wide(),
        Column::text("IMAGES").only_wide(),
    ];
    let mut text = table(screen, columns, rows);
    for trigger in triggers {
        text += &problem(trigger, screen);
        text += &paused_by(trigger, screen);
        text += &holds(trigger, screen);
        text += &newer_heads(trigger, screen);
        text += &gate_settings(trigger, screen);
        text += &why(trigger, screen);
        if let Some(last) = trigger.get("last") {
            text += &rollouts::failure(last, screen);
            text += &rollouts::gates(last, screen);
            text += &next_attempt(trigger, screen);
            text += &watched(trigger, screen);
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
            let waits = format!("{name} waits since {since} (gate {gate}):");
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
        let last = json!({ "trigger": "shop", "number": 4, "state": "running", "attempts": 2, "error": "exit status: 7" });
        let trigger = |state: &str, newer: u64| json!({ "name": "shop", "state": state, "condition": "paused", "target": "command", "newer": newer, "current": null, "last": last });
        let text = describe(&[trigger("paused", 1)], &screen(80));
        assert!(text.contains("4 retrying (2)"), "{text}");
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
    fn the_next_attempt_of_a_failed_rollout_is_shown_with_its_cure() {
        let last = json!({ "trigger": "shop", "number": 4, "state": "failed", "attempts": 9, "error": "410" });
        let trigger = |at: Value| json!({ "name": "shop", "condition": "failing", "last": last, "next_attempt_at": at });
        for (at, expected) in [
            (
                json!("2026-03-03T14:00:00Z"),
                "shop 4, failed after attempt 9: 410\n  the next attempt is at 2026-03-03 14:00:00Z; `tagtrail retry shop` makes it\n  now",
            ),
            (
                Value::Null,
                "shop 4, failed after attempt 9: 410\n  no attempt follows: `tagtrail retry shop` orders one",
            ),
        ] {
            let text = describe(&[trigger(at)], &screen(80));
            assert!(text.ends_with(expected), "{text}");
        }
    }

    #[test]
    fn the_last_finding_of_a_watched_rollout_is_shown() {
        let trigger = |state: &str, error: Value, seen: Value| {
            let last = json!({ "trigger": "shop", "number": 4, "state": state, "attempts": 1, "error": error });
            json!({
                "name": "shop", "condition": "rolling_out", "last": last, "next_attempt_at": null,
                "watch": { "since": "2026-03-03T14:00:00Z", "until": "2026-03-03T14:15:00Z", "seen": seen },
            })
        };
        for (trigger, expected) in [
            (
                trigger("watching", Value::Null, json!("1 of 3 hosts")),
                "shop 4 is watched since 2026-03-03 14:00:00Z, at the latest until 2026-03-03\n14:15:00Z: 1 of 3 hosts",
            ),
            (
                trigger("watching", Value::Null, Value::Null),
                "shop 4 is watched since 2026-03-03 14:00:00Z",
            ),
            (
                trigger("failed", json!("503"), json!("503")),
                "shop 4, failed after attempt 1: 503",
            ),
            (
                trigger("failed", json!("503"), json!("200 once")),
                "shop 4, failed after attempt 1: 503\nshop 4 is still observed: 200 once",
            ),
        ] {
            let text = describe(&[trigger], &screen(80));
            assert!(text.ends_with(expected), "{text}");
        }
    }

    #[test]
    fn wanted_images_and_reasons_are_shown_with_their_cures() {
        let image = |letter: &str| json!({ "web": { "image": "registry.example.com/shop/web:latest", "revision": 3, "digest": format!("sha256:{}", letter.repeat(64)) } });
        let reason = json!({
            "code": "unknown_image", "image": "registry.example.com/shop/wbe:latest", "why": "no push is recorded",
            "since": null, "opens_at": "2026-03-03T14:00:00Z", "cure": "push the image",
        });
        let gate = json!({ "code": "settle", "image": null, "why": "so", "since": null, "opens_at": null, "cure": null });
        let mut trigger = json!({
            "name": "shop", "condition": "waiting", "target": "webhook", "current": { "number": 7, "images": image("a") },
            "wanted": image("a"), "reasons": [reason, gate],
        });
        let text = describe(&[trigger.clone()], &screen(80));
        assert!(text.contains("current"), "{text}");
        assert!(text.contains("unknown_image"), "{text}");
        assert!(text.contains("settle"), "{text}");
        assert!(
            text.ends_with(
                "\nshop (unknown_image): registry.example.com/shop/wbe:latest: no push is recorded,\nuntil 2026-03-03 14:00:00Z; push the image"
            ),
            "{text}"
        );
        trigger["wanted"] = image("b");
        let text = describe(&[trigger.clone()], &screen(80));
        assert!(text.contains("web#3=bbbbbbbbbbbb"), "{text}");
        trigger["wanted"] = Value::Null;
        let text = describe(&[trigger], &screen(80));
        assert!(!text.contains("web#3"), "{text}");
    }

    #[test]
    fn a_mistake_in_the_entry_is_shown_below_the_table() {
        let trigger = |condition: &str| {
            json!({
                "name": "shop", "target": "webhook", "current": null, "condition": condition,
                "problem": "tagtrail.toml:9: trigger.target.webhook: the file shop can't be read",
            })
        };
        let expected = "tagtrail.toml:9: trigger.target.webhook: the\nfile shop can't be read";
        for (condition, expected) in [
            (
                "broken",
                format!("\nshop is broken, and not rolled out: {expected}"),
            ),
            ("settled", "\na second shop is passed over: ".to_owned()),
        ] {
            let text = describe(&[trigger(condition)], &screen(80));
            assert!(text.contains(&expected), "{text}");
        }
    }

    #[test]
    fn the_settings_of_gates_are_shown() {
        let settings = json!({
            "window": { "open": ["mon-fri 09:00-16:00"], "closed": ["2026-12-24", { "cron": "0 22 * * 5", "for": "58h" }], "zone": "Europe/Berlin" },
            "gap": "15m", "group": "db", "approvals": { "needs": 2, "by": ["release-*"], "within": "24h" },
        });
        let trigger = json!({ "name": "shop", "gate_settings": settings });
        let text = describe(&[trigger], &screen(200));
        assert!(
            text.ends_with(
                "\nshop has gates: window open mon-fri 09:00-16:00, closed 2026-12-24, 58h after cron 0 22 * * 5 (Europe/Berlin); gap 15m; group db; approvals 2 by release-* within 24h"
            ),
            "{text}"
        );
        let trigger = json!({ "name": "shop", "gate_settings": {} });
        assert!(!describe(&[trigger], &screen(80)).contains("gates"));
    }

    #[test]
    fn the_closed_gates_of_the_last_rollout_are_shown_with_the_time_of_their_opening() {
        let gate = |gate: &str, opens_at: Value| json!({ "gate": gate, "why": "frozen by ann: fair", "since": "2026-03-03T14:00:00Z", "opens_at": opens_at });
        let gates = [
            gate("freeze", json!("2026-03-03T15:00:00Z")),
            gate("fault", Value::Null),
        ];
        let last = json!({ "trigger": "shop", "number": 4, "state": "held", "gates": gates });
        let trigger = json!({ "name": "shop", "condition": "held", "last": last });
        let text = describe(&[trigger], &screen(80));
        assert!(text.contains("4 held"), "{text}");
        assert!(
            text.ends_with(
                "\nshop 4 waits since 2026-03-03 14:00:00Z at the closed gate freeze: frozen by\nann: fair; the gate opens at 2026-03-03 15:00:00Z\nshop 4 waits since 2026-03-03 14:00:00Z at the closed gate fault: frozen by ann:\nfair"
            ),
            "{text}"
        );
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
                "\nshop waits since 2026-03-03 14:00:00Z (gate recheck):\n  registry.example.com/shop/web:stable: it is asked"
            ),
            "{text}"
        );
    }
}
