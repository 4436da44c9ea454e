//! Reports: statements over the stable views of the schema `report`, so that a person can run the
//! same statement and gets the same rows.
//!
//! With `known_at`, a report reads only facts recorded until then. Rows of the views are only
//! added, so such an answer is final.

mod statements;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _};
use time::OffsetDateTime;

use crate::instant::Instant;

pub use statements::ALL;

/// Rows that [`next`] reads at once.
const READ: usize = 500;

/// A report.
#[derive(Debug)]
pub struct Report {
    /// Name in addresses.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// The question that it answers, in a sentence.
    pub about: &'static str,
    /// Name and meaning of each column.
    pub columns: &'static [(&'static str, &'static str)],
    /// Whether rollouts are counted: these reports take `trigger` and `team`.
    pub of_rollouts: bool,
    /// Whether an answer with `known_at` is possible.
    pub known_at: bool,
    statement: fn(&Parts) -> String,
}

/// The parts of a statement that depend on the question. Each is empty, or begins with a space.
#[derive(Debug)]
struct Parts {
    /// A condition on `trigger` and `team`.
    of_trigger: String,
    /// A condition on the column `image` of the table that the function gets.
    has_match: bool,
}

impl Parts {
    /// Returns the condition that the image matches, with this before the column.
    fn matches(&self, table: &str) -> String {
        match self.has_match {
            true => format!(" and {table}image ~ :match"),
            false => String::new(),
        }
    }
}

/// The question of a report.
#[derive(Debug, Clone)]
pub struct Question {
    /// The first time of the report.
    pub from: OffsetDateTime,
    /// The first time after it.
    pub to: OffsetDateTime,
    /// Only facts recorded until then count.
    pub known_at: Option<OffsetDateTime>,
    /// A regular expression over images.
    pub matching: Option<String>,
    /// The name of a trigger.
    pub trigger: Option<String>,
    /// The team: the label `team` of triggers.
    pub team: Option<String>,
}

/// Returns the report of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Report> {
    ALL.iter().find(|report| report.name == name)
}

impl Report {
    fn template(&self, question: &Question) -> String {
        let mut of_trigger = String::new();
        if question.trigger.is_some() {
            of_trigger += " and trigger = :trigger";
        }
        if question.team.is_some() {
            of_trigger += " and team = :team";
        }
        (self.statement)(&Parts {
            of_trigger,
            has_match: question.matching.is_some(),
        })
    }

    /// Returns the statement with the values of the question in it, for people.
    #[must_use]
    pub fn sql(&self, question: &Question) -> String {
        let values = question.values();
        fill(&self.template(question), |place| {
            let value = values[place].as_deref().unwrap_or_default();
            format!("'{}'", value.replace('\'', "''"))
        })
    }

    /// Returns the first rows, at most `limit`, each as the JSON of an object with the columns.
    pub async fn rows(
        &self,
        db: &mut PgConnection,
        question: &Question,
        limit: usize,
    ) -> Result<Vec<String>, sqlx::Error> {
        let sql = format!("{} limit {limit}", self.as_json(question));
        let rows = bound(&sql, question).fetch_all(db).await?;
        rows.iter().map(|row| row.try_get("row")).collect()
    }

    /// Opens the report in a transaction. [`next`] reads its rows.
    pub async fn open(
        &self,
        db: &mut PgConnection,
        question: &Question,
    ) -> Result<(), sqlx::Error> {
        let sql = format!(
            "declare report no scroll cursor for {}",
            self.as_json(question)
        );
        bound(&sql, question)
            .persistent(false)
            .execute(db)
            .await
            .map(|_| ())
    }

    fn as_json(&self, question: &Question) -> String {
        let sql = fill(&self.template(question), |place| match place {
            0..3 => format!("${}::timestamptz", place + 1),
            _ => format!("${}", place + 1),
        });
        format!("select to_json(q)::text as row from ({sql}) q")
    }
}

/// Returns the next rows of the report that is open, as [`Report::rows`] does; none after the last.
pub async fn next(db: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let fetch = format!("fetch forward {READ} from report");
    let rows = sqlx::raw_sql(AssertSqlSafe(fetch)).fetch_all(db).await?;
    rows.iter().map(|row| row.try_get("row")).collect()
}

fn bound(sql: &str, question: &Question) -> Query<'static, Postgres, PgArguments> {
    let values = question.values().into_iter();
    values.fold(sqlx::query(AssertSqlSafe(sql.to_owned())), Query::bind)
}

/// The names of values in statements. No name begins with another one.
const NAMES: [&str; 6] = [":from", ":to", ":known_at", ":match", ":trigger", ":team"];

/// Puts a text in the place of each name. A text that is put in is not read again.
fn fill(template: &str, value: impl Fn(usize) -> String) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(colon) = rest.find(':') {
        let (before, from) = rest.split_at(colon);
        filled += before;
        let named = NAMES.iter().position(|name| from.starts_with(name));
        rest = match named {
            Some(place) => {
                filled += &value(place);
                &from[NAMES[place].len()..]
            }
            None => {
                filled.push(':');
                &from[1..]
            }
        };
    }
    filled + rest
}

impl Question {
    /// Returns the values in the order of [`NAMES`].
    fn values(&self) -> [Option<String>; 6] {
        let text = |at: OffsetDateTime| Instant(at).to_string();
        let known_at = self.known_at.map_or_else(|| "infinity".to_owned(), text);
        [
            Some(text(self.from)),
            Some(text(self.to)),
            Some(known_at),
            self.matching.clone(),
            self.trigger.clone(),
            self.team.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        let at = |text| tagtrail_proto::instant::parse(text).unwrap();
        Question {
            from: at("2026-03-01T00:00:00Z"),
            to: at("2026-03-31T00:00:00Z"),
            known_at: None,
            matching: None,
            trigger: None,
            team: None,
        }
    }

    #[test]
    fn a_statement_for_people_has_the_values_in_quotes() {
        let deployments = find("deployments").unwrap();
        let sql = deployments.sql(&question());
        assert!(
            sql.contains("'2026-03-01T00:00:00Z'") && sql.contains("'infinity'"),
            "{sql}"
        );
        assert!(!sql.contains(" ~ ") && !sql.contains("team ="), "{sql}");
        let hostile = Question {
            trigger: Some("a'; drop table x; /*".to_owned()),
            matching: Some("^r/a:.*$".to_owned()),
            ..question()
        };
        let sql = deployments.sql(&hostile);
        assert!(sql.contains("trigger = 'a''; drop table x; /*'"), "{sql}");
        assert!(sql.contains("image ~ '^r/a:.*$'"), "{sql}");
    }

    #[test]
    fn a_value_is_never_read_as_a_name() {
        let hostile = Question {
            trigger: Some(":team".to_owned()),
            team: Some("x".to_owned()),
            ..question()
        };
        let sql = find("deployments").unwrap().sql(&hostile);
        assert!(sql.contains("trigger = ':team'"), "{sql}");
    }
}
