//! The orders of people on triggers and rollouts.

use serde_json::{Value, json};
use tagtrail_policy::glob;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::table::{Column, table, wrap};
use super::time::{self, Time};
use super::{Printable, rollouts, suggest};

/// The triggers of an order.
#[derive(Debug, clap::Args)]
struct Selection {
    /// Names of triggers, or patterns such as 'shop-*'.
    #[arg(
        value_name = "TRIGGER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    triggers: Vec<String>,
    /// All triggers.
    #[arg(long)]
    all: bool,
    /// Of these, only triggers whose last attempt failed.
    #[arg(long)]
    failed: bool,
}

/// Arguments of `tagtrail pause`, `resume`, `retry` and `release`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    selection: Selection,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Plain {
    /// Orders `action`; `describe` formats the answers.
    pub(crate) async fn run(
        self,
        api: &Api,
        screen: &Screen,
        action: &str,
        describe: Describe,
    ) -> Result<Printable, Failure> {
        let reason = self.reason.as_ref();
        let body = reason.map(|reason| json!({ "reason": reason }));
        order(
            api,
            &self.selection,
            (action, body.as_ref()),
            screen,
            describe,
        )
        .await
    }
}

/// Arguments of `tagtrail rollout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollout {
    #[command(flatten)]
    selection: Selection,
    /// The set of the rollout with this number, which is then pinned [default: the wanted set].
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// Gates to pass though they are closed: recheck, manifest, upstream, window. Needs --reason.
    #[arg(long, value_name = "GATES", value_delimiter = ',', requires = "reason")]
    skip: Vec<String>,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `tagtrail rollback`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    selection: Selection,
    /// The set of the rollout with this number [default: the newest set before the current one that
    /// succeeded].
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The time at which the pin ends by itself [default: `tagtrail release` ends it].
    #[arg(long, value_name = "TIME", value_parser = super::time::parse)]
    until: Option<Time>,
}

/// Arguments of `tagtrail pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pin {
    /// Name of the trigger.
    trigger: String,
    /// A revision or a digest of an image, by its name in the trigger: web=@17 or web=sha256:… .
    /// Images that are not named stay as in the current rollout.
    #[arg(required = true, value_name = "NAME=@REVISION|DIGEST", value_parser = chosen)]
    images: Vec<(String, Value)>,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The time at which the pin ends by itself [default: `tagtrail release` ends it].
    #[arg(long, value_name = "TIME", value_parser = super::time::parse)]
    until: Option<Time>,
}

/// Arguments of `tagtrail trigger renumber`.
#[derive(Debug, clap::Args)]
pub(crate) struct Renumber {
    #[command(flatten)]
    selection: Selection,
    /// The highest number that a receiver has seen. Numbers are never lowered.
    #[arg(long, value_name = "NUMBER")]
    above: u64,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `tagtrail cancel`.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// Names of triggers, whose last rollouts are meant, or ids of rollouts.
    #[arg(required = true, value_name = "TRIGGER|ID")]
    wanted: Vec<String>,
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl Rollout {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = json!({ "to": self.to, "skip": self.skip, "reason": self.reason });
        let order_of = ("rollout", Some(&body));
        order(api, &self.selection, order_of, screen, effects).await
    }
}

impl Rollback {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let until = time::text(self.until.as_ref(), screen.zone.as_ref())?;
        let body = json!({ "to": self.to, "reason": self.reason, "until": until });
        let order_of = ("rollback", Some(&body));
        order(api, &self.selection, order_of, screen, effects).await
    }
}

impl Renumber {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = json!({ "above": self.above, "reason": self.reason });
        let order_of = ("renumber", Some(&body));
        order(api, &self.selection, order_of, screen, effects).await
    }
}

impl Pin {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let until = time::text(self.until.as_ref(), screen.zone.as_ref())?;
        let images: serde_json::Map<String, Value> = self.images.into_iter().collect();
        let body = json!({ "images": images, "reason": self.reason, "until": until });
        let path = ["triggers", &self.trigger, "pin"];
        let answer = api.post(&path, Some(&body)).await;
        let json = suggest::trigger(api, &self.trigger, answer).await?;
        let text = effects(std::slice::from_ref(&json), screen);
        Ok(Printable { json, text })
    }
}

impl Cancel {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        let body = json!({ "reason": self.reason });
        let mut answers = Vec::new();
        for wanted in &self.wanted {
            // Ids are UUIDs, which no name is like: four hyphens at fixed places.
            let id = match wanted.len() == 36 && wanted.matches('-').count() == 4 {
                true => wanted.clone(),
                false => {
                    let answer = api.get(&["triggers", wanted], &[]).await;
                    let trigger = suggest::trigger(api, wanted, answer).await?;
                    match trigger.pointer("/last/id").and_then(Value::as_str) {
                        Some(id) => id.to_owned(),
                        None => {
                            let text = format!("{wanted} has no rollout");
                            return Err(Failure::not_found(text));
                        }
                    }
                }
            };
            answers.push(api.post(&["rollouts", &id, "cancel"], Some(&body)).await?);
        }
        let text = effects(&answers, screen);
        let json = json!({ "items": answers });
        Ok(Printable { json, text })
    }
}

