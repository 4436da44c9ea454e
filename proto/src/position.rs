//! The place of a reader in a stream.

use time::OffsetDateTime;

/// The last message of a stream that was applied, and the incarnation of the stream that it belongs
/// to.
///
/// A service stores its position in Postgres, in the transaction that records the messages, and
/// continues to read after the position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The creation time of the stream in nanoseconds since 1970: a recreated stream has a
    /// different time. `None` before the first message.
    pub stream_created_ns: Option<i64>,
    /// The sequence of the last message applied; 0 before the first message.
    pub sequence: u64,
    /// The stream's timestamp of the last message applied, in nanoseconds since 1970: a stream that
    /// was rolled back has a different message at this sequence.
    pub time_ns: Option<i64>,
}

/// Returns the nanoseconds since 1970, as JetStream counts them. Times after the year 2262 become
/// `i64::MAX`.
#[must_use]
pub fn nanoseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}
