//! `/holds`: freezes, pins and faults, in force and ended.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::{Html, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use serde_json::{Value, json};
use tagtrail_condition::{Hold, HoldKind};
use tagtrail_config::{Role, TriggerGlob};
use tagtrail_history::instant::Instant;
use time::{Duration, OffsetDateTime};

use crate::http::error::Error;
use crate::http::parameters::{Parameters, PathValues};
use crate::operations::holds::{ENDED_SINCE, ID};
use crate::pages::Page;
use crate::pages::act::{Acting, Order, is_named};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::command::command;
use crate::pages::part::form::{self, Fields, hidden, news};
use crate::pages::part::icon::icon;
use crate::pages::part::kind::{Tone, badge};
use crate::pages::part::question::address;
use crate::pages::part::text::{number, visible};
use crate::pages::part::when::{Form, time, zone};
use crate::pages::reader::Reader;
use crate::pages::trigger::{because, lasting};
use crate::shared::Shared;
use crate::store;
use crate::store::holds::{Frozen, Released};

pub(crate) const PAGE: Page = Page {
    id: "page_holds",
    paths: &["/holds"],
    open: false,
    stored: true,
    serve: || get(show).post(freeze).layer(Fields::limit()),
};
pub(crate) const ACT: Page = Page {
    id: "page_hold_act",
    paths: &["/holds/{id}/release"],
    open: false,
    stored: false,
    serve: || {
        get(async || Redirect::to("/holds"))
            .post(thaw)
            .layer(Fields::limit())
    },
};

/// Holds that are shown, in force and ended.
const SHOWN: usize = 100;
const ENDED: usize = 50;
/// Ended holds that are read: one more than is shown, to know whether there are more.
const READ: i64 = 51;
/// Days for which a hold that has ended is shown.
const DAYS: i64 = 7;
/// Held rollouts that are read.
const FROZEN: i64 = 200;
/// Held rollouts that a row names.
const NAMED: usize = 5;

struct View {
    holds: Vec<Hold>,
    frozen: BTreeMap<u64, Vec<Frozen>>,
    /// The holds that have ended since a time, perhaps one more than the page shows.
    ended: Vec<Released>,
    since: OffsetDateTime,
    /// Whether triggers carry the name of the reader's token.
    named: bool,
}

impl View {
    async fn read(shared: &Shared, reader: &Reader) -> Result<View, Error> {
        let since = (reader.now - Duration::days(DAYS)).truncate_to_minute();
        let view = shared.database.ask_page(async |db| {
            Ok(View {
                holds: Hold::list(db, None).await?,
                frozen: store::holds::frozen(db, FROZEN).await?,
                ended: store::holds::released(db, since, READ).await?,
                since,
                named: is_named(db, reader).await?,
            })
        });
        view.await
    }

    /// Returns the identity of the freezes that a person sees before another one.
    fn seen(&self) -> String {
        let freezes = self.holds.iter().filter(|one| one.kind == HoldKind::Freeze);
        form::seen(&json!([
            "freezes",
            freezes.map(|one| one.id).collect::<Vec<_>>()
        ]))
    }

    /// Returns the identity of a freeze and of the rollouts that begin at its end.
    fn seen_of(&self, hold: u64) -> String {
        let known = self.holds.iter().any(|one| one.id == hold);
        let frozen = self.frozen.get(&hold).into_iter().flatten();
        let frozen: Vec<String> = frozen.map(|one| one.rollout.to_string()).collect();
        form::seen(&json!(["freeze", hold, known, frozen]))
    }
}

async fn show(
    reader: Reader,
    State(shared): State<Shared>,
    uri: Uri,
) -> Result<Html<String>, Error> {
    Parameters::read(&uri, &[])?;
    let view = View::read(&shared, &reader).await?;
    Ok(draw(&reader, &view, None))
}

