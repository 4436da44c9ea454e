//! `tagtrail trigger apply` and `delete`: triggers of the API.

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::field;
use super::screen::Screen;
use super::table::{Column, table};
use super::{Printable, suggest};

/// Arguments of `tagtrail trigger apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// File with `[[trigger]]` entries; `-` is standard input.
    file: std::path::PathBuf,
    /// Only the entry of this trigger.
    trigger: Option<String>,
}

impl Apply {
    pub(super) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let path = self.file.display();
        let text = match self.file.as_os_str() == "-" {
            true => std::io::read_to_string(std::io::stdin()),
            false => std::fs::read_to_string(&self.file),
        };
        let text =
            text.map_err(|error| Failure::usage(format!("{path} can't be read: {error}")))?;
        let file: Entries = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("{path}: {}", error.message())))?;
        let wanted = |entry: &Value| {
            let name = self.trigger.as_deref();
            name.is_none_or(|name| entry.get("name").and_then(Value::as_str) == Some(name))
        };
        let entries: Vec<Value> = file.trigger.into_iter().filter(wanted).collect();
        if entries.is_empty() {
            return Err(Failure::usage(format!("{path} has no such [[trigger]]")));
        }
        let mut written = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(name) = entry.get("name").and_then(Value::as_str) else {
                return Err(Failure::usage(format!("{path}: a [[trigger]] has no name")));
            };
            let known = api.get(&["triggers", name], &[]).await;
            let replaces = known.ok().and_then(|known| known["generation"].as_u64());
            written.push(api.put(&["triggers", name], &entry, replaces).await?);
        }
        Ok(effects(written, screen))
    }
}

/// A file with triggers alone.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    #[serde(default)]
    trigger: Vec<Value>,
}

/// Arguments of `tagtrail trigger delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Name of the trigger.
    trigger: String,
    /// The reason, for the record of acts.
    #[arg(long)]
    reason: Option<String>,
}

impl Delete {
    pub(super) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = self
            .reason
            .map(|reason| serde_json::json!({ "reason": reason }));
        let answer = api
            .delete(&["triggers", &self.trigger], body.as_ref())
            .await;
        let json = suggest::trigger(api, &self.trigger, answer).await?;
        Ok(effects(vec![json], screen))
    }
}

/// Returns the effects of changes.
fn effects(written: Vec<Value>, screen: &Screen) -> Printable {
    let columns = [
        Column::name("TRIGGER"),
        Column::whole("GENERATION"),
        Column::text("EFFECT"),
    ];
    let rows = written.iter().map(|one| {
        let is = |key: &str| one.get(key).and_then(Value::as_bool) == Some(true);
        let problem = one.get("problem").and_then(Value::as_str);
        let effect = match (problem, is("changed"), is("done")) {
            (Some(problem), ..) => format!("broken: {problem}"),
            (None, false, _) => "nothing to do: the settings are these already".to_owned(),
            (None, true, true) => "in force".to_owned(),
            (None, true, false) => {
                "recorded; in force as soon as the trigger service runs".to_owned()
            }
        };
        [field(one, "trigger"), field(one, "generation"), effect]
    });
    let text = table(screen, columns, rows);
    let json = serde_json::json!({ "items": written });
    Printable { json, text }
}
