//! `/rollouts/{id}`: one rollout: from the push to the target, and the verdicts of people.

mod forms;
mod waterfall;

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{Html, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use serde_json::{Value, json};
use tagtrail_config::Role;
use tagtrail_proto::{CauseReason, RolloutState};
use uuid::Uuid;

use crate::http::error::Error;
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::rollouts::ID;
use crate::pages::Page;
use crate::pages::act::{self, Acting, Order, is_named};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::digest::{copy, link_with};
use crate::pages::part::form::{self, Fields, news};
use crate::pages::part::image;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::rollout::address;
use crate::pages::part::standing::{Difference, cause, differences, finder, state, words};
use crate::pages::part::text::{counted, foreign, number, size, visible};
use crate::pages::part::when::{Form, time};
use crate::pages::reader::Reader;
use crate::pages::rollouts::note;
use crate::pages::trigger::because;
use crate::shared::Shared;
use crate::store;
use crate::store::approvals::Waiting;
use crate::store::attempts::Attempt;
use crate::store::rollouts::RolloutWithAttempt;
use crate::store::times::Times;

pub(crate) const PAGE: Page = Page {
    id: "page_rollout",
    paths: &["/rollouts/{id}"],
    open: false,
    stored: true,
    serve: || get(show),
};
pub(crate) const ACT: Page = Page {
    id: "page_rollout_act",
    // An act on a rollout, or the number of a rollout after the name of its trigger.
    paths: &["/rollouts/{id}/{act}"],
    open: false,
    stored: false,
    serve: || get(by_number).post(act).layer(Fields::limit()),
};

/// Attempts that are read.
const ATTEMPTS: i64 = 20;
/// Answers of the target that are shown.
const ANSWERS: usize = 5;
const LONGEST: usize = 4096;

/// All that the page shows.
struct View {
    one: RolloutWithAttempt,
    times: Times,
    attempts: Vec<Attempt>,
    /// Set while the rollout waits for approvals.
    waiting: Option<Waiting>,
    /// Whether triggers carry the name of the reader's token.
    named: bool,
}

impl View {
    async fn read(shared: &Shared, reader: &Reader, id: Uuid) -> Result<View, Error> {
        let found = shared.database.ask_page(async |db| {
            let Some(one) = store::rollouts::one(db, id).await? else {
                return Ok(None);
            };
            let times = store::times::of(db, std::iter::once(one.rollout.id.as_str())).await?;
            let Some(times) = times.into_values().next() else {
                return Ok(None);
            };
            let attempts = store::attempts::of(db, id, None, ATTEMPTS).await?;
            let waits = matches!(
                one.rollout.state,
                RolloutState::Held | RolloutState::AwaitingApproval
            );
            let waiting = match waits {
                true => store::approvals::waiting(db, Some(&one.rollout.trigger)).await?,
                false => Vec::new(),
            };
            let waiting = waiting
                .into_iter()
                .find(|it| it.rollout.id == one.rollout.id);
            Ok(Some(View {
                one,
                times,
                attempts: attempts.into_iter().map(|(_, attempt)| attempt).collect(),
                waiting,
                named: is_named(db, reader).await?,
            }))
        });
        found.await?.ok_or(Error::RolloutUnknown)
    }

    /// Returns the identity of the state that a person sees before an act: of a verdict, the set of
    /// images; of others, the rollout and whether it has ended or is no longer the newest.
    fn seen(&self, act: &str) -> String {
        let rollout = &self.one.rollout;
        let images = rollout.images.iter();
        let set: Vec<Value> = images
            .map(|(name, one)| json!([name, one.digest]))
            .collect();
        form::seen(&match act {
            "approve" | "reject" => json!(["set", rollout.id, set]),
            _ => json!([
                "rollout",
                rollout.id,
                rollout.finished_at.is_some(),
                self.times.live,
                self.times.newest,
            ]),
        })
    }

    fn differences(&self) -> Vec<Difference> {
        let images = self.one.rollout.images.iter();
        let difference = images.map(|(name, one)| Difference {
            name: name.clone(),
            from: one.previous.clone().flatten().map(|before| before.digest),
            to: Some(one.digest.clone()),
        });
        difference.filter(|one| one.from != one.to).collect()
    }
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Html<String>, Error> {
    Parameters::read(&uri, &[])?;
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let view = View::read(&shared, &reader, id).await?;
    Ok(draw(&reader, &view, false))
}

/// Leads from a number to the rollout, and from an act that is loaded again after signing in.
async fn by_number(State(shared): State<Shared>, path: PathValues) -> Result<Redirect, Error> {
    let trigger: String = path.parse(&ID).unwrap_or_default();
    let Ok(number) = path.parse::<i64>(&act::ACT) else {
        let id: Uuid = path.parse(&ID).map_err(|_| Error::NotFound)?;
        return Ok(Redirect::to(&format!("/rollouts/{id}")));
    };
    let found = shared
        .database
        .ask(async |db| store::found::rollout(db, &trigger, number).await)
        .await?;
    let id = found.ok_or(Error::RolloutUnknown)?.id;
    Ok(Redirect::to(&format!("/rollouts/{id}")))
}

async fn act(
    acting: Acting,
    State(shared): State<Shared>,
    path: PathValues,
    fields: Fields,
) -> Result<Response, Error> {
    let id: Uuid = path.parse(&ID).map_err(|_| Error::RolloutUnknown)?;
    let act: String = path.parse(&act::ACT).unwrap_or_default();
    let view = View::read(&shared, &acting.reader, id).await?;
    let trigger = view.one.rollout.trigger.clone();
    let mut body = because(&fields);
    if matches!(act.as_str(), "reject" | "cancel") {
        // The operation refuses an empty reason.
        body.entry("reason").or_insert(json!(""));
    }
    let (role, path) = match act.as_str() {
        "approve" | "reject" => (Role::Approve, format!("/v1/rollouts/{id}/{act}")),
        "cancel" => (Role::Operate, format!("/v1/rollouts/{id}/cancel")),
        "retry" => (Role::Operate, format!("/v1/triggers/{trigger}/retry")),
        _ => return Err(Error::NotFound),
    };
    let order = Order {
        method: Method::POST,
        path,
        body: Value::Object(body),
        role,
        trigger: Some(trigger),
    };
    let seen = view.seen(&act);
    let again = |reader: &Reader, view: View| draw(reader, &view, true);
    let then = format!("/rollouts/{id}");
    acting
        .order(&shared, &fields, order, (view, seen), again, &then)
        .await
}

/// Draws the page.
fn draw(reader: &Reader, view: &View, out_of_date: bool) -> Html<String> {
    let rollout = &view.one.rollout;
    let (trigger, id) = (&rollout.trigger, &rollout.id);
    let title = format!("{trigger} #{}", number(rollout.number));
    let mut frame = Frame::new(&title, Section::Rollouts);
    frame.json = Some(format!("/v1/rollouts/{id}"));
    frame.cli = Some(match view.waiting.is_some() {
        true => format!("tagtrail approve {id}"),
        false => format!("tagtrail attempts {trigger} {}", rollout.number),
    });
    let steps = [
        ("Rollouts".to_owned(), Some("/rollouts".to_owned())),
        (trigger.clone(), Some(format!("/triggers/{trigger}"))),
        (format!("#{}", number(rollout.number)), None),
    ];
    let forms = forms::all(reader, view);
    let parts = html! {
        (set(view))
        (gates(view))
        (approvals(view))
    };
    let content = html! {
        (crumbs(&steps))
        @if out_of_date { (news()) }
        div class="bar" {
            h1 { (title) }
            (state(rollout.state))
            @if rollout.number > 1 {
                @let before = rollout.number - 1;
                span class="push bar" { a class="btn" href={ "/rollouts/" (trigger) "/" (before) } { "#" (number(before)) } }
            }
        }
        (summary(view, reader))
        @if view.waiting.is_none() {
            (waterfall::deciding(&view.one, &view.times))
            (waterfall::delivering(&view.one, &view.times, &view.attempts, reader.now))
        }
        @match &forms {
            Some(forms) => div class="g2" { div class="col" { (parts) (answers(view)) } div class="col" { (forms) } },
            None => { div class="g11" { (parts) (answers(view)) } },
        }
        (identity(view))
    };
    frame.page(reader, &content)
}

/// Draws the sentence that says what the rollout is and where it stands.
fn summary(view: &View, reader: &Reader) -> Markup {
    let rollout = &view.one.rollout;
    let changes = view.differences();
    let would = html! {
        @match changes.is_empty() {
            true => "the same images as before",
            false => (differences(&changes)),
        }
    };
    if let Some(waiting) = &view.waiting {
        return html! {
            p class="note acc" {
                b { (waiting.given.len()) " of " (counted(waiting.needs.into(), "approval", "approvals")) "." }
                " It would change " (would) "."
                @if let Some(within) = &waiting.within { " An approval counts for " (visible(within)) "." }
            }
        };
    }
    let mut reason = cause(rollout.cause.reason).to_owned();
    reason[..1].make_ascii_uppercase();
    let push = view.times.push.as_ref();
    let whole = push
        .zip(rollout.finished_at)
        .map(|(push, end)| end - push.occurred_at);
    html! {
        p class="s" {
            (reason)
            @if let Some(actor) = &view.times.actor { " by " (visible(actor)) }
            @if let Some(text) = &view.times.reason { ", “" (visible(text)) "”" }
            ": " (would) "."
            @let found = push.and_then(|push| push.found.as_deref());
            @match (whole, found) {
                (Some(whole), None) => { " " b { (waterfall::exact(whole)) } " from the push to the end." },
                (Some(whole), Some(_)) => { " " b { (waterfall::exact(whole)) } " from the finding to the end." },
                (None, _) => {},
            }
            @if let Some(found) = found { " No event reported the push: " (finder(found)) " found it, some time later." }
            @if let Some(text) = &rollout.cause.not_adopted { " " (visible(text)) }
        }
        @let bad = matches!(rollout.state, RolloutState::Failed | RolloutState::Rejected) || rollout.error.is_some();
        @if view.times.live || bad {
            p class=(if bad { "note bad" } else { "note acc" }) { (note(&view.one, Some(&view.times), reader.now)) }
        }
        @if rollout.cause.reason == CauseReason::Adopted { p class="note" { "These images were there before the trigger, and were never sent." } }
    }
}

fn set(view: &View) -> Markup {
    let text = match view.waiting.is_some() {
        true => "approvals are for these digests",
        false => "fixed when it was planned",
    };
    html! {
        section class="card" {
            h2 { "The set " span class="push q" { (text) } }
            table class="st" {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Image" } th scope="col" { "Revision" } th scope="col" { "Digest" } td {} } }
                tbody { @for (name, one) in &view.one.rollout.images { tr {
                    @let before = one.previous.clone().flatten();
                    th scope="row" { (visible(name)) }
                    td { (image::short_link(&one.image)) @if let Some(actor) = &one.actor { br; span class="q s" { "pushed by " (visible(actor)) } } }
                    td class="n" { @if one.revision > 0 { (number(one.revision)) } }
                    td { (link_with(&one.digest, 12)) (copy(&one.pinned.to_string(), &format!("Copy the pinned reference of {name}"))) }
                    td { @match before {
                        Some(before) if before.digest == one.digest => span class="q" { "same" },
                        Some(before) => {
                            (badge(Tone::Marked, "moved", "differs")) " "
                            a href={ "/compare/" (before.digest) ".." (one.digest) "?image=" (one.image) } aria-label={ "Compare " (visible(name)) " with the digest before" } { "Compare" }
                        },
                        None => (badge(Tone::Marked, "moved", "differs")),
                    } }
                } } }
            }
        }
    }
}

fn gates(view: &View) -> Markup {
    let gates = &view.one.rollout.gates;
    html! {
        @if !gates.is_empty() {
            section class="card" {
                h2 { "Closed gates" }
                table class="st" {
                    thead { tr { th scope="col" { "Gate" } th scope="col" { "State" } th scope="col" { "Why" } th scope="col" class="r" { "Opens" } } }
                    tbody { @for gate in gates { tr {
                        th scope="row" { (words(gate.gate.as_str())) }
                        td { (badge(Tone::Warning, "hold", "closed")) }
                        td class="full s" { (visible(&gate.why)) }
                        td class="r s" { @match gate.opens_at { Some(at) => (time(at, Form::Full)), None => "not known" } }
                    } } }
                }
            }
        }
    }
}

fn approvals(view: &View) -> Markup {
    html! {
        @if let Some(waiting) = &view.waiting {
            section class="card" {
                h2 { "Approvals" }
                @if waiting.given.is_empty() { p class="none" { "none yet" } } @else {
                    table class="st" {
                        thead { tr { th scope="col" { "Who" } th scope="col" { "Verdict" } th scope="col" { "Reason" } th scope="col" class="r" { "When" } } }
                        tbody { @for given in &waiting.given { tr {
                            th scope="row" { (visible(&given.actor)) }
                            td { (badge(Tone::Good, "ok", "approved")) }
                            td { @if let Some(reason) = &given.reason { (visible(reason)) } }
                            td class="r" { (time(given.given_at, Form::Short)) }
                        } } }
                    }
                }
            }
        }
    }
}

/// Draws the answers of the target to the last attempts.
fn answers(view: &View) -> Markup {
    html! {
        @if !view.attempts.is_empty() {
            section class="card" {
                h2 { "Answers of the target" }
                @for attempt in view.attempts.iter().take(ANSWERS) {
                    @let end = attempt.said.ceil_char_boundary(attempt.said.len().saturating_sub(LONGEST));
                    h3 {
                        "Attempt " (attempt.number) " " (waterfall::outcome(attempt)) " "
                        span class="s q" { (time(attempt.finished_at.unwrap_or(attempt.started_at), Form::Millis)) ", " (size(attempt.said.len() as u64)) }
                    }
                    @if !attempt.said.is_empty() { pre { @if end > 0 { "… " } (foreign(&attempt.said[end..])) } }
                }
                @if view.one.rollout.attempts as usize > ANSWERS {
                    p class="more" { a href={ "/v1/rollouts/" (view.one.rollout.id) "/attempts" } { "All attempts as JSON" } }
                }
            }
        }
    }
}

fn identity(view: &View) -> Markup {
    let rollout = &view.one.rollout;
    let trace = view.times.traceparent.as_deref();
    let trace = trace.and_then(|text| text.split('-').nth(1));
    html! {
        section class="card" {
            h2 { "Identity" }
            dl class="kv" {
                dt { "Rollout" } dd class="n" { (rollout.id) (copy(&rollout.id, "Copy the id")) " " span class="q" { "webhook-id of each attempt" } }
                @if let Some(trace) = trace { dt { "Trace" } dd class="n" { (visible(trace)) } }
                @if let Some(before) = rollout.number.checked_sub(1).filter(|before| *before > 0) {
                    dt { "Before" } dd { a href=(address(&rollout.trigger, before)) { "#" (number(before)) } }
                }
                @if !view.times.newest {
                    @let after = rollout.number + 1;
                    dt { "After" } dd { a href=(address(&rollout.trigger, after)) { "#" (number(after)) } }
                }
                dt { "Recorded" } dd { (time(rollout.created_at, Form::Full)) }
                @if let Some(at) = rollout.finished_at { dt { "Ended" } dd { (time(at, Form::Full)) } }
                @if let Some(at) = view.times.applied_at { dt { "Taken by the target" } dd { (time(at, Form::Full)) } }
                dt { "Epoch" } dd { (time(rollout.epoch, Form::Full)) }
            }
        }
    }
}