async fn freeze(
    acting: Acting,
    State(shared): State<Shared>,
    fields: Fields,
) -> Result<Response, Error> {
    let mut body = lasting(&fields, acting.reader.now)?;
    let triggers = fields.text("triggers").unwrap_or_default();
    body.insert("triggers".to_owned(), json!(triggers));
    body.insert("hard".to_owned(), json!(fields.text("hard").is_some()));
    let order = Order {
        method: Method::POST,
        path: "/v1/holds".to_owned(),
        body: Value::Object(body),
        role: Role::Operate,
        trigger: None,
    };
    let view = View::read(&shared, &acting.reader).await?;
    let seen = view.seen();
    let again = |reader: &Reader, view: View| draw(reader, &view, Some(&fields));
    acting
        .order(&shared, &fields, order, (view, seen), again, "/holds")
        .await
}

async fn thaw(
    acting: Acting,
    State(shared): State<Shared>,
    path: PathValues,
    fields: Fields,
) -> Result<Response, Error> {
    let id: u64 = path.parse(&ID).map_err(|_| Error::HoldUnknown)?;
    let order = Order {
        method: Method::DELETE,
        path: format!("/v1/holds/{id}"),
        body: Value::Object(because(&fields)),
        role: Role::Operate,
        trigger: None,
    };
    let view = View::read(&shared, &acting.reader).await?;
    let seen = view.seen_of(id);
    let again = |reader: &Reader, view: View| draw(reader, &view, Some(&fields));
    acting
        .order(&shared, &fields, order, (view, seen), again, "/holds")
        .await
}

/// Whether the reader may end a freeze of these triggers. The operation checks it again.
fn may_end(reader: &Reader, triggers: &str, named: bool) -> bool {
    let glob = TriggerGlob::try_from(triggers.to_owned());
    glob.is_ok_and(|glob| reader.may_act(Role::Operate, named, |one| one.covers(&glob)))
}

/// Draws the page; `again` are the fields of a form that was out of date.
fn draw(reader: &Reader, view: &View, again: Option<&Fields>) -> Html<String> {
    let mut frame = Frame::new("Holds", Section::Triggers);
    let since = Instant(view.since).to_string();
    let all = address("/v1/holds", &[(ENDED_SINCE.name, Some(&since))]);
    frame.list(all.clone());
    frame.cli = Some(command(&["holds"], &[("ended-since", Some(&since))]));
    let content = html! {
        (crumbs(&[("Triggers".to_owned(), Some("/triggers".to_owned())), ("Holds".to_owned(), None)]))
        @if again.is_some() { (news()) }
        h1 { "Holds" }
        @match reader.may(Role::Operate) {
            true => div class="g2" { (in_force(reader, view)) (form(view, again)) },
            false => (in_force(reader, view)),
        }
        (ended(&view.ended, &all))
    };
    frame.page(reader, &content)
}

fn in_force(reader: &Reader, view: &View) -> Markup {
    html! {
        section class="card" {
            h2 { "In force" }
            @if view.holds.is_empty() { p class="none" { "No freeze, pin or fault is in force." } } @else {
                table class="st" {
                    thead { tr {
                        th scope="col" { "Kind" } th scope="col" { "Triggers" } th scope="col" { "By" } th scope="col" { "Reason" }
                        th scope="col" { "Since (" (zone()) ")" } th scope="col" { "Until" } td {}
                    } }
                    tbody { @for hold in view.holds.iter().take(SHOWN) { (row(reader, view, hold)) } }
                }
            }
            @if view.holds.len() > SHOWN {
                p class="more" { (number((view.holds.len() - SHOWN) as u64)) " more: " a href="/v1/holds" { "all as JSON" } }
            }
        }
    }
}

