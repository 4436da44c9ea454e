//! `tagtrail attempts`.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::api::{Api, Failure};
use super::print::{clean, field, items, line};
use super::screen::{Output, Screen};
use super::suggest;
use super::table::{Column, table, wrap};

/// Most attempts that the list shows.
const SHOWN: usize = 50;
/// The interval of questions while an attempt is followed.
const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `tagtrail attempts`.
#[derive(Debug, clap::Args)]
pub(crate) struct Attempts {
    /// Name of the trigger.
    trigger: String,
    /// Number of the rollout [default: the newest].
    number: Option<u64>,
    /// Print the output of the last attempt as it grows, until the attempt ends.
    #[arg(long)]
    follow: bool,
}

impl Attempts {
    /// Prints the attempts at a rollout, and the target's answer or output in the last of them.
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<(), Failure> {
        let rollout = self.rollout(api).await?;
        let id = field(&rollout, "id");
        let path = ["rollouts", id.as_str(), "attempts"];
        if self.follow {
            return follow(api, &path).await;
        }
        let list = api.list(&path, &[], SHOWN, None).await?;
        if screen.output == Output::Json {
            return line(&format!("{list:#}"));
        }
        line(&describe(&rollout, &list, screen))
    }

    /// Returns the rollout that the arguments name.
    async fn rollout(&self, api: &Api) -> Result<Value, Failure> {
        let mut cursor = None;
        loop {
            let query = [
                ("trigger", Some(self.trigger.clone())),
                ("limit", Some("100".to_owned())),
                ("cursor", cursor),
            ];
            let answer = api.get(&["rollouts"], &query).await;
            let page = suggest::trigger(api, &self.trigger, answer).await?;
            let wanted = |rollout: &&Value| match self.number {
                Some(number) => rollout.get("number").and_then(Value::as_u64) == Some(number),
                None => true,
            };
            if let Some(rollout) = items(&page).iter().find(wanted) {
                return Ok(rollout.clone());
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                let trigger = &self.trigger;
                return Err(Failure::not_found(match self.number {
                    Some(number) => format!("{trigger} has no rollout {number}"),
                    None => format!("{trigger} has no rollout yet"),
                }));
            }
        }
    }
}

fn describe(rollout: &Value, list: &Value, screen: &Screen) -> String {
    let [trigger, number, state] = ["trigger", "number", "state"].map(|name| field(rollout, name));
    let Some(last) = items(list).first() else {
        return format!("rollout {number} of {trigger} is {state}; no attempt is recorded");
    };
    let columns = [
        Column::whole("ATTEMPT"),
        Column::whole("STARTED"),
        Column::whole("ENDED"),
        Column::state("OUTCOME"),
        Column::whole("STATUS"),
    ];
    let rows = items(list).iter().map(|attempt| {
        let time = |name: &str| match attempt.get(name).and_then(Value::as_str) {
            Some(time) => screen.time(time),
            None => "-".to_owned(),
        };
        let outcome = match attempt.get("outcome").and_then(Value::as_str) {
            Some(outcome) => outcome.to_owned(),
            None => "running".to_owned(),
        };
        [
            field(attempt, "number"),
            time("started_at"),
            time("finished_at"),
            outcome,
            field(attempt, "status"),
        ]
    });
    let mut text = table(screen, columns, rows);
    if let Some(error) = last.get("error").and_then(Value::as_str) {
        let number = field(last, "number");
        text += &format!("\n{}", wrap(screen, &format!("{number}: {error}"), 0));
    }
    let said = field(last, "said");
    if !said.trim().is_empty() {
        text += &format!("\n\n{}", clean(said.trim_end()));
    }
    text
}

/// Prints the output of the last attempt as it grows, until the attempt ends.
async fn follow(api: &Api, path: &[&str]) -> Result<(), Failure> {
    let (mut number, mut before) = (None, String::new());
    loop {
        let list = api.list(path, &[], 1, None).await?;
        if let Some(attempt) = items(&list).first() {
            let this = field(attempt, "number");
            if number.as_ref() != Some(&this) {
                before.clear();
                number = Some(this);
            }
            let said = field(attempt, "said");
            let new = clean_piece(grown(&before, &said));
            let written = std::io::stdout().write_all(new.as_bytes());
            if written.and_then(|()| std::io::stdout().flush()).is_err() {
                // The reader of the pipe has gone.
                return Ok(());
            }
            before = said;
            if let Some(outcome) = attempt.get("outcome").and_then(Value::as_str) {
                let number = field(attempt, "number");
                let error = attempt.get("error").and_then(Value::as_str);
                let error = error.map_or_else(String::new, |error| format!(": {error}"));
                // If standard error is closed, there is nobody to tell.
                let _ = writeln!(
                    std::io::stderr(),
                    "attempt {number}: {outcome}{}",
                    clean(&error)
                );
                return Ok(());
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Returns the part of `now` that is not in `before`. Both are the end of the same growing text, so
/// `now` begins with an end of `before`.
fn grown<'a>(before: &str, now: &'a str) -> &'a str {
    let starts = before.char_indices().map(|(at, _)| at);
    let overlap = starts
        .map(|at| before.len() - at)
        .find(|length| now.get(..*length) == Some(&before[before.len() - length..]));
    &now[overlap.unwrap_or(0)..]
}

/// As [`clean`], for a piece of a text: the newline at its end stays.
fn clean_piece(text: &str) -> String {
    let end = if text.ends_with('\n') { "\n" } else { "" };
    clean(text) + end
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::screen::tests::screen;
    use super::*;

    #[test]
    fn only_the_new_part_of_a_growing_text_is_printed() {
        for (before, now, new) in [
            ("", "a\n", "a\n"),
            ("a\n", "a\nb\n", "b\n"),
            ("a\n", "a\n", ""),
            // The begin was dropped meanwhile.
            ("line 1\nline 2\n", "2\nline 3\n", "line 3\n"),
            ("aaa", "aaaa", "a"),
            ("größ", "öße", "e"),
            ("x", "y", "y"),
        ] {
            assert_eq!(grown(before, now), new, "{before:?} {now:?}");
        }
    }

    #[test]
    fn attempts_are_listed_with_the_output_of_the_last() {
        let rollout = json!({ "trigger": "shop", "number": 4, "state": "running" });
        let list = json!({ "items": [
            { "number": 2, "started_at": "2026-03-03T14:02:05Z", "finished_at": null, "outcome": null,
              "status": null, "error": null, "said": "step one\n\u{1b}[31mstep two\n" },
            { "number": 1, "started_at": "2026-03-03T14:02:00Z", "finished_at": "2026-03-03T14:02:01Z",
              "outcome": "failed", "status": 3, "error": "no", "said": "" },
        ]});
        let text = describe(&rollout, &list, &screen(80));
        assert!(
            text.contains("running") && text.contains("failed"),
            "{text}"
        );
        assert!(
            text.ends_with("\n\nstep one\n\u{fffd}[31mstep two"),
            "{text}"
        );
        let text = describe(&rollout, &json!({ "items": [] }), &screen(80));
        assert_eq!(text, "rollout 4 of shop is running; no attempt is recorded");
    }
}
