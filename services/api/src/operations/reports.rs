//! `GET /v1/reports/{name}?from=&to=&match=&trigger=&team=&known_at=`: a report, with the statement
//! that makes it.

mod whole;

use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use tagtrail_config::{Names, Role};
use tagtrail_history::instant::Instant;
use tagtrail_history::reports::{ALL, Question, Report, find};
use tagtrail_proto::instant;
use time::{Duration, OffsetDateTime, UtcOffset};

use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{KNOWN_AT, Parameter, Parameters, PathValues, optional, text};
use crate::operations::keep;
use crate::shared::Shared;

pub(crate) use whole::{Format, whole};

/// Days of a report without `from`, the present one included.
const USUAL: i64 = 30;
/// Longest time of a report.
const LONGEST: Duration = Duration::days(3 * 366);
/// Age from which on all that was recorded before `known_at` is there.
const SETTLED: Duration = Duration::MINUTE;

const NAME: Parameter = Parameter {
    name: "name",
    required: true,
    description: "The name of a report.",
    example: "deployments",
    schema: || json!({ "type": "string", "enum": ALL.iter().map(|one| one.name).collect::<Vec<_>>() }),
};
pub(crate) const FROM: Parameter = optional(
    "from",
    "The first time of the report: a day, or RFC 3339. Without it, the last 30 days.",
    "2026-03-01",
    text,
);
pub(crate) const TO: Parameter = optional(
    "to",
    "The end of the report: a day, which is included, or RFC 3339. Without it, now.",
    "2026-03-31",
    text,
);
pub(crate) const MATCH: Parameter = optional(
    "match",
    "Only images that match this pattern.",
    "registry.example.com/shop/**",
    text,
);
pub(crate) const TRIGGER: Parameter = optional("trigger", "Only this trigger.", "shop", text);
pub(crate) const TEAM: Parameter = optional(
    "team",
    "Only triggers with this value of the label `team`.",
    "shop",
    text,
);
pub(crate) const QUERY: &[Parameter] = &[FROM, TO, MATCH, TRIGGER, TEAM, KNOWN_AT];

pub(crate) const REPORT: Operation = Operation {
    id: "report",
    method: Method::Get,
    path: "/v1/reports/{name}",
    summary: "A report, with the SQL over the schema `report` that makes it. With known_at the answer is final.",
    role: Role::Read,
    in_path: &[NAME],
    query: QUERY,
    header: &[],
    body: None,
    response: ResponseBody::Json(schema::<Answer>),
    problems: &[
        (400, "time_invalid"),
        (400, "match_invalid"),
        (400, "parameter_conflict"),
        (404, "report_unknown"),
    ],
    serve: |method| on(method, report),
};

/// A report.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Report")]
pub(crate) struct Answer {
    /// The name.
    pub(crate) name: &'static str,
    /// The question that it answers.
    pub(crate) about: &'static str,
    /// The first time of the report.
    pub(crate) from: Instant,
    /// The first time after it.
    pub(crate) to: Instant,
    /// Only facts recorded until then are counted.
    pub(crate) known_at: Option<Instant>,
    /// True if the same question always has this answer.
    pub(crate) r#final: bool,
    /// The statement that makes the report, for anybody with the role `tagtrail_report`.
    pub(crate) sql: String,
    /// The columns.
    pub(crate) columns: Vec<Column>,
    /// The rows: an object with the columns for each. The last field, so that rows are sent as they
    /// are read; an answer that breaks off is no JSON.
    pub(crate) items: Vec<Map<String, Value>>,
    /// True if there are more rows than a page needs.
    #[serde(skip)]
    pub(crate) more: bool,
}

/// A column of a report.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Column {
    /// The name.
    pub(crate) name: &'static str,
    /// Its meaning.
    pub(crate) meaning: &'static str,
}

/// Reads the question of a report. Times are days, or in a form that `typed` reads.
pub(crate) fn question(
    parameters: &Parameters,
    names: &Names,
    now: OffsetDateTime,
    typed: impl Fn(&'static str, &str) -> Result<OffsetDateTime, Error>,
) -> Result<Question, Error> {
    let time = |parameter: &'static str, day_is: Duration| {
        let Some(written) = parameters.written(parameter) else {
            return Ok(None);
        };
        let day = instant::parse(&format!("{written}T00:00:00Z"));
        let day = day.and_then(|day| day.checked_add(day_is));
        day.map_or_else(|| typed(parameter, written), Ok).map(Some)
    };
    let to = time(TO.name, Duration::DAY)?.unwrap_or(now);
    let from = time(FROM.name, Duration::ZERO)?.unwrap_or_else(|| {
        let day = to.to_offset(UtcOffset::UTC) - Duration::NANOSECOND;
        day.truncate_to_day() - Duration::days(USUAL - 1)
    });
    let known_at = time(KNOWN_AT.name, Duration::ZERO)?;
    if from > to {
        let (since, until) = (Instant(from), Instant(to));
        return Err(Error::RangeEmpty { since, until });
    }
    if to - from > LONGEST || known_at.is_some_and(|known_at| known_at > now) {
        return Err(Error::ReportTime);
    }
    let matching = match parameters.written(MATCH.name) {
        None => None,
        Some(pattern) => {
            names.pattern(pattern).map_err(Error::Match)?;
            Some(expression(&names.without_alias(pattern)))
        }
    };
    let text = |name| parameters.written(name).map(str::to_owned);
    Ok(Question {
        from,
        to,
        known_at,
        matching,
        trigger: text(TRIGGER.name),
        team: text(TEAM.name),
    })
}

