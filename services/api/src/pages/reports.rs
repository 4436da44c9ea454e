//! `/reports`, `/reports/{name}`, `/reports/{name}.csv`: reports, each with its table and the SQL
//! that makes it.

mod cards;
mod csv;
mod rows;

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};
use tagtrail_history::instant::Instant;
use tagtrail_history::reports::Question;
use tagtrail_proto::instant;

use crate::http::error::Error;
use crate::http::parameters::{KNOWN_AT, Parameters};
use crate::operations::keep;
use crate::operations::reports::{
    Answer, FROM, MATCH, QUERY, TEAM, TO, TRIGGER, check, first_rows, is_final, named, question,
    whole,
};
use crate::pages::Page;
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::command::command;
use crate::pages::part::question::{address, field};
use crate::pages::part::when::{self, Form, written};
use crate::pages::reader::Reader;
use crate::shared::Shared;

pub(crate) const PAGE: Page = Page {
    id: "page_reports",
    paths: &["/reports"],
    open: false,
    stored: true,
    serve: || get(all),
};
pub(crate) const ONE: Page = Page {
    id: "page_report",
    paths: &["/reports/{file}"],
    open: false,
    stored: true,
    serve: || get(one),
};

/// The reports of the first page, in the order in which they are asked for.
const SHOWN: [&str; 6] = [
    "deployments",
    "lead-time",
    "rollout-time",
    "releases-moved",
    "churn",
    "coverage",
];

/// Most rows of a report that a card counts.
const MOST: usize = 5000;

/// The question of a request.
struct Asked {
    question: Question,
    parameters: Parameters,
}

impl Asked {
    fn read(uri: &Uri, shared: &Shared, reader: &Reader) -> Result<Asked, Error> {
        let parameters = Parameters::read(uri, QUERY)?;
        let typed = |field, text: &str| {
            let read = match field == KNOWN_AT.name {
                true => when::read_past(text, reader.now),
                false => when::read(text, reader.now),
            };
            read.ok_or(Error::PastTyped { field })
        };
        let question = question(&parameters, &shared.names.get(), reader.now, typed)?;
        Ok(Asked {
            question,
            parameters,
        })
    }

    /// Returns the address that means the same for ever, if a time is one that only people
    /// understand.
    fn redirect(&self, path: &str) -> Option<Response> {
        let lasts = |text: &str| {
            instant::parse(text).is_some() || instant::parse(&format!("{text}T00:00:00Z")).is_some()
        };
        let names = [FROM.name, TO.name, KNOWN_AT.name];
        let mut times = names
            .iter()
            .filter_map(|name| self.parameters.written(name));
        let lasting = times.all(lasts);
        (!lasting).then(|| Redirect::to(&self.address(path)).into_response())
    }

    /// Returns the address of a report about the same, with the times of this answer.
    fn address(&self, path: &str) -> String {
        let parameters = self.parameters();
        let parameters = parameters.each_ref();
        address(
            path,
            &parameters.map(|(name, value)| (*name, value.as_deref())),
        )
    }

    /// Returns the command that prints a report about the same, with the times of this answer.
    fn command(&self, name: &str) -> String {
        let parameters = self
            .parameters()
            .map(|(name, value)| (name.replace('_', "-"), value));
        let flags = parameters.each_ref();
        command(
            &["report", name],
            &flags.map(|(name, value)| (name.as_str(), value.as_deref())),
        )
    }

