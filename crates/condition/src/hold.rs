//! Holds: freezes, pins and faults.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use tagtrail_postgres::row;
use time::OffsetDateTime;

/// The most holds that are read.
const MOST: i64 = 10_000;

/// The columns of the hold `h` that [`Hold::read`] reads.
#[macro_export]
macro_rules! hold_columns {
    () => {
        "h.id, h.kind::text as kind, h.triggers, h.reason, h.hard, h.actor, h.created_at, h.until,
             (select jsonb_object_agg(i.key, i.value ->> 'digest') from jsonb_each(h.images) i) as images"
    };
}

/// A recorded reason not to begin rollouts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Hold {
    /// Id of the hold.
    pub id: u64,
    /// The kind.
    pub kind: HoldKind,
    /// Name of a trigger; of a freeze, perhaps a pattern.
    pub triggers: String,
    /// The reason, if one was given.
    pub reason: Option<String>,
    /// The freeze also holds sets that have succeeded before.
    pub hard: bool,
    /// Digest of each image of a pin, by its name in the trigger.
    pub images: Option<BTreeMap<String, String>>,
    /// Name of the token, or `local` without tokens.
    pub actor: String,
    /// Time of the order.
    #[serde(with = "tagtrail_proto::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// Time at which the hold ends by itself.
    #[serde(with = "tagtrail_proto::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub until: Option<OffsetDateTime>,
}

/// The kind of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// No new set is rolled out.
    Freeze,
    /// One set stays.
    Pin,
    /// Something unexpected happened.
    Fault,
}

impl Hold {
    /// Returns the holds in force, newest first, or the one with this id.
    ///
    /// # Errors
    /// If Postgres can't be asked.
    pub async fn list(db: &mut PgConnection, id: Option<i64>) -> Result<Vec<Hold>, sqlx::Error> {
        let rows = sqlx::query(concat!(
            "select ",
            hold_columns!(),
            " from hold h where h.released_at is null and (h.until is null or h.until > now())
                 and h.id = coalesce($1, h.id) order by h.id desc limit $2",
        ))
        .bind(id)
        .bind(MOST)
        .fetch_all(db)
        .await?;
        rows.iter().map(Hold::read).collect()
    }

    /// Reads a hold from the row of a statement with the columns of [`hold_columns!`].
    ///
    /// # Errors
    /// If a column is missing, or has another type.
    pub fn read(row: &PgRow) -> Result<Hold, sqlx::Error> {
        let images: Option<Json<_>> = row.try_get("images")?;
        Ok(Hold {
            id: row::unsigned(row.try_get("id")?),
            kind: match row.try_get("kind")? {
                "pin" => HoldKind::Pin,
                "fault" => HoldKind::Fault,
                _ => HoldKind::Freeze,
            },
            triggers: row.try_get("triggers")?,
            reason: row.try_get("reason")?,
            hard: row.try_get("hard")?,
            images: images.map(|Json(images)| images),
            actor: row.try_get("actor")?,
            created_at: row.try_get("created_at")?,
            until: row.try_get("until")?,
        })
    }

    /// Returns whether the hold is about the trigger with this name. Names and patterns consist of
    /// a-z, 0-9, - and *.
    #[must_use]
    pub fn is_about(&self, name: &str) -> bool {
        matches(&self.triggers, name)
    }
}

/// Returns whether the name matches the pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(place) = rest.find(part) else {
            return false;
        };
        rest = &rest[place + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("shop", "shop", true),
            ("shop", "shop-eu", false),
            ("shop-*", "shop-eu", true),
            ("shop-*", "shop", false),
            ("*", "shop", true),
            ("*-eu", "shop-eu", true),
            ("*-eu", "shop-eu-1", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axc", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