fn row(reader: &Reader, view: &View, hold: &Hold) -> Markup {
    let word = word(hold.kind);
    let (tone, icon_name) = match hold.kind {
        HoldKind::Freeze | HoldKind::Pin => (Tone::Warning, "hold"),
        HoldKind::Fault => (Tone::Bad, "fail"),
    };
    let freeze = hold.kind == HoldKind::Freeze;
    let frozen = view.frozen.get(&hold.id).map_or(&[][..], Vec::as_slice);
    html! {
        tr {
            th scope="row" { (badge(tone, icon_name, word)) }
            td class="n" {
                @match hold.triggers.contains('*') {
                    true => (hold.triggers),
                    false => a href={ "/triggers/" (hold.triggers) } { (hold.triggers) },
                }
            }
            td { (visible(&hold.actor)) }
            td class="full" {
                @if let Some(reason) = &hold.reason { (visible(reason)) " " }
                @if freeze { span class="q" { @match hold.hard { true => "hard", false => "soft" } } }
                @if freeze {
                    p class="s" {
                        @match frozen.is_empty() {
                            true => "Holds no rollout now: its end starts nothing.",
                            false => {
                                "Its end starts, unless another gate is closed: "
                                @for (place, one) in frozen.iter().take(NAMED).enumerate() {
                                    @if place > 0 { ", " }
                                    a href={ "/rollouts/" (one.rollout) } { (one.trigger) " #" (number(one.number)) }
                                }
                                @if frozen.len() > NAMED { " and " (frozen.len() - NAMED) " more" }
                            },
                        }
                    }
                }
            }
            td class="nw" data-l="since" { (time(hold.created_at, Form::Short)) }
            td class="nw" data-l="until" { @match hold.until { Some(until) => (time(until, Form::Short)), None => "released by hand" } }
            td class="r" {
                @if may_end(reader, &hold.triggers, view.named) {
                    @match freeze {
                        true => form method="post" action={ "/holds/" (hold.id) "/release" } {
                            (hidden(&view.seen_of(hold.id)))
                            button { "Release" span class="vh" { " the freeze of " (hold.triggers) } }
                        },
                        // The page of the trigger names the change that starts.
                        false => a class="btn" href={ "/triggers/" (hold.triggers) "#release" } { "Release" span class="vh" { " the " (word) " of " (hold.triggers) } },
                    }
                }
            }
        }
    }
}

fn form(view: &View, again: Option<&Fields>) -> Markup {
    let given = |name: &str| {
        again
            .and_then(|fields| fields.text(name))
            .unwrap_or_default()
    };
    html! {
        section class="card" {
            h2 { "Freeze triggers" }
            form method="post" action="/holds" class="form" {
                (hidden(&view.seen()))
                p class="s" { "New sets are recorded and held. Sets that have succeeded before pass, unless the freeze is hard." }
                label { "Triggers" input name="triggers" placeholder="shop-*" required value=(given("triggers")); }
                label { "Reason (kept)" input name="reason" maxlength="200" required value=(given("reason")); }
                label { "Until (UTC), optional" input name="until" placeholder="for 2 days, or YYYY-MM-DD 08:00" value=(given("until")); }
                label class="in" { input type="checkbox" name="hard" checked[!given("hard").is_empty()]; "also stop rollbacks and pins by people" }
                button class="pri" { (icon("hold")) "Freeze" }
            }
        }
    }
}

fn ended(ended: &[Released], all: &str) -> Markup {
    html! {
        section class="card" {
            h2 { "Released " span class="push q" { (DAYS) " days" } }
            @if ended.is_empty() { p class="none" { "none" } } @else {
                table class="st" {
                    thead { tr {
                        th scope="col" { "Kind" } th scope="col" { "Triggers" } th scope="col" { "By" } th scope="col" { "Reason" }
                        th scope="col" { "From, until" } th scope="col" { "Released by" }
                    } }
                    tbody { @for one in ended.iter().take(ENDED) { @let hold = &one.hold; tr {
                        th scope="row" { (word(hold.kind)) }
                        td class="n" { (hold.triggers) }
                        td { (visible(&hold.actor)) }
                        td class="full" { @if let Some(reason) = &hold.reason { (visible(reason)) } }
                        td class="nw" { (time(hold.created_at, Form::Short)) " to " (time(one.ended_at, Form::Short)) }
                        td { @match &one.released_by { Some(by) => (visible(by)), None => span class="q" { "its time was over" } } }
                    } } }
                }
                @if ended.len() > ENDED { p class="more" { "The last " (ENDED) ": " a href=(all) { "more as JSON" } } }
            }
        }
    }
}

fn word(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Freeze => "freeze",
        HoldKind::Pin => "pin",
        HoldKind::Fault => "fault",
    }
}
