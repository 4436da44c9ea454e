//! The orders of people on triggers: `tagtrail pause`, `resume` and `retry`.

use serde_json::{Value, json};
use tagtrail_policy::glob;

use super::api::{Api, Failure};
use super::print::{field, items};
use super::screen::Screen;
use super::{Printable, rollouts, suggest, triggers};

/// The triggers of an order, and its reason.
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
    /// The reason, which `tagtrail acts` lists.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Arguments of `tagtrail pause`.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    selection: Selection,
}

/// Arguments of `tagtrail resume`.
#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    selection: Selection,
}

/// Arguments of `tagtrail retry`.
#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    selection: Selection,
}

impl Pause {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        order(api, &self.selection, "pause", screen).await
    }
}

impl Resume {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        order(api, &self.selection, "resume", screen).await
    }
}

impl Retry {
    pub(crate) async fn run(self, api: &Api, screen: &Screen) -> Result<Printable, Failure> {
        order(api, &self.selection, "retry", screen).await
    }
}

/// Sends an order to each selected trigger. If the API refuses one, the others get the order too.
async fn order(
    api: &Api,
    selection: &Selection,
    action: &str,
    screen: &Screen,
) -> Result<Printable, Failure> {
    let body = selection
        .reason
        .as_ref()
        .map(|reason| json!({ "reason": reason }));
    let body = body.as_ref();
    if let ([name], false) = (selection.triggers.as_slice(), selection.failed)
        && !name.contains('*')
    {
        let answer = api.post(&["triggers", name, action], body).await;
        let json = suggest::trigger(api, name, answer).await?;
        let text = triggers::describe(std::slice::from_ref(&json), screen);
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
        false => triggers::describe(&ordered, screen),
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
