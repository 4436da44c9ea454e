//! `/triggers`: the triggers, those first that are behind.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_condition::Hold;
use tagtrail_config::Role;
use tagtrail_proto::Condition;

use crate::http::error::Error;
use crate::http::parameters::{PART, Parameter, Parameters, optional, text};
use crate::operations::triggers::has_part;
use crate::pages::Page;
use crate::pages::act::{is_named, shows};
use crate::pages::frame::{Frame, Section};
use crate::pages::part::command::command;
use crate::pages::part::form::hidden;
use crate::pages::part::icon::icon;
use crate::pages::part::question::address;
use crate::pages::part::standing::{condition, state, words};
use crate::pages::part::text::{counted, number, visible};
use crate::pages::reader::Reader;
use crate::pages::trigger::standing::{Standing, rank, why};
use crate::shared::Shared;
use crate::store;
use crate::store::triggers::Trigger;

pub(crate) const PAGE: Page = Page {
    id: "page_triggers",
    paths: &["/triggers"],
    open: false,
    stored: true,
    serve: || get(show),
};

const WHICH: Parameter = optional("which", "`behind`, or a condition.", "behind", text);
const AFTER: Parameter = optional(
    "after",
    "The last trigger of the page before.",
    "shop",
    text,
);

/// Triggers of a page.
const ROWS: usize = 25;

/// The triggers that a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Behind,
    In(Condition),
}

impl Which {
    fn read(text: Option<&str>) -> Result<Which, Error> {
        match text {
            None | Some("" | "all") => Ok(Which::All),
            Some("behind") => Ok(Which::Behind),
            Some(text) => text.parse().map(Which::In).map_err(|_| Error::Condition),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Which::All => "all",
            Which::Behind => "behind",
            Which::In(condition) => condition.as_str(),
        }
    }

    fn has(self, trigger: &Trigger) -> bool {
        match self {
            Which::All => true,
            Which::Behind => trigger.is_behind(),
            Which::In(condition) => trigger.condition == condition,
        }
    }
}

/// The page as it was asked for.
struct Asked {
    q: String,
    which: Which,
    after: Option<String>,
}

impl Asked {
    fn part(&self) -> Option<&str> {
        Some(self.q.as_str()).filter(|part| !part.is_empty())
    }

    /// Returns the address of all these triggers in the API.
    fn of_api(&self) -> String {
        let (condition, behind) = match self.which {
            Which::All => (None, None),
            Which::Behind => (None, Some("true")),
            Which::In(condition) => (Some(condition.as_str()), None),
        };
        let parameters = [
            ("q", self.part()),
            ("condition", condition),
            ("behind", behind),
        ];
        address("/v1/triggers", &parameters)
    }

    /// Returns the command that lists all these triggers.
    fn command(&self) -> String {
        let (words, condition) = match self.which {
            Which::All => (&["triggers"][..], None),
            Which::Behind => (&["triggers", "--behind"][..], None),
            Which::In(Condition::Removed) => (&["triggers", "--removed"][..], None),
            Which::In(condition) => (&["triggers"][..], Some(condition.as_str())),
        };
        command(
            words,
            &[("contains", self.part()), ("condition", condition)],
        )
    }
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Html<String>, Error> {
    let parameters = Parameters::read(&uri, &[PART, WHICH, AFTER])?;
    let asked = Asked {
        q: parameters.written(PART.name).unwrap_or_default().to_owned(),
        which: Which::read(parameters.text("which"))?,
        after: parameters.text("after").map(ToOwned::to_owned),
    };
    let removed = asked.which == Which::In(Condition::Removed);
    let (counts, part, holds, named) = shared
        .database
        .ask_page(async |db| {
            let mut all = match removed {
                true => store::triggers::removed_on_page(db).await?,
                false => store::triggers::on_page(db, None).await?,
            };
            let counts = Counts::of(&all);
            all.retain(|(_, one)| asked.which.has(one) && has_part(&one.name, &asked.q));
            all.sort_by_cached_key(|(_, one)| (rank(one), one.name.clone()));
            let start = asked.after.as_ref();
            let start = start.and_then(|last| all.iter().position(|(_, one)| one.name == *last));
            let mut rows = all.split_off(start.map_or(0, |last| last + 1).min(all.len()));
            let more = rows.len() > ROWS;
            rows.truncate(ROWS);
            let rows = Standing::beside_heads(db, rows).await?;
            let holds = Hold::list(db, None).await?.len();
            Ok((counts, (rows, more), holds, is_named(db, &reader).await?))
        })
        .await?;
    let (rows, more) = part;
    let mut frame = Frame::new("Triggers", Section::Triggers);
    frame.list(asked.of_api());
    frame.cli = Some(asked.command());
    let content = html! {
        div class="bar" {
            h1 { "Triggers" }
            span class="push" { a class="btn" href="/holds" { (counted(holds as u64, "hold", "holds")) " in force" } }
        }
        (counts.draw())
        section class="card" {
            (filter(&asked, &counts))
            @if rows.is_empty() {
                p class="none" { @match counts.all { 0 => "No trigger is configured yet: add a [[trigger]] to tagtrail.toml.", _ => { "No trigger matches. " a href="/triggers" { "All triggers" } } } }
            } @else {
                table class="st" {
                    thead { tr {
                        th scope="col" class="w8" { "Trigger" } th scope="col" { "Condition" }
                        th scope="col" { "Deployed, and the head where it differs" }
                        th scope="col" { "Last rollout" } td {}
                    } }
                    tbody { @for one in &rows { (row(&reader, one, named)) } }
                }
            }
            @if let Some(last) = rows.last().filter(|_| more) {
                div class="bar more" { a class="btn push" rel="next" href=(next(&asked, &last.trigger.name)) { "More triggers" } }
            }
        }
    };
    Ok(frame.page(&reader, &content))
}

fn next(asked: &Asked, last: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("q", &asked.q)
        .append_pair("which", asked.which.word())
        .append_pair("after", last)
        .finish();
    format!("/triggers?{query}")
}

/// The triggers by condition.
struct Counts {
    all: usize,
    behind: usize,
    by: Vec<(Condition, usize)>,
}

impl Counts {
    fn of(all: &[(i32, Trigger)]) -> Counts {
        let count = |condition: &Condition| {
            let them = all.iter().filter(|(_, one)| one.condition == *condition);
            (*condition, them.count())
        };
        Counts {
            all: all.len(),
            behind: all.iter().filter(|(_, one)| one.is_behind()).count(),
            by: Condition::ALL.iter().map(count).collect(),
        }
    }

