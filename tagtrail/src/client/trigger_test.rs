//! `tagtrail trigger test`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tagtrail_config::{File, Table, Written, closest};

use super::Printable;
use super::api::{Api, Failure};
use super::print::field;
use super::rollouts;
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::time::{self, Time};

/// Arguments of `tagtrail trigger test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The file that has the triggers: a `tagtrail.toml`, or a file of a folder of triggers.
    file: PathBuf,
    /// Name of the trigger [default: all triggers of the file].
    trigger: Option<String>,
    /// Begin of the test, such as 2026-03-01 or 30d (ago).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    from: Time,
    /// End of the test [default: now].
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = super::time::parse)]
    until: Option<Time>,
}

impl Test {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let specs = self.specs()?;
        let from = self.from.text(screen.zone.as_ref())?;
        let until = time::text(self.until.as_ref(), screen.zone.as_ref())?;
        let mut tests = Vec::new();
        for (name, spec) in specs {
            let body = json!({ "spec": spec, "from": from, "until": until });
            let answer = api.post(&["triggers", "test"], Some(&body)).await;
            let mut test = Map::from_iter([("trigger".to_owned(), json!(name))]);
            match answer {
                Ok(Value::Object(fields)) => test.extend(fields),
                Ok(_) => {}
                Err(failure) => return Err(failure.and(&format!(" (trigger {name})"))),
            }
            tests.push(Value::Object(test));
        }
        let text = tests.iter().map(|test| describe(test, screen));
        let text = text.collect::<Vec<_>>().join("\n\n") + &limits(&tests, screen);
        Ok(Printable {
            json: json!({ "items": tests }),
            text,
        })
    }

    /// Returns the settings of the triggers, by name, without their targets: a test calls none, and
    /// the addresses of targets are nobody's concern.
    fn specs(&self) -> Result<BTreeMap<String, Written>, Failure> {
        let file = File::load(&self.file).map_err(|error| Failure::failed(error.to_string()))?;
        let wanted = |name: &str| self.trigger.as_ref().is_none_or(|wanted| wanted == name);
        for broken in file.broken_of(Table::Trigger) {
            if broken.name.as_deref().is_none_or(wanted) {
                return Err(Failure::failed(broken.problem.to_string()));
            }
        }
        let names: Vec<&str> = file
            .trigger
            .iter()
            .map(|one| one.name.get_ref().as_ref())
            .collect();
        let mut specs = BTreeMap::new();
        for name in names.iter().copied().filter(|name| wanted(name)) {
            let mut spec = file.written(Table::Trigger, name).cloned();
            if let Some(Written::Table(settings)) = &mut spec {
                settings.remove("target");
            }
            specs.extend(spec.map(|spec| (name.to_owned(), spec)));
        }
        if specs.is_empty() {
            let path = self.file.display();
            return Err(Failure::failed(match &self.trigger {
                Some(name) => {
                    let like = closest(name, &names);
                    let like = like.map_or_else(String::new, |like| format!("; is it {like}?"));
                    format!("{path} has no trigger {name}{like}")
                }
                None => format!("{path} has no [[trigger]]"),
            }));
        }
        Ok(specs)
    }
}

/// Formats a test: the result in one line, then the rollouts.
fn describe(test: &Value, screen: &Screen) -> String {
    let [name, summary] = ["trigger", "summary"].map(|key| field(test, key));
    let mut text = wrap(screen, &format!("{name}: {summary}"), 0);
    if let Some(stopped) = test.get("stopped").and_then(Value::as_str) {
        text += &format!("\n{}", wrap(screen, &format!("warning: {stopped}"), 0));
    }
    let rollouts = test.get("rollouts").and_then(Value::as_array);
    let rollouts = rollouts.map_or(&[][..], Vec::as_slice);
    if rollouts.is_empty() {
        return text;
    }
    let columns = [
        Column::whole("AT"),
        Column::whole("KIND"),
        Column::text("HELD"),
        Column::text("IMAGES"),
    ];
    let rows = rollouts.iter().map(|rollout| {
        [
            screen.time(&field(rollout, "at")),
            field(rollout, "kind"),
            held(rollout),
            rollouts::images(&changed(rollout), screen),
        ]
    });
    text += &format!("\n{}", table(screen, columns, rows));
    let left_out = test.get("left_out").and_then(Value::as_u64).unwrap_or(0);
    if left_out > 0 {
        text += &format!("\n{left_out} later rollouts are left out: test a shorter time");
    }
    text
}

/// Returns the rollout with the images that changed.
fn changed(rollout: &Value) -> Value {
    let names = rollout.pointer("/cause/changed").and_then(Value::as_array);
    let is_changed = |name: &str| names.is_none_or(|names| names.iter().any(|one| one == name));
    let images = rollout.get("images").and_then(Value::as_object);
    let images = images.into_iter().flatten();
    let images = images.filter(|(name, _)| is_changed(name));
    let images: Map<String, Value> = images
        .map(|(name, one)| (name.clone(), one.clone()))
        .collect();
    json!({ "images": images })
}

/// Formats the time for which a rollout was held up, and whether it waits for approvals, such as
/// `settle 31s, approval`.
fn held(rollout: &Value) -> String {
    let held = rollout.get("held_seconds").and_then(Value::as_object);
    let held = held.into_iter().flatten().filter_map(|(name, seconds)| {
        let seconds = seconds.as_f64().filter(|seconds| *seconds > 0.0)?;
        Some(format!("{name} {}", span(seconds)))
    });
    let asks = rollout.get("approval_at").is_some_and(|at| !at.is_null());
    let held: Vec<String> = held.chain(asks.then(|| "approval".to_owned())).collect();
    match held.is_empty() {
        true => "-".to_owned(),
        false => held.join(", "),
    }
}

fn span(seconds: f64) -> String {
    let (minute, hour, day) = (60.0, 3600.0, 86_400.0);
    match seconds {
        _ if seconds < 2.0 * minute => format!("{seconds:.0}s"),
        _ if seconds < 2.0 * hour => format!("{:.0}m", seconds / minute),
        _ if seconds < 2.0 * day => format!("{:.0}h", seconds / hour),
        _ => format!("{:.0}d", seconds / day),
    }
}

/// Formats the facts that no test knows.
fn limits(tests: &[Value], screen: &Screen) -> String {
    let limits = tests.first().and_then(|test| test.get("limits"));
    let limits = limits.and_then(Value::as_array).into_iter().flatten();
    let limits: Vec<&str> = limits.filter_map(Value::as_str).collect();
    let text = format!("A test assumes: {}.", limits.join("; "));
    format!("\n\n{}", wrap(screen, &text, 0))
}