/// Returns a pattern over images as a regular expression of Postgres.
fn expression(pattern: &str) -> String {
    let (path, tag) = match pattern.rsplit_once('/') {
        Some((before, last)) => match last.split_once(':') {
            Some((last, tag)) => (format!("{before}/{last}"), tag),
            None => (pattern.to_owned(), "*"),
        },
        None => match pattern.split_once(':') {
            Some((path, tag)) => (path.to_owned(), tag),
            None => (pattern.to_owned(), "*"),
        },
    };
    let first = path.split('/').next().unwrap_or_default();
    let has_registry = first == "**" || first == "localhost" || first.contains(['.', ':']);
    let any_registry = if has_registry { "" } else { "[^/]+/" };
    let parts = path.split('/').map(|part| match part {
        "**" => ".+".to_owned(),
        part => within(part),
    });
    let parts: Vec<String> = parts.collect();
    format!("^{any_registry}{}:{}$", parts.join("/"), within(tag))
}

/// Returns a part of a pattern as a regular expression: `*` is any text without a slash.
fn within(part: &str) -> String {
    let mut expression = String::new();
    for char in part.chars() {
        match char {
            '*' => expression += "[^/]*",
            char if char.is_ascii_alphanumeric() || "-_/:".contains(char) => expression.push(char),
            char => expression.extend(['[', char, ']']),
        }
    }
    expression
}

/// Returns the report of this name.
pub(crate) fn named(name: &str) -> Result<&'static Report, Error> {
    let known = || ALL.iter().map(|report| report.name).collect();
    find(name).ok_or_else(|| Error::ReportUnknown(known()))
}

/// Checks that the report can answer the question.
pub(crate) fn check(report: &Report, question: &Question) -> Result<(), Error> {
    match question.known_at {
        Some(_) if !report.known_at => Err(Error::NeverFinal),
        _ => Ok(()),
    }
}

/// Returns whether an answer stays the same.
pub(crate) fn is_final(question: &Question, now: OffsetDateTime) -> bool {
    question
        .known_at
        .is_some_and(|known_at| known_at + SETTLED < now)
}

/// Reads a row. Times get the form of all times of the api.
fn item(row: &str) -> Result<Map<String, Value>, sqlx::Error> {
    let mut item: Map<String, Value> =
        serde_json::from_str(row).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    for (name, value) in &mut item {
        let is_time = name.ends_with("_at") || ["since", "until"].contains(&name.as_str());
        let at = value.as_str().filter(|_| is_time).and_then(instant::parse);
        if let Some(at) = at {
            *value = json!(Instant(at));
        }
    }
    Ok(item)
}

/// Reads the first rows of a report, at most `most`.
pub(crate) async fn first_rows(
    db: &mut PgConnection,
    report: &'static Report,
    question: &Question,
    most: usize,
    now: OffsetDateTime,
) -> Result<Answer, sqlx::Error> {
    let rows = report.rows(db, question, most + 1).await?;
    let mut answer = empty(report, question, now);
    answer.more = rows.len() > most;
    for row in rows.iter().take(most) {
        answer.items.push(item(row)?);
    }
    Ok(answer)
}

/// Returns the answer without rows.
pub(crate) fn empty(report: &'static Report, question: &Question, now: OffsetDateTime) -> Answer {
    let column = |(name, meaning): &(&'static str, &'static str)| Column { name, meaning };
    Answer {
        name: report.name,
        about: report.about,
        from: Instant(question.from),
        to: Instant(question.to),
        known_at: question.known_at.map(Instant),
        r#final: is_final(question, now),
        sql: report.sql(question),
        columns: report.columns.iter().map(column).collect(),
        items: Vec::new(),
        more: false,
    }
}

/// A report as JSON.
struct AsJson {
    begin: String,
    has_rows: bool,
}

/// The end of an answer without rows.
const END: &str = "]}";

impl Format for AsJson {
    fn begin(&self) -> String {
        self.begin.clone()
    }

    fn row(&mut self, text: &mut String, item: &Map<String, Value>) {
        if std::mem::replace(&mut self.has_rows, true) {
            text.push(',');
        }
        // Serialising fails only for maps with keys other than strings.
        *text += &serde_json::to_string(item).unwrap_or_default();
    }

    fn end(&self) -> &'static str {
        END
    }
}

async fn report(
    State(shared): State<Shared>,
    path: PathValues,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, REPORT.query)?;
    let name: String = path.parse(&NAME).unwrap_or_default();
    let now = OffsetDateTime::now_utc();
    let exact = |parameter, text: &str| instant::parse(text).ok_or(Error::Time { parameter });
    let question = question(&parameters, &shared.names.get(), now, exact)?;
    let report = named(&name)?;
    check(report, &question)?;
    let is_final = is_final(&question, now);
    let empty = empty(report, &question, now);
    let begin = serde_json::to_string(&empty).unwrap_or_default();
    let format = AsJson {
        begin: begin.strip_suffix(END).unwrap_or_default().to_owned(),
        has_rows: false,
    };
    let body = whole(&shared, report, question, format).await?;
    Ok(keep(
        ([(CONTENT_TYPE, "application/json")], body).into_response(),
        is_final,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_over_images_are_regular_expressions() {
        for (pattern, expected) in [
            ("r.example.com/shop/**", "^r[.]example[.]com/shop/.+:[^/]*$"),
            ("shop/web", "^[^/]+/shop/web:[^/]*$"),
            ("shop/*:v1.*", "^[^/]+/shop/[^/]*:v1[.][^/]*$"),
            ("127.0.0.1:5000/a", "^127[.]0[.]0[.]1:5000/a:[^/]*$"),
            ("**", "^.+:[^/]*$"),
        ] {
            assert_eq!(expression(pattern), expected);
        }
    }
}