    /// Returns the question, with the times of this answer.
    fn parameters(&self) -> [(&'static str, Option<String>); 6] {
        let question = &self.question;
        let instant = |at| Instant(at).to_string();
        let matching = self.parameters.written(MATCH.name).map(str::to_owned);
        [
            (FROM.name, Some(instant(question.from))),
            (TO.name, Some(instant(question.to))),
            (MATCH.name, matching),
            (TRIGGER.name, question.trigger.clone()),
            (TEAM.name, question.team.clone()),
            (KNOWN_AT.name, question.known_at.map(instant)),
        ]
    }
}

async fn all(reader: Reader, State(shared): State<Shared>, uri: Uri) -> Result<Response, Error> {
    let asked = Asked::read(&uri, &shared, &reader)?;
    if let Some(redirect) = asked.redirect("/reports") {
        return Ok(redirect);
    }
    let question = &asked.question;
    let answers = shared.database.ask_page(async |db| {
        let mut answers: Vec<Answer> = Vec::with_capacity(SHOWN.len());
        for name in SHOWN {
            let report = tagtrail_history::reports::find(name);
            let Some(report) = report.filter(|one| one.known_at || question.known_at.is_none())
            else {
                continue;
            };
            answers.push(first_rows(db, report, question, MOST, reader.now).await?);
        }
        Ok(answers)
    });
    let answers = answers.await?;
    let content = html! {
        h1 { "Reports" }
        (form(&asked, "/reports"))
        (cards::all(&asked, &answers))
        p class="s" { "Each report has links to its CSV and JSON, with all rows and the same question, and the SQL that makes it." }
    };
    // No answer of the API and no command has several reports.
    let frame = Frame::new("Reports", Section::Reports);
    Ok(frame.page(&reader, &content).into_response())
}

async fn one(
    reader: Reader,
    State(shared): State<Shared>,
    Path(file): Path<String>,
    uri: Uri,
) -> Result<Response, Error> {
    let asked = Asked::read(&uri, &shared, &reader)?;
    if let Some(redirect) = asked.redirect(&format!("/reports/{file}")) {
        return Ok(redirect);
    }
    if let Some(name) = file.strip_suffix(".json") {
        let path = format!("/v1/reports/{}", named(name)?.name);
        return Ok(Redirect::to(&asked.address(&path)).into_response());
    }
    let report = named(file.strip_suffix(".csv").unwrap_or(&file))?;
    check(report, &asked.question)?;
    if file.ends_with(".csv") {
        let name = format!("attachment; filename=\"{}.csv\"", report.name);
        let headers = [
            (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (CONTENT_DISPOSITION, name),
        ];
        let is_final = is_final(&asked.question, reader.now);
        let rows = whole(&shared, report, asked.question, csv::Csv(report)).await?;
        return Ok(keep((headers, rows).into_response(), is_final));
    }
    let answer = shared.database.ask_page(async |db| {
        first_rows(db, report, &asked.question, rows::SHOWN, reader.now).await
    });
    let answer = answer.await?;
    let path = format!("/reports/{}", report.name);
    let content = html! {
        div {
            (crumbs(&[("Reports".to_owned(), Some(asked.address("/reports"))), (report.title.to_owned(), None)]))
            h1 { (report.title) }
            p class="s" { (report.about) }
        }
        (form(&asked, &path))
        section class="card" {
            h2 { "Rows " (cards::forms(&asked, report.name)) }
            (rows::table(&answer))
            (cards::sql(&answer))
        }
    };
    let mut frame = Frame::new(report.title, Section::Reports);
    frame.json = Some(asked.address(&format!("/v1/reports/{}", report.name)));
    frame.csv = Some(asked.address(&format!("/reports/{}.csv", report.name)));
    frame.cli = Some(asked.command(report.name));
    Ok(frame.page(&reader, &content).into_response())
}

fn form(asked: &Asked, path: &str) -> Markup {
    let given = |name: &str| asked.parameters.written(name).unwrap_or_default();
    let from = written(asked.question.from, Form::Full);
    let to = written(asked.question.to, Form::Full);
    html! {
        form class="bar e card" action=(path) {
            (field(FROM.name, "From (UTC)", 17, given(FROM.name), &from))
            (field(TO.name, "To", 17, given(TO.name), &to))
            (field(MATCH.name, "Images", 22, given(MATCH.name), "registry.example.com/shop/**"))
            (field(TRIGGER.name, "Trigger", 10, given(TRIGGER.name), "all"))
            (field(TEAM.name, "Team", 8, given(TEAM.name), "all"))
            (field(KNOWN_AT.name, "Known at (UTC)", 17, given(KNOWN_AT.name), "now"))
            button class="pri" { "Show" }
            span class="push s" {
                @match asked.question.known_at {
                    Some(_) => "These figures are final: only facts recorded until then count",
                    None => { "The address holds the whole question; " a href=(asked.address(path)) { "with these times" } ". With “known at” its figures are final" },
                }
            }
        }
    }
}