    fn draw(&self) -> Markup {
        let some = self.by.iter().rev().filter(|(_, count)| *count > 0);
        let parts: Vec<String> = some
            .map(|(condition, count)| format!("{count} {}", words(condition.as_str())))
            .collect();
        let count = |condition: Condition| {
            let found = self.by.iter().find(|(one, _)| *one == condition);
            found.map_or(0, |(_, count)| *count)
        };
        html! {
            dl class="stats" {
                div { dt { "Triggers" } dd { (number(self.all as u64)) small { (parts.join(", ")) } } }
                div { dt { "Up to date" } dd { (self.all - self.behind) " of " (self.all) small { (self.behind) " behind the heads" } } }
                div { dt { "Need a person" } dd { (count(Condition::Failing) + count(Condition::Broken)) small { "failing or broken" } } }
                div { dt { "Stopped by people" } dd { (count(Condition::Paused) + count(Condition::Held)) small { "paused or held" } } }
            }
        }
    }
}

fn filter(asked: &Asked, counts: &Counts) -> Markup {
    let option = |which: Which, count: Option<usize>| {
        html! {
            option value=(which.word()) selected[which == asked.which] {
                (words(which.word())) @if let Some(count) = count { " (" (count) ")" }
            }
        }
    };
    let known = asked.which != Which::In(Condition::Removed);
    html! {
        form class="bar e" {
            label { "Name contains" input name="q" size="16" value=(asked.q); }
            label { "Which" select name="which" {
                (option(Which::All, known.then_some(counts.all)))
                (option(Which::Behind, known.then_some(counts.behind)))
                @for (condition, count) in &counts.by { (option(Which::In(*condition), (*count > 0).then_some(*count))) }
            } }
            button class="pri" { "Show" }
            span class="push s" { "Triggers that are behind come first" }
        }
    }
}

fn row(reader: &Reader, one: &Standing, named: bool) -> Markup {
    let trigger = &one.trigger;
    let removed = trigger.condition == Condition::Removed;
    let acts = !removed && shows(reader, Role::Operate, &trigger.name, named);
    html! {
        tr {
            th scope="row" {
                @match removed {
                    true => a href={ "/rollouts?trigger=" (trigger.name) } { (trigger.name) },
                    false => a href={ "/triggers/" (trigger.name) } { (trigger.name) },
                }
                br; span class="q s" { (visible(&trigger.target)) }
            }
            td { (condition(trigger.condition)) }
            td class="full" {
                ul class="deps" { @for image in &one.images { (image.line(reader.now)) } }
                p class="s" { (why(trigger, reader.now)) }
            }
            td class="nw" data-l="last rollout" {
                @match &trigger.last {
                    Some(last) => { a href={ "/rollouts/" (last.id) } { "#" (number(last.number)) } " " (state(last.state)) },
                    None => span class="none" { "none yet" },
                }
            }
            td class="r" { @if acts { (switch(one)) } }
        }
    }
}

/// The button that pauses a trigger or resumes it; the row names the change that will start.
fn switch(one: &Standing) -> Markup {
    let (act, symbol, word) = match one.is_paused() {
        true => ("resume", "play", "Resume"),
        false => ("pause", "pause", "Pause"),
    };
    let name = &one.trigger.name;
    html! {
        form method="post" action={ "/triggers/" (name) "/" (act) } {
            (hidden(&one.seen(act)))
            button { (icon(symbol)) (word) span class="vh" { " " (name) } }
        }
    }
}
