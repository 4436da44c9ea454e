//! Times in rows and keys. As JSON a time is RFC 3339 in UTC, as in the events on the bus.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use tagtrail_proto::instant;
use time::OffsetDateTime;

/// A time with the microseconds that Postgres keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(pub OffsetDateTime);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        instant::serialize(&self.0, serializer)
    }
}

impl JsonSchema for Instant {
    fn schema_name() -> Cow<'static, str> {
        "Instant".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&instant::format(self.0).map_err(|_| std::fmt::Error)?)
    }
}

/// Returns the microseconds since 1970.
pub fn to_micros(time: OffsetDateTime) -> i64 {
    // Years 0 to 9999 fit many times over.
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// Returns the time that is this many microseconds after 1970. `None`: it is outside of the years
/// -9999 to 9999.
pub fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

/// Returns the time in a key. Callers that take keys from outside check them with [`from_micros`]
/// first.
///
/// # Errors
/// [`sqlx::Error::Encode`] for a time outside of the years -9999 to 9999.
pub fn of_key(micros: i64) -> Result<OffsetDateTime, sqlx::Error> {
    from_micros(micros).ok_or_else(|| sqlx::Error::Encode("a key with a time out of range".into()))
}
