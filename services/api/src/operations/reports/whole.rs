//! All rows of a report, sent as they are read: by a cursor of Postgres, on one snapshot.
//!
//! An answer that ends early must not look whole: after an error in the middle the connection is
//! aborted, so that a client sees a cut answer and no end.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Map, Value};
use tagtrail_history::reports::{Question, Report, next};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::item;
use crate::database::Database;
use crate::http::error::Error;
use crate::shared::Shared;

/// Bytes of a part, or a few rows more.
const PART: usize = 64 * 1024;
/// Parts that wait for the client.
const WAITING: usize = 2;
/// Time in which a client must take a part.
const STALLED: Duration = Duration::from_secs(30);
/// Time of a whole answer.
const LONGEST: Duration = Duration::from_secs(300);

/// A way to write rows.
pub(crate) trait Format: Send + 'static {
    /// Returns the text before the first row.
    fn begin(&self) -> String;
    /// Adds a row.
    fn row(&mut self, text: &mut String, item: &Map<String, Value>);
    /// Returns the text after the last row.
    fn end(&self) -> &'static str;
}

/// An answer that is being sent.
struct Answer {
    /// The part that is read already.
    first: Option<String>,
    parts: Receiver<String>,
    /// The task that reads the rows: whether it has sent all of them. It ends when the client is
    /// gone, because the body is dropped.
    reading: JoinSet<Result<bool, Error>>,
}

/// Asks for all rows of a report. An error before the first part is returned.
pub(crate) async fn whole(
    shared: &Shared,
    report: &'static Report,
    question: Question,
    format: impl Format,
) -> Result<Body, Error> {
    let (sender, mut parts) = channel(WAITING);
    let database = shared.database.clone();
    // A task, because a body whose client reads nothing is not polled: the time-outs would not run,
    // and the answer would keep its connection to Postgres.
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let reading = read(&database, report, &question, format, sender);
        tokio::time::timeout(LONGEST, reading)
            .await
            .unwrap_or(Ok(false))
    });
    let Some(first) = parts.recv().await else {
        return match reading.join_next().await {
            Some(Ok(Err(error))) => Err(error),
            _ => Err(Error::TooManyQuestions),
        };
    };
    let answer = Answer {
        first: Some(first),
        parts,
        reading,
    };
    Ok(Body::from_stream(stream::unfold(
        Some(answer),
        Answer::following,
    )))
}

impl Answer {
    /// Returns the next part, or an error if the last one was not the end; and then nothing.
    async fn following(
        answer: Option<Answer>,
    ) -> Option<(Result<Bytes, std::io::Error>, Option<Answer>)> {
        let mut answer = answer?;
        let part = match answer.first.take() {
            Some(first) => Some(first),
            None => answer.parts.recv().await,
        };
        if let Some(part) = part {
            return Some((Ok(part.into()), Some(answer)));
        }
        let error = match answer.reading.join_next().await {
            Some(Ok(Ok(true))) => return None,
            Some(Ok(Err(error))) => std::io::Error::other(error),
            _ => std::io::Error::other("the report took too long"),
        };
        tracing::warn!("a report was cut off: {error}");
        Some((Err(error), None))
    }
}

/// Reads the rows, and sends them. Returns false if the client takes no part for [`STALLED`].
async fn read(
    database: &Database,
    report: &'static Report,
    question: &Question,
    mut format: impl Format,
    parts: Sender<String>,
) -> Result<bool, Error> {
    database
        .ask_download(async |db| {
            report.open(db, question).await?;
            let mut text = format.begin();
            loop {
                let rows = next(db).await?;
                if rows.is_empty() {
                    break;
                }
                for row in rows {
                    format.row(&mut text, &item(&row)?);
                }
                if text.len() >= PART && !sent(&parts, std::mem::take(&mut text)).await {
                    return Ok(false);
                }
            }
            text += format.end();
            Ok(sent(&parts, text).await)
        })
        .await
}

/// Sends a part. Returns whether the client goes on.
async fn sent(parts: &Sender<String>, part: String) -> bool {
    parts.send_timeout(part, STALLED).await.is_ok()
}
