//! `/i/{registry}/{repository}`: the tags of a repository over time, and those written once.

mod rows;

use axum::http::Uri;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use tagtrail_history::days::{self, Days};
use tagtrail_history::instant::Instant;
use tagtrail_history::lanes;
use tagtrail_history::tags::{self, Class, Counts, KnownTag, Sort, TagsQuery};
use tagtrail_proto::{Digest, Registry, Repository};
use time::{Date, Duration, OffsetDateTime, UtcOffset};

use crate::http::error::Error;
use crate::http::paging::{CURSOR, Items, Page as Part};
use crate::http::parameters::{AT, PART, Parameters};
use crate::operations::tags::{CLASS, SORT, Span, WINDOW, list};
use crate::pages::frame::{Frame, Section, crumbs};
use crate::pages::part::bars::{Column, Columns, Height, Tick, columns};
use crate::pages::part::command::command;
use crate::pages::part::digest::copy;
use crate::pages::part::icon::icon;
use crate::pages::part::image;
use crate::pages::part::lane::Window;
use crate::pages::part::question::{address, field, past, select};
use crate::pages::part::text::{counted, is_web_address, number};
use crate::pages::part::when::{Form, day_of_month, time, written};
use crate::pages::reader::Reader;
use crate::shared::Shared;

/// With more tags than this, only those that move are shown at first.
const MANY: u64 = 100;
/// Rows of a page of lanes, and of a list of tags that were written once.
const LANES: usize = 25;
const ROWS: usize = 40;
/// Days of the chart.
const CHART: u16 = 90;

/// Names a time.
fn named(span: Span) -> &'static str {
    match span {
        Span::Day => "24 hours",
        Span::Week => "7 days",
        Span::Month => "30 days",
        Span::Quarter => "90 days",
        Span::Year => "1 year",
    }
}

/// The question in an address.
#[derive(Debug)]
struct Question<'a> {
    path: String,
    part: Option<&'a str>,
    class: Option<Class>,
    sort: Sort,
    /// The time that the reader chose for the lanes. `None`: 30 days, or the whole history of a
    /// younger repository.
    span: Option<Span>,
    at: Option<OffsetDateTime>,
    /// Whether the address always means the same.
    lasts: bool,
}

impl<'a> Question<'a> {
    fn read(
        path: String,
        parameters: &'a Parameters,
        now: OffsetDateTime,
    ) -> Result<Question<'a>, Error> {
        let at = past(parameters, AT.name, now)?;
        let sort = parameters.choice(SORT.name, &Sort::EVERY, Sort::as_str)?;
        let span = parameters.choice(WINDOW.name, &Span::EVERY, Span::as_str)?;
        Ok(Question {
            path,
            part: parameters.written(PART.name),
            class: parameters.choice(CLASS.name, &Class::EVERY, Class::as_str)?,
            sort: sort.unwrap_or(Sort::Newest),
            span,
            lasts: at.is_none_or(|at| at.lasts),
            at: at.map(|at| at.at),
        })
    }

    /// Returns the address of this question, perhaps of a further page.
    fn address(&self, cursor: Option<&str>) -> String {
        let at = self.at.map(|at| Instant(at).to_string());
        let parameters = [
            ("q", self.part),
            ("class", self.class.map(Class::as_str)),
            (
                "sort",
                Some(self.sort.as_str()).filter(|_| self.sort != Sort::Newest),
            ),
            ("window", self.span.map(Span::as_str)),
            ("at", at.as_deref()),
            ("cursor", cursor),
        ];
        address(&self.path, &parameters)
    }

    /// Returns the time that the lanes of a repository cover, whose first revision took effect at
    /// `first`.
    fn window(&self, first: Option<OffsetDateTime>, until: OffsetDateTime) -> Window {
        let from = self.span.unwrap_or(Span::Month).before(until);
        let window = Window { from, until };
        match self.span {
            Some(_) => window,
            None => window.since(first),
        }
    }
}

/// The answers that the page shows.
struct Found {
    counts: Counts,
    class: Class,
    items: Items<KnownTag>,
    about: rows::About,
    days: Days,
}