/// Parses an image of a pin.
fn chosen(text: &str) -> Result<(String, Value), String> {
    let wrong = || {
        "write a revision as web=@17 or a digest as web=sha256:… and 64 hexadecimal digits"
            .to_owned()
    };
    let (name, chosen) = text.split_once('=').ok_or_else(wrong)?;
    let chosen = match chosen.strip_prefix('@') {
        Some(number) => json!({ "revision": number.parse::<u64>().map_err(|_| wrong())? }),
        None if chosen.contains(':') => json!({ "digest": chosen }),
        None => return Err(wrong()),
    };
    Ok((name.to_owned(), chosen))
}

/// Formats answers to orders.
pub(super) type Describe = fn(&[Value], &Screen) -> String;

/// Formats the effects of orders.
pub(super) fn effects(answers: &[Value], screen: &Screen) -> String {
    let rows = answers.iter().map(|answer| {
        let rollout = answer.get("rollout").filter(|rollout| !rollout.is_null());
        let [number, state] = match rollout {
            Some(rollout) => [field(rollout, "number"), rollouts::state(rollout)],
            None => ["-"; 2].map(str::to_owned),
        };
        [
            field(answer, "trigger"),
            field(answer, "act"),
            number,
            state,
        ]
    });
    let columns = [
        Column::name("TRIGGER"),
        Column::whole("ORDER"),
        Column::whole("ROLLOUT"),
        Column::state("STATE"),
    ];
    let mut text = table(screen, columns, rows);
    for answer in answers {
        let line = format!("{}: {}", field(answer, "trigger"), field(answer, "answer"));
        text += "\n";
        text += &wrap(screen, &line, 0);
    }
    text
}

/// Sends an order to each selected trigger. If the API refuses one, the others get the order too.
async fn order(
    api: &Api,
    selection: &Selection,
    (action, body): (&str, Option<&Value>),
    screen: &Screen,
    describe: Describe,
) -> Result<Printable, Failure> {
    if let ([name], false) = (selection.triggers.as_slice(), selection.failed)
        && !name.contains('*')
    {
        let answer = api.post(&["triggers", name, action], body).await;
        let json = suggest::trigger(api, name, answer).await?;
        let text = describe(std::slice::from_ref(&json), screen);
        return Ok(Printable { json, text });
    }
    let (mut ordered, mut refused) = (Vec::new(), Vec::new());
    for name in selected(api, selection).await? {
        match api.post(&["triggers", &name, action], body).await {
            Ok(trigger) => ordered.push(trigger),
            Err(failure) => refused.push(format!("{name}: {}", failure.message)),
        }
    }
    if let Some(first) = refused.first() {
        let (count, done) = (refused.len(), ordered.len());
        let text = format!("{count} triggers refused the order and {done} took it; {first}");
        return Err(Failure::failed(text));
    }
    let text = match ordered.is_empty() {
        true => "nothing to do: no trigger is selected".to_owned(),
        false => describe(&ordered, screen),
    };
    let json = json!({ "items": ordered });
    Ok(Printable { json, text })
}

/// Returns the names of the selected triggers, in the order of the API's list.
async fn selected(api: &Api, selection: &Selection) -> Result<Vec<String>, Failure> {
    let list = api.get(&["triggers"], &[]).await?;
    let known = items(&list);
    for wanted in &selection.triggers {
        if !known.iter().any(|trigger| matches(wanted, trigger)) {
            let text = format!("no trigger matches {wanted:?}; `tagtrail triggers` lists them");
            return Err(Failure::not_found(text));
        }
    }
    let chosen = known.iter().filter(|trigger| {
        let mut wanted = selection.triggers.iter();
        let named = selection.all || wanted.any(|wanted| matches(wanted, trigger));
        named && (failing(trigger) || !selection.failed)
    });
    Ok(chosen.map(|trigger| field(trigger, "name")).collect())
}

/// Returns whether the name of a trigger matches a pattern.
pub(super) fn matches(wanted: &str, trigger: &Value) -> bool {
    glob::within_part(wanted.as_bytes(), field(trigger, "name").as_bytes())
}

/// Returns whether the last attempt at the last rollout of a trigger failed, and the rollout has
/// not ended well.
pub(super) fn failing(trigger: &Value) -> bool {
    let failed = |last: &Value| field(last, "state") == "failed" || rollouts::is_retried(last);
    trigger.get("last").is_some_and(failed)
}
