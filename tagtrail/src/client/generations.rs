//! `tagtrail trigger log`, `get` and `diff`: the settings of a trigger over time.

use serde_json::Value;

use super::api::{Api, Failure};
use super::paging::{Paging, more};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table};
use super::{Printable, suggest};

/// Arguments of `tagtrail trigger log`.
#[derive(Debug, clap::Args)]
pub(crate) struct Log {
    /// Name of the trigger.
    trigger: String,
    #[command(flatten)]
    paging: Paging,
}

impl Log {
    pub(super) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let path = ["triggers", &self.trigger, "generations"];
        let answer = self.paging.list(api, screen, &path, &[]).await;
        let json = suggest::trigger(api, &self.trigger, answer).await?;
        let columns = [
            Column::whole("GENERATION"),
            Column::whole("CHANGED"),
            Column::whole("DOOR"),
            Column::name("ACTOR"),
            Column::text("FILE"),
        ];
        let rows = items(&json).iter().map(|one| {
            let [generation, at, door, actor, file] =
                ["generation", "changed_at", "door", "actor", "file"].map(|key| field(one, key));
            let removed = one.get("spec").is_some_and(Value::is_null);
            let file = match removed {
                true => "(removed)".to_owned(),
                false => file,
            };
            [generation, screen.time(&at), door, actor, file]
        });
        let text = match items(&json) {
            [] => format!("no generation of {} is recorded", self.trigger),
            _ => table(screen, columns, rows) + &more(&json),
        };
        Ok(Printable { json, text })
    }
}

/// Arguments of `tagtrail trigger get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Name of the trigger.
    trigger: String,
    /// The generation to print [default: the newest].
    #[arg(long, value_name = "NUMBER")]
    generation: Option<u64>,
}

impl Get {
    pub(super) async fn run(self, api: &Api, _: &Screen) -> Result<Printable, Failure> {
        let json = find(api, &self.trigger, self.generation).await?;
        let text = toml(&json)?;
        Ok(Printable { json, text })
    }
}

/// Arguments of `tagtrail trigger diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// Name of the trigger.
    trigger: String,
    /// The earlier generation [default: the one before the later one].
    earlier: Option<u64>,
    /// The later generation [default: the newest].
    later: Option<u64>,
}

impl Diff {
    pub(super) async fn run(self, api: &Api, _: &Screen) -> Result<Printable, Failure> {
        let later = find(api, &self.trigger, self.later).await?;
        let number = later.get("generation").and_then(Value::as_u64);
        let number = number.unwrap_or_default();
        let earlier = match self.earlier.unwrap_or(number.saturating_sub(1)) {
            0 => Value::Null,
            earlier => find(api, &self.trigger, Some(earlier)).await?,
        };
        let lines = difference(&toml(&earlier)?, &toml(&later)?);
        let json = serde_json::json!({ "earlier": earlier, "later": later });
        let text = match lines.iter().all(|line| line.starts_with(' ')) {
            true => "the two generations have the same settings".to_owned(),
            false => lines.join("\n"),
        };
        Ok(Printable { json, text })
    }
}

/// Returns a generation of a trigger, or the newest one.
async fn find(api: &Api, trigger: &str, generation: Option<u64>) -> Result<Value, Failure> {
    // A generation is known by its number, and pages by the number before.
    let answer = api
        .list(&["triggers", trigger, "generations"], &[], usize::MAX, None)
        .await;
    let list = suggest::trigger(api, trigger, answer).await?;
    let found = items(&list).iter().find(|one| {
        let number = one.get("generation").and_then(Value::as_u64);
        generation.is_none() || generation == number
    });
    found.cloned().ok_or_else(|| {
        let message = match generation {
            Some(generation) => {
                format!("the trigger {trigger} has no generation {generation}; `tagtrail trigger log {trigger}` lists them")
            }
            None => format!("no generation of {trigger} is recorded"),
        };
        Failure::not_found(message)
    })
}

/// Returns the settings of a generation as an entry of the file. Nothing for a removal.
fn toml(generation: &Value) -> Result<String, Failure> {
    let Some(settings) = generation.get("spec").filter(|spec| !spec.is_null()) else {
        return Ok(String::new());
    };
    let written = || {
        let settings = toml::Value::try_from(settings).ok()?;
        let mut file = toml::Table::new();
        file.insert("trigger".to_owned(), toml::Value::Array(vec![settings]));
        toml::to_string_pretty(&file).ok()
    };
    let text = written().ok_or_else(|| {
        Failure::failed(
            "the settings can't be written as TOML; --output json prints them".to_owned(),
        )
    })?;
    Ok(text.trim_end().to_owned())
}

/// Returns the lines of both texts: those that only the earlier one has with `-`, those that only
/// the later one has with `+`.
fn difference(earlier: &str, later: &str) -> Vec<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (earlier.lines().collect(), later.lines().collect());
    // The longest common subsequence of the rests after each pair of lines.
    let mut longest = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = match a[i] == b[j] {
                true => longest[i + 1][j + 1] + 1,
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(format!(" {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || longest[i + 1][j] >= longest[i][j + 1]) {
            lines.push(format!("-{}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+{}", b[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_the_lines_of_one_side() {
        let lines = difference("a\nb\nc", "a\nx\nc\nd");
        assert_eq!(lines, [" a", "-b", "+x", " c", "+d"]);
        assert_eq!(difference("", "a"), ["+a"]);
        assert_eq!(difference("a", ""), ["-a"]);
    }

    #[test]
    fn a_generation_is_printed_as_an_entry_of_the_file() {
        let spec = json!({ "spec": { "name": "shop", "images": { "web": "r.example/web:1" } } });
        let text = toml(&spec).ok().unwrap();
        assert_eq!(
            text,
            "[[trigger]]\nname = \"shop\"\n\n[trigger.images]\nweb = \"r.example/web:1\""
        );
        assert_eq!(toml(&json!({ "spec": null })).ok().unwrap(), "");
    }
}