pub(crate) async fn show(
    reader: &Reader,
    shared: &Shared,
    registry: &Registry,
    repository: &Repository,
    uri: &Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(uri, &[PART, CLASS, SORT, WINDOW, AT, CURSOR])?;
    let path = image::repository_address(registry, repository);
    let question = Question::read(path, &parameters, reader.now)?;
    if !question.lasts {
        return Ok(Redirect::to(&question.address(None)).into_response());
    }
    let part = Part::read(list(question.sort), &parameters)?;
    let until = question.at.unwrap_or(reader.now);
    let last_day = until.to_offset(UtcOffset::UTC).date();
    let found = shared.database.ask_page(async |db| {
        let Some(counts) = tags::counts(db, registry, repository).await? else {
            return Ok(None);
        };
        let class = question.class.unwrap_or_else(|| usual(&counts));
        let part = part.with(rows_of(class));
        let query = TagsQuery {
            at: question.at,
            class,
            part: question.part,
            deleted: true,
            signatures: false,
            sort: question.sort,
        };
        let fetched = tags::tags(db, registry, repository, query, part.after, part.fetch()).await?;
        let mut items = part.cut(fetched);
        let window = question.window(counts.first_at, until);
        let mut about = rows::About::of(window);
        if question.at.is_none() {
            let digests = items.items.iter().filter_map(|tag| tag.digest.as_ref());
            let digests: Vec<&Digest> = digests.collect();
            about.sharing = tags::sharing(db, counts.repository, &digests).await?;
        }
        if class != Class::Once {
            lanes::add(db, &mut items.items, window.from, window.until).await?;
        }
        let first_day = last_day - Duration::days(i64::from(CHART) - 1);
        let days = days::of_repository(db, counts.repository, first_day, last_day).await?;
        Ok(Some(Found {
            counts,
            class,
            items,
            about,
            days,
        }))
    });
    let unknown = || Error::RepositoryUnknown(format!("{registry}/{repository}"));
    let found = found.await?.ok_or_else(unknown)?;
    let content = html! {
        (head(registry, repository, &found, last_day))
        (chart(repository, &found.days, last_day))
        (list_of_tags(&question, &found, reader))
    };
    let mut frame = Frame::new(repository.to_string(), Section::Images);
    let name = format!("{registry}/{repository}");
    let class = found.class;
    let at = question.at.map(|at| Instant(at).to_string());
    let cursor = parameters.text(CURSOR.name);
    frame.list(json(&name, &question, &found, at.as_deref(), cursor));
    frame.cli = Some(command(
        &["tags", &name, "--deleted"],
        &[
            ("contains", question.part),
            (
                "class",
                Some(class.as_str()).filter(|_| class != Class::All),
            ),
            ("sort", Some(question.sort.as_str())),
            ("at", at.as_deref()),
        ],
    ));
    Ok(frame.page(reader, &content).into_response())
}

/// Returns the class that is shown without a choice.
fn usual(counts: &Counts) -> Class {
    match (counts.of(Class::All), counts.of(Class::Moving)) {
        (..=MANY, _) => Class::All,
        (_, 0) => Class::Once,
        _ => Class::Moving,
    }
}

/// Returns the number of rows of a page.
fn rows_of(class: Class) -> usize {
    match class {
        Class::Once => ROWS,
        _ => LANES,
    }
}

fn json(
    name: &str,
    question: &Question<'_>,
    found: &Found,
    at: Option<&str>,
    cursor: Option<&str>,
) -> String {
    let class = found.class;
    let limit = rows_of(class).to_string();
    // The shortest time of the API that has the whole window.
    let has = |span: &Span| span.before(found.about.window.until) <= found.about.window.from;
    let span = Span::EVERY.into_iter().find(has).unwrap_or(Span::Year);
    let parameters = [
        ("repository", Some(name)),
        ("q", question.part),
        ("class", Some(class.as_str())),
        ("sort", Some(question.sort.as_str())),
        ("at", at),
        (
            "window",
            Some(span.as_str()).filter(|_| class != Class::Once),
        ),
        ("deleted", Some("true")),
        ("limit", Some(&limit)),
        ("cursor", cursor),
    ];
    address("/v1/tags", &parameters)
}

/// Returns the way to the page of a repository or folder.
pub(crate) fn steps(registry: &str, path: &str) -> Vec<(String, Option<String>)> {
    let mut steps = vec![("Images".to_owned(), Some("/i".to_owned()))];
    steps.extend(image::way(registry, path));
    if let Some((_, address)) = steps.last_mut() {
        *address = None;
    }
    steps
}

fn head(registry: &Registry, repository: &Repository, found: &Found, last_day: Date) -> Markup {
    let counts = &found.counts;
    let month = last_day - Duration::days(29);
    let recent = found.days.items.iter().filter(|day| day.day >= month);
    let recent: u64 = recent.map(|day| day.changes).sum();
    let code = found.items.items.iter();
    let code = code.filter_map(|tag| tag.source_code.as_deref());
    let mut code = code.filter(|code| is_web_address(code));
    html! {
        div {
            (crumbs(&steps(registry.as_ref(), repository.as_ref())))
            div class="bar" {
                h1 { (repository) }
                (copy(&format!("{registry}/{repository}"), "Copy the name"))
                @if let Some(code) = code.next() {
                    span class="push bar" { a class="btn" rel="noreferrer" href=(code) { (icon("ext")) "Source" } }
                }
            }
            p class="s" {
                b { (number(counts.of(Class::All))) } " " (plural(counts.of(Class::All), "tag", "tags"))
                " · " b { (number(counts.of(Class::Moving))) } " " (plural(counts.of(Class::Moving), "moves", "move")) ", "
                (number(counts.of(Class::Once))) " " (plural(counts.of(Class::Once), "was", "were")) " written once"
                " · " b { (number(recent)) } " " (plural(recent, "change", "changes")) " in 30 days"
                @if counts.releases_moved > 0 {
                    " · " a href="?class=release" { (counted(counts.releases_moved, "release", "releases")) " moved" }
                }
                @if counts.signatures > 0 { " · " (counted(counts.signatures, "tag holds", "tags hold")) " signatures" }
                @if let Some(first) = counts.first_at { " · first seen " (time(first, Form::Day)) }
            }
        }
    }
}

fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    match count {
        1 => one,
        _ => many,
    }
}

fn chart(repository: &Repository, days: &Days, last_day: Date) -> Markup {
    let first_day = last_day - Duration::days(i64::from(CHART) - 1);
    let mut drawn = vec![Column::default(); usize::from(CHART)];
    for day in &days.items {
        let place = usize::try_from((day.day - first_day).whole_days());
        if let Some(column) = place.ok().and_then(|place| drawn.get_mut(place)) {
            *column = Column::of(day.changes);
        }
    }
    let tick = |day: u16| {
        let at = first_day + Duration::days(day.into());
        let place = f64::from(day) / f64::from(CHART - 1) * 100.0;
        Tick::plain(place, day_of_month(at.midnight().assume_utc()))
    };
    let ticks = [0, CHART / 3, CHART / 3 * 2, CHART - 1].map(tick);
    let sum: u64 = days.items.iter().map(|day| day.changes).sum();
    let most = days.items.iter().map(|day| day.changes).max().unwrap_or(0);
    let label = format!(
        "Changes of {repository} a day over {CHART} days: {} in all, at most {} a day",
        number(sum),
        number(most)
    );
    html! {
        section class="card" {
            h2 { "Changes a day " span class="push q" { (CHART) " days of UTC, all tags" } }
            (columns(&Columns { columns: &drawn, height: Height::Low, ticks: &ticks, silent_from: None, label: &label }))
            @if days.uncounted > 0 {
                p class="s" { (counted(days.uncounted, "older change of all repositories is", "older changes of all repositories are")) " not counted yet; the indexer counts now." }
            }
        }
    }
}

fn list_of_tags(question: &Question<'_>, found: &Found, reader: &Reader) -> Markup {
    let once = found.class == Class::Once;
    let shown = found.items.items.len();
    let all = found.counts.of(found.class);
    html! {
        section class="card" aria-labelledby="tags" {
            h2 id="tags" { @if once { "Tags written once" } @else { "Tags over time" } }
            (form(question, found, reader.now))
            @match shown {
                0 => p class="note" { "No tag of this repository is so. " a href=(question.path) { "Show its tags" } },
                _ if once => { (rows::once(&found.items.items, &found.about, reader.now)) },
                _ => { (rows::moving(&found.items.items, &found.about, question.at, reader.now)) },
            }
            div class="bar more" {
                span class="s" {
                    @match question.part {
                        Some(_) => { (counted(shown as u64, "tag", "tags")) " here whose name contains the text" },
                        None => { (number(shown as u64)) " of " (counted(all, "tag", "tags")) " " (words(found.class, all)) },
                    }
                }
                @if let Some(next) = &found.items.next {
                    a class="btn push" rel="next" href=(question.address(Some(next))) { "Next " (icon("moved")) }
                }
            }
        }
    }
}

/// Completes the sentence "… tags".
fn words(class: Class, tags: u64) -> &'static str {
    match class {
        Class::Moving => plural(tags, "that moves", "that move"),
        Class::Release => plural(
            tags,
            "that looks like a version",
            "that look like a version",
        ),
        Class::Once => "written once",
        Class::Deleted => "deleted",
        Class::All => "in all",
    }
}

fn form(question: &Question<'_>, found: &Found, now: OffsetDateTime) -> Markup {
    let name = |class: Class| match class {
        Class::Moving => "moving",
        Class::Release => "releases",
        Class::Once => "written once",
        Class::Deleted => "deleted",
        Class::All => "all",
    };
    let classes = Class::EVERY.map(|class| {
        let count = number(found.counts.of(class));
        (class.as_str(), format!("{} ({count})", name(class)))
    });
    let orders = [
        (Sort::Newest.as_str(), "newest change".to_owned()),
        (Sort::Changes.as_str(), "most changes".to_owned()),
        (Sort::Name.as_str(), "name".to_owned()),
    ];
    let window = found.about.window;
    let mut spans = Span::EVERY
        .map(|span| (span.as_str(), named(span).to_owned()))
        .to_vec();
    let month = Span::Month.before(window.until);
    if found.counts.first_at.is_some_and(|first| first > month) {
        spans.insert(0, ("", "whole history".to_owned()));
    }
    let span = match question.span {
        None if window.from > month => "",
        span => span.unwrap_or(Span::Month).as_str(),
    };
    let once = found.class == Class::Once;
    let until = if once {
        "Not after (UTC)"
    } else {
        "Until (UTC)"
    };
    let at = question.at.map(|at| written(at, Form::Full));
    html! {
        form class="bar e" action=(question.path) {
            (field("q", "Name contains", 14, question.part.unwrap_or_default(), ""))
            (select("class", "Which", &classes, found.class.as_str()))
            (select("sort", "First", &orders, question.sort.as_str()))
            @if !once { (select("window", "Window", &spans, span)) }
            (field("at", until, 17, at.as_deref().unwrap_or_default(), &written(now, Form::Full)))
            button class="pri" { "Show" }
        }
    }
}
