//! The place of a reader in a stream.

use time::OffsetDateTime;

/// The last message of a stream that was applied, and the incarnation of the stream that it belongs to.
///
/// The services store it in Postgres, in the transaction of what the messages changed, and read on after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The creation time of the stream in nanoseconds since 1970: a recreated stream has another. `None`: nothing was read yet.
    pub stream_created_ns: Option<i64>,
    /// The sequence of the last message applied; 0 if none.
    pub sequence: u64,
    /// The stream's timestamp of that message in nanoseconds since 1970: a stream that was rolled back has another message there.
    pub time_ns: Option<i64>,
}

/// Returns the nanoseconds since 1970, as JetStream counts them; later times than the year 2262 become the greatest number.
#[must_use]
pub fn nanoseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}
